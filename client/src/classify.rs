//! `adit classify`: the classes of images, and the path that each request took.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use adit_common::daemon::Shutdown;
use serde::Serialize;

use crate::answer::{Answer, classify};
use crate::args::ClassifyArgs;
use crate::connect::Connector;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::model::Model;
use crate::waterfall::{blocks, millis, waterfall};

/// Classifies each image over one connection and writes what came of it; what failed for one image goes to `errors` and
/// the next is tried. Says whether all went well. What would fail for every image is an error at once.
pub async fn classify_images(
    args: &ClassifyArgs,
    environment_key: Option<&str>,
    scope: &Shutdown,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<bool, ClientError> {
    let connector = Connector::new(args.connection.options(environment_key)?)?;
    let mut connection = connector.connect(scope).await?;
    let model = Model::learn(&mut connection, &args.model, args.version).await?;
    let mut all_well = true;
    for (index, path) in args.images.iter().enumerate() {
        if connection.is_closed() {
            // After a time-out in the middle of an exchange, or because the relay went away meanwhile.
            connection = connector.connect(scope).await?;
        }
        let mut answer = one(&mut connection, &model, path, args.top.into()).await;
        if let Err(ClientError::NotSent(_)) = answer {
            connection = connector.connect(scope).await?;
            answer = one(&mut connection, &model, path, args.top.into()).await;
        }
        all_well &= answer.is_ok();
        match (answer, args.json) {
            (Ok(answer), true) => write_json(out, &Line::new(path, &answer, &connection))?,
            (Ok(answer), false) => {
                if index > 0 {
                    writeln!(out)?;
                }
                write_text(out, path, &answer, &connection)?;
            }
            (Err(error), true) => {
                write_json(out, &Failure { image: path.display().to_string(), error: with_sources(&error) })?;
            }
            (Err(error), false) => writeln!(errors, "{}: {}", path.display(), with_sources(&error))?,
        }
        out.flush()?;
    }
    Ok(all_well)
}

async fn one(connection: &mut Connection, model: &Model, path: &Path, top: usize) -> Result<Answer, ClientError> {
    let read = tokio::fs::read(path).await;
    let image = read.map_err(|source| ClientError::File { path: path.to_owned(), source })?;
    classify(connection, model, image.into(), top).await
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn write_text(out: &mut dyn Write, path: &Path, answer: &Answer, connection: &Connection) -> Result<(), ClientError> {
    let version = answer.version.as_ref().map(|version| format!(" version {version}")).unwrap_or_default();
    writeln!(out, "{}: {}{version}, {}", path.display(), printable(&answer.model), connection.protocol().name())?;
    for class in &answer.predictions {
        let percent = f64::from(class.value) * 100.0;
        // Twenty columns for a probability; a value that is none has no bar.
        let length = if (0.0..=100.0).contains(&percent) { (percent * 1.6).round() as usize } else { 0 };
        let label = class.label.as_deref().map(printable).unwrap_or_default();
        writeln!(out, "  {percent:>6.2} %  {:<20}  {:>4}  {label}", blocks(length), class.index)?;
    }
    writeln!(out)?;
    out.write_all(waterfall(answer.elapsed, answer.timing.as_ref()).as_bytes())?;
    let setup = connection.setup();
    let tls = setup.tls.map(|tls| format!(", tls {}", millis(tls))).unwrap_or_default();
    let parts = format!("resolve {}, tcp {}{tls}", millis(setup.resolve), millis(setup.tcp));
    writeln!(out, "  the connection was opened before in {} ms ({parts})", millis(setup.total()))?;
    writeln!(out, "  request {}, trace {}", printable(&answer.request_id), answer.trace_id)?;
    Ok(())
}

/// What came from afar, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn write_json(out: &mut dyn Write, line: &impl Serialize) -> Result<(), ClientError> {
    let mut text = serde_json::to_vec(line).map_err(std::io::Error::other)?;
    text.push(b'\n');
    Ok(out.write_all(&text)?)
}

/// One image for a machine. Times are in milliseconds.
#[derive(Serialize)]
struct Line {
    image: String,
    model: String,
    version: Option<String>,
    predictions: Vec<Prediction>,
    elapsed_ms: f64,
    network_ms: Option<f64>,
    relay_total_ms: Option<f64>,
    stages_ms: serde_json::Map<String, serde_json::Value>,
    receive_ms: Option<f64>,
    forward_on: Option<String>,
    setup_ms: f64,
    protocol: &'static str,
    request_id: String,
    trace_id: String,
}

#[derive(Serialize)]
struct Prediction {
    label: Option<String>,
    index: usize,
    probability: f32,
}

#[derive(Serialize)]
struct Failure {
    image: String,
    error: String,
}

impl Line {
    fn new(path: &Path, answer: &Answer, connection: &Connection) -> Self {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let timing = answer.timing.as_ref();
        let stages = timing.into_iter().flat_map(|timing| timing.stages());
        let prediction = |class: &adit_common::oip::Classification| Prediction {
            label: class.label.clone(),
            index: class.index,
            probability: class.value,
        };
        Self {
            image: path.display().to_string(),
            model: answer.model.clone(),
            version: answer.version.clone(),
            predictions: answer.predictions.iter().map(prediction).collect(),
            elapsed_ms: ms(answer.elapsed),
            network_ms: answer.network().map(ms),
            relay_total_ms: timing.map(|timing| ms(timing.total())),
            stages_ms: stages.map(|(stage, time)| (stage.name().to_owned(), ms(time).into())).collect(),
            receive_ms: timing.and_then(|timing| timing.receive()).map(ms),
            forward_on: timing.and_then(|timing| timing.note()).map(str::to_owned),
            setup_ms: ms(connection.setup().total()),
            protocol: connection.protocol().name(),
            request_id: answer.request_id.clone(),
            trace_id: answer.trace_id.clone(),
        }
    }
}
