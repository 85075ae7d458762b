//! What a model said of an image, and where the time went.

use std::time::Duration;

use adit_common::oip::{Classification, InferResponse, OipError, Tensor, header_length};
use adit_common::timing::Timing;
use bytes::Bytes;
use http::Method;

use crate::connection::{Connection, Exchange};
use crate::error::ClientError;
use crate::model::Model;

/// What a model makes of an image, the surest first, and the path of the question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T = Classification> {
    /// The model that answered.
    pub model: String,
    /// Its version, if it said.
    pub version: Option<String>,
    /// Its classes, or the objects that it found, the surest first.
    pub predictions: Vec<T>,
    /// From the request put on the connection to the answer's last byte.
    pub elapsed: Duration,
    /// Where the relay and the agent spent it, if they said.
    pub timing: Option<Timing>,
    /// The request's id.
    pub request_id: String,
    /// The trace's id, 32 hexadecimal digits.
    pub trace_id: String,
}

/// One object that a detector found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its class's name.
    pub label: String,
    /// Its class's number.
    pub class: usize,
    /// From 0 to 1.
    pub score: f32,
    /// Left, top, right and bottom in pixels of the upright image.
    pub corners: [f32; 4],
}

impl<T> Answer<T> {
    /// What passed on the way between this machine and the relay, both ways: all but the relay's own total.
    pub fn network(&self) -> Option<Duration> {
        self.timing.as_ref().map(|timing| self.elapsed.saturating_sub(timing.total()))
    }

    fn of(
        exchange: Exchange,
        model: &Model,
        had_key: bool,
        predictions: impl FnOnce(&InferResponse) -> Result<Vec<T>, OipError>,
    ) -> Result<Self, ClientError> {
        let exchange = model.check(exchange, had_key)?;
        let response = InferResponse::parse(&exchange.body, header_length(&exchange.headers)?)?;
        let predictions = predictions(&response)?;
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

impl Answer {
    /// Reads the answer to a question of `model`; one that is no success is an error.
    pub(crate) fn read(exchange: Exchange, model: &Model, had_key: bool) -> Result<Self, ClientError> {
        Self::of(exchange, model, had_key, |response| Classification::read(output(response, model.output())?))
    }
}

impl Answer<Found> {
    /// As [`Answer::read`], of the answer to a question about objects.
    fn read_objects(exchange: Exchange, model: &Model, had_key: bool) -> Result<Self, ClientError> {
        Self::of(exchange, model, had_key, objects)
    }
}

fn output<'a>(response: &'a InferResponse, name: &str) -> Result<&'a Tensor, OipError> {
    response.output(name).ok_or_else(|| OipError::Data { name: name.to_owned() })
}

/// The objects in the first image of an answer: a row of each output, whose unused places have no class.
fn objects(response: &InferResponse) -> Result<Vec<Found>, OipError> {
    let scores = output(response, "scores")?.to_floats()?;
    let corners = output(response, "boxes")?.to_floats()?;
    let classes = output(response, "classes")?.to_integers()?;
    let labels = output(response, "labels")?.to_elements()?;
    let (corners, rest) = corners.as_chunks::<4>();
    let same = [corners.len(), classes.len(), labels.len()].iter().all(|length| *length == scores.len());
    if !same || !rest.is_empty() {
        return Err(OipError::Data { name: "boxes".to_owned() });
    }
    let places = corners.iter().zip(scores).zip(classes.iter().zip(labels));
    let found = places.filter_map(|((corners, score), (class, label))| {
        let class = usize::try_from(*class).ok()?;
        Some(Found { label: String::from_utf8_lossy(label).into_owned(), class, score, corners: *corners })
    });
    Ok(found.collect())
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

/// Asks `model` for the objects in an encoded image.
pub async fn detect(connection: &mut Connection, model: &Model, image: Bytes) -> Result<Answer<Found>, ClientError> {
    let question = model.question_of_objects(image, connection.limit())?;
    let exchange = connection.exchange(Method::POST, &model.infer_path(), Some(&question)).await?;
    Answer::read_objects(exchange, model, connection.has_key())
}

#[cfg(test)]
mod tests {
    use adit_common::oip::Datatype;

    use super::*;

    fn response(scores: &[f32]) -> InferResponse {
        let classes: Vec<u8> = [41i64, -1].iter().flat_map(|class| class.to_le_bytes()).collect();
        let labels = vec![Bytes::from_static(b"cup"), Bytes::new()];
        InferResponse {
            outputs: vec![
                Tensor::floats("boxes", &[1, 2, 4], &[1., 2., 3., 4., 0., 0., 0., 0.]).unwrap(),
                Tensor::floats("scores", &[1, scores.len()], scores).unwrap(),
                Tensor::numbers("classes", Datatype::Int64, &[1, 2], classes.into()).unwrap(),
                Tensor::bytes("labels", &[1, 2], labels).unwrap(),
            ],
            ..InferResponse::default()
        }
    }

    #[test]
    fn places_without_an_object_are_left_out() {
        let cup = Found { label: "cup".into(), class: 41, score: 0.9, corners: [1., 2., 3., 4.] };
        assert_eq!(objects(&response(&[0.9, 0.0])).unwrap(), [cup]);
        assert!(objects(&response(&[0.9])).is_err(), "a score is missing");
        let none = InferResponse { outputs: Vec::new(), ..InferResponse::default() };
        assert!(objects(&none).is_err());
    }
}
