//! `adit-agent infer`: a model asked where it is, without any relay.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use adit_agent::config::Config;
use adit_agent::metrics::Metrics;
use adit_agent::serving::{Choice, Defaults, Findings, InferRequest, Input, Limits, Priority, Repository, Serving};
use adit_common::deadline::Deadline;
use adit_common::id::ModelName;
use adit_common::timing::Stopwatch;
use adit_vision::Detection;
use anyhow::Context as _;

/// Prints the likeliest classes of each image, or what a detector finds in it, and where the time went.
pub(crate) fn infer(config: Config, model: Option<&str>, top: usize, images: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let metrics = Arc::new(Metrics::new());
    let repository = Repository::scan(&config.serving, metrics.clone())?;
    let limits = Limits { max_images: 1, max_pixels: config.api.max_pixels, decoders: 1 };
    let defaults = Defaults { model: config.serving.default_model.clone(), detector: None };
    let serving = Serving::new(&repository, defaults, limits, metrics);
    let model = match model {
        Some(name) => {
            let name = ModelName::new(name)?;
            repository.load_only(&name);
            name
        }
        None => {
            repository.load();
            serving.default_model().context("there is no model that works: see adit-agent check")?
        }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let mut failed = false;
    for path in images {
        match runtime.block_on(ask(&serving, &model, top, path)) {
            Ok(text) => println!("{}\n{text}", path.display()),
            Err(error) => {
                eprintln!("{}: {error:#}", path.display());
                failed = true;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn ask(serving: &Serving, model: &ModelName, top: usize, path: &Path) -> anyhow::Result<String> {
    let image = std::fs::read(path)?;
    let mut watch = Stopwatch::start();
    let input = Input::Images(vec![image.into()]);
    let request = InferRequest {
        model: model.clone(),
        version: Choice::Newest,
        input,
        deadline: Deadline::never(),
        priority: Priority::default(),
    };
    let response = serving.infer(request, &mut watch).await?;
    let timing = watch.finish();
    let mut lines: Vec<String> = match &response.findings {
        Findings::Probabilities(rows) => {
            let row = rows.first().context("the model gave nothing")?;
            let classes = adit_vision::top(row, &response.labels, top)?.into_iter();
            classes.map(|class| format!("  {:6.2} %  {}", class.probability * 100.0, class.label)).collect()
        }
        Findings::Detections(rows) => {
            let found = rows.first().context("the model gave nothing")?;
            if found.is_empty() { vec!["  nothing was found".to_owned()] } else { found.iter().map(place).collect() }
        }
    };
    lines.push(format!("  {}", timing.to_header()));
    Ok(lines.join("\n"))
}

/// A detection in a line; its corners in pixels.
fn place(found: &Detection) -> String {
    let [left, top, right, bottom] = found.corners;
    let share = found.score * 100.0;
    format!("  {share:6.2} %  {}  from {left:.1}, {top:.1} to {right:.1}, {bottom:.1}", found.label)
}
