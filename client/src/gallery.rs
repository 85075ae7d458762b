//! Images asked about one after another over one connection: the walk that `classify` and `detect` share.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_common::daemon::Shutdown;
use adit_common::id::{ModelName, Version};
use adit_picture::Pixels;
use bytes::Bytes;
use serde::Serialize;

use crate::answer::Answer;
use crate::args::ConnectionArgs;
use crate::connect::Connector;
use crate::connection::Connection;
use crate::drawn::Place;
use crate::error::ClientError;
use crate::model::Model;
use crate::waterfall::{millis, waterfall};

/// What is asked about each image, and how its answer is told.
pub(crate) trait Question {
    /// One of the things that an answer has.
    type Found: Clone + Send + Sync + 'static;

    /// Refuses a model that has no answer to it.
    fn fits(&self, model: &Model) -> Result<(), ClientError>;

    /// Asks.
    async fn ask(
        &self,
        connection: &mut Connection,
        model: &Model,
        image: Bytes,
    ) -> Result<Answer<Self::Found>, ClientError>;

    /// One line for people, without its end.
    fn line(&self, found: &Self::Found) -> String;

    /// The same for machines.
    fn value(&self, found: &Self::Found) -> serde_json::Value;

    /// Draws all of them.
    fn draw(pixels: &mut Pixels, found: &[Self::Found]);
}

/// The images, and whom to ask about them.
pub(crate) struct Gallery<'a> {
    pub(crate) connection: &'a ConnectionArgs,
    pub(crate) key: Option<&'a str>,
    pub(crate) model: &'a ModelName,
    pub(crate) version: Option<Version>,
    pub(crate) json: bool,
    pub(crate) out: Option<&'a Path>,
    pub(crate) images: &'a [PathBuf],
}

impl Gallery<'_> {
    /// Asks about each image and writes what came of it; what failed for one image goes to `errors` and the next is tried. Says
    /// whether all went well. What would fail for every image is an error at once.
    pub(crate) async fn walk<Q: Question>(
        &self,
        question: &Q,
        scope: &Shutdown,
        out: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> Result<bool, ClientError> {
        let place = self.out.map(|out| Place::new(out, self.images.len())).transpose()?;
        let connector = Connector::new(self.connection.options(self.key)?)?;
        let mut connection = connector.connect(scope).await?;
        let model = Model::learn(&mut connection, self.model, self.version).await?;
        question.fits(&model)?;
        let mut all_well = true;
        for (index, path) in self.images.iter().enumerate() {
            if connection.is_closed() {
                // After a time-out in the middle of an exchange, or because the relay went away meanwhile.
                connection = connector.connect(scope).await?;
            }
            let mut answer = one(question, &mut connection, &model, path, place.as_ref()).await;
            if let Err(ClientError::NotSent(_)) = answer {
                connection = connector.connect(scope).await?;
                answer = one(question, &mut connection, &model, path, place.as_ref()).await;
            }
            all_well &= answer.is_ok();
            match (answer, self.json) {
                (Ok((answer, drawn)), true) => {
                    write_json(out, &Line::new(question, path, &answer, drawn.as_deref(), &connection))?;
                }
                (Ok((answer, drawn)), false) => {
                    if index > 0 {
                        writeln!(out)?;
                    }
                    write_text(question, out, path, &answer, drawn.as_deref(), &connection)?;
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
}

/// The answer about one image, and where it was drawn.
async fn one<Q: Question>(
    question: &Q,
    connection: &mut Connection,
    model: &Model,
    path: &Path,
    place: Option<&Place>,
) -> Result<(Answer<Q::Found>, Option<PathBuf>), ClientError> {
    let read = tokio::fs::read(path).await;
    let image = Bytes::from(read.map_err(|source| ClientError::File { path: path.to_owned(), source })?);
    let answer = question.ask(connection, model, image.clone()).await?;
    let Some(place) = place else { return Ok((answer, None)) };
    let found = answer.predictions.clone();
    let drawn = place.write(path, image, move |pixels| Q::draw(pixels, &found)).await?;
    Ok((answer, Some(drawn)))
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

fn write_text<Q: Question>(
    question: &Q,
    out: &mut dyn Write,
    path: &Path,
    answer: &Answer<Q::Found>,
    drawn: Option<&Path>,
    connection: &Connection,
) -> Result<(), ClientError> {
    let version = answer.version.as_ref().map(|version| format!(" version {version}")).unwrap_or_default();
    writeln!(out, "{}: {}{version}, {}", path.display(), printable(&answer.model), connection.protocol().name())?;
    if answer.predictions.is_empty() {
        writeln!(out, "  nothing was found")?;
    }
    for found in &answer.predictions {
        writeln!(out, "  {}", question.line(found))?;
    }
    writeln!(out)?;
    out.write_all(waterfall(answer.elapsed, answer.timing.as_ref()).as_bytes())?;
    let setup = connection.setup();
    let tls = setup.tls.map(|tls| format!(", tls {}", millis(tls))).unwrap_or_default();
    let parts = format!("resolve {}, tcp {}{tls}", millis(setup.resolve), millis(setup.tcp));
    writeln!(out, "  the connection was opened before in {} ms ({parts})", millis(setup.total()))?;
    writeln!(out, "  request {}, trace {}", printable(&answer.request_id), answer.trace_id)?;
    if let Some(drawn) = drawn {
        writeln!(out, "  drawn: {}", drawn.display())?;
    }
    Ok(())
}

/// What came from afar, without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
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
    predictions: Vec<serde_json::Value>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    drawn: Option<String>,
}

#[derive(Serialize)]
struct Failure {
    image: String,
    error: String,
}

impl Line {
    fn new<Q: Question>(
        question: &Q,
        path: &Path,
        answer: &Answer<Q::Found>,
        drawn: Option<&Path>,
        connection: &Connection,
    ) -> Self {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let timing = answer.timing.as_ref();
        let stages = timing.into_iter().flat_map(|timing| timing.stages());
        Self {
            image: path.display().to_string(),
            model: answer.model.clone(),
            version: answer.version.clone(),
            predictions: answer.predictions.iter().map(|found| question.value(found)).collect(),
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
            drawn: drawn.map(|drawn| drawn.display().to_string()),
        }
    }
}
