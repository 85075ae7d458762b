//! `adit-agent list`: which models there are, and what is wrong with them.

use std::process::ExitCode;

use adit_agent::config::ServingConfig;
use adit_agent::serving::Devices;
use adit_agent::workbench::{State, Surveyed, survey};
use anyhow::Context as _;
use serde_json::json;

use super::table::{megabytes, table};

/// Prints every version of every model, after trying each; fails if one does not work.
pub(crate) fn list(serving: &ServingConfig, as_json: bool) -> anyhow::Result<ExitCode> {
    let models = serving.models.as_deref();
    let embedded = serving.embedded.unwrap_or(models.is_none());
    let devices = Devices::open(serving.device)?;
    let found = survey(models, embedded, &devices).with_context(|| match models {
        Some(models) => format!("cannot read the models folder {}", models.display()),
        None => "cannot look through the models".to_owned(),
    })?;
    if as_json {
        let lines: Vec<_> = found.iter().map(object).collect();
        println!("{}", serde_json::to_string_pretty(&lines)?);
    } else {
        let mut rows =
            vec![["model", "version", "architecture", "input", "classes", "size", "state"].map(str::to_owned)];
        rows.extend(found.iter().map(row));
        print!("{}", table(&rows, &[1, 4, 5]));
    }
    let broken = found.iter().any(|model| matches!(model.state, State::Broken(_)));
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn row(model: &Surveyed) -> [String; 7] {
    let none = || "-".to_owned();
    [
        model.name.to_string(),
        model.version.map_or_else(none, |version| version.to_string()),
        model.architecture.clone().unwrap_or_else(none),
        model.input.map_or_else(none, |input| input.to_string()),
        model.classes.map_or_else(none, |classes| classes.to_string()),
        if model.size == 0 { none() } else { megabytes(model.size) },
        match &model.state {
            State::Ready => "ready".to_owned(),
            State::LeftOut => "left out by the version policy".to_owned(),
            State::Broken(reason) => format!("BROKEN: {reason}"),
        },
    ]
}

fn object(model: &Surveyed) -> serde_json::Value {
    let (state, reason) = match &model.state {
        State::Ready => ("ready", None),
        State::LeftOut => ("left_out", None),
        State::Broken(reason) => ("broken", Some(reason)),
    };
    json!({
        "name": model.name.as_str(),
        "version": model.version.map(|version| version.0),
        "architecture": model.architecture,
        "input": model.input.map(|input| [input.channels, input.height, input.width]),
        "classes": model.classes,
        "size_bytes": model.size,
        "state": state,
        "reason": reason,
    })
}
