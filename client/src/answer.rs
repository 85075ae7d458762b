//! What a model said of an image, and where the time went.

use std::time::Duration;

use adit_common::oip::{Classification, InferResponse, OipError, header_length};
use adit_common::timing::Timing;
use bytes::Bytes;
use http::Method;

use crate::connection::{Connection, Exchange};
use crate::error::ClientError;
use crate::model::Model;

/// The classes of an image, most likely first, and the path of the question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The model that answered.
    pub model: String,
    /// Its version, if it said.
    pub version: Option<String>,
    /// Its classes, most likely first.
    pub predictions: Vec<Classification>,
    /// From the request put on the connection to the answer's last byte.
    pub elapsed: Duration,
    /// Where the relay and the agent spent it, if they said.
    pub timing: Option<Timing>,
    /// The request's id.
    pub request_id: String,
    /// The trace's id, 32 hexadecimal digits.
    pub trace_id: String,
}

impl Answer {
    /// What passed on the way between this machine and the relay, both ways: all but the relay's own total.
    pub fn network(&self) -> Option<Duration> {
        self.timing.as_ref().map(|timing| self.elapsed.saturating_sub(timing.total()))
    }

    /// Reads the answer to a question of `model`; one that is no success is an error.
    pub(crate) fn read(exchange: Exchange, model: &Model, had_key: bool) -> Result<Self, ClientError> {
        let exchange = model.check(exchange, had_key)?;
        let response = InferResponse::parse(&exchange.body, header_length(&exchange.headers)?)?;
        let output = response.output(model.output()).ok_or_else(|| OipError::Data { name: model.output().to_owned() });
        let predictions = Classification::read(output?)?;
        let timing = exchange.headers.get(Timing::HEADER).and_then(|value| Timing::parse(value.to_str().ok()?));
        Ok(Self {
            model: response.model_name,
            version: response.model_version,
            predictions,
            elapsed: exchange.whole,
            timing,
            request_id: exchange.id,
            trace_id: exchange.trace.trace_id(),
        })
    }
}

/// Asks `model` for the `top` classes of an encoded image (JPEG, PNG, ...).
pub async fn classify(
    connection: &mut Connection,
    model: &Model,
    image: Bytes,
    top: usize,
) -> Result<Answer, ClientError> {
    let question = model.question(image, top, connection.limit())?;
    let exchange = connection.exchange(Method::POST, &model.infer_path(), Some(&question)).await?;
    Answer::read(exchange, model, connection.has_key())
}
