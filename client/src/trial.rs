//! `adit test`: a measurement by the command line's plan, and its report.

use std::io::Write;
use std::time::{Duration, SystemTime};

use adit_common::daemon::Shutdown;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::TestArgs;
use crate::connect::{Connector, Options};
use crate::error::ClientError;
use crate::load::measure;
use crate::model::Model;
use crate::report::{Report, Subject};

/// Measures by the plan of `args` and writes the report. Says whether every request was answered. The progress is shown
/// on standard error if that is a terminal. When `scope` begins to drain, the report is of what was measured until then.
pub async fn test_model(
    args: &TestArgs,
    environment_key: Option<&str>,
    scope: &Shutdown,
    out: &mut dyn Write,
) -> Result<bool, ClientError> {
    let read = tokio::fs::read(&args.image).await;
    let image = Bytes::from(read.map_err(|source| ClientError::File { path: args.image.clone(), source })?);
    let options = Options { resumption: false, ..args.connection.options(environment_key)? };
    let connector = Connector::new(options)?;
    let mut connection = connector.connect(scope).await?;
    let protocol = connection.protocol().name();
    let model = Model::learn(&mut connection, &args.model, args.version).await?;
    drop(connection);

    let plan = args.plan();
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let subject = Subject {
        target: connector.options().target.to_string(),
        model: model.name().to_string(),
        version: model.version().map(|version| version.to_string()),
        image: args.image.display().to_string(),
        image_bytes: image.len() as u64,
        protocol,
        began: began.as_secs_f64(),
    };
    let bar = progress(plan.requests as u64);
    let mut failed = 0_u64;
    let tally = Box::pin(measure(&plan, &connector, &model, image, scope, |sample| {
        bar.inc(1);
        if let Err(error) = &sample.outcome {
            failed += 1;
            bar.set_message(format!("{failed} failed ({})", error.class()));
        }
    }))
    .await;
    bar.finish_and_clear();
    let report = Report::new(subject, &plan, &tally?);
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    Ok(report.is_clean())
}

/// Draws to standard error, and not at all where that is no terminal.
fn progress(requests: u64) -> ProgressBar {
    let bar = ProgressBar::new(requests);
    let style = ProgressStyle::with_template("  {bar:40} {pos}/{len}  {per_sec}  {eta} left  {msg}");
    // A template that cannot be read would leave the bar's own.
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
    }
    bar
}
