//! A model as the client needs to know it: what its image is called, and its classes.
//!
//! The names come from the model's own metadata, so any server of the Open Inference Protocol can be asked, and a model
//! that is not there is noticed before anything is sent to it.

use std::time::Duration;

use adit_common::id::{ModelName, Version};
use adit_common::oip::{
    Datatype, Encoded, ErrorBody, IndexEntry, IndexRequest, InferRequest, ModelMetadata, OipError, Parameters,
    RequestedOutput, Tensor,
};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, StatusCode};

use crate::connection::{Connection, Exchange};
use crate::error::ClientError;

/// The output with a value for each class, by convention; of a model that has none so named, its first output is taken.
const PROBABILITIES: &str = "probabilities";

/// The outputs of a model that finds objects.
const OBJECTS: [&str; 4] = ["boxes", "scores", "classes", "labels"];

/// A model that takes an encoded image, and gives a value for each class or finds objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    name: ModelName,
    version: Option<Version>,
    input: String,
    output: String,
    /// Whether it finds objects.
    detects: bool,
}

impl Model {
    /// Asks for the model's metadata.
    pub async fn learn(
        connection: &mut Connection,
        name: &ModelName,
        version: Option<Version>,
    ) -> Result<Self, ClientError> {
        let path = path(name, version);
        let answer = check(connection.exchange(Method::GET, &path, None).await?, connection.has_key(), name, version);
        let answer = match answer {
            Err(ClientError::NoSuchModel { model, .. }) => {
                return Err(ClientError::NoSuchModel { model, there: list(connection).await });
            }
            other => other?,
        };
        let metadata: ModelMetadata = serde_json::from_slice(&answer.body).map_err(OipError::Json)?;
        let image = metadata.inputs.iter().find(|input| input.datatype == Datatype::Bytes);
        let Some(image) = image else {
            let inputs = metadata.inputs.iter().map(|input| format!("{} ({})", input.name, input.datatype));
            let inputs = Some(inputs.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty());
            let inputs = inputs.unwrap_or_else(|| "nothing".to_owned());
            return Err(ClientError::NoImage { model: name.to_string(), inputs });
        };
        let classes = metadata.outputs.iter().find(|output| output.name == PROBABILITIES);
        let classes = classes.or(metadata.outputs.first()).map_or(PROBABILITIES, |output| &output.name);
        let detects = OBJECTS.iter().all(|name| metadata.outputs.iter().any(|output| output.name == *name));
        Ok(Self { name: name.clone(), version, input: image.name.clone(), output: classes.to_owned(), detects })
    }

    /// Its name.
    pub const fn name(&self) -> &ModelName {
        &self.name
    }

    /// The version that is asked for; the newest where none is.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// What its output with the classes is called.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// Whether it finds objects; a model that does not tells classes of whole images.
    pub const fn detects(&self) -> bool {
        self.detects
    }

    /// Where it is asked.
    pub fn infer_path(&self) -> String {
        format!("{}/infer", path(&self.name, self.version))
    }

    /// The question of an encoded image (JPEG, PNG, ...): its `top` classes, of use within `limit`. The image travels as
    /// binary data, one BYTES element of shape `[1]`.
    pub fn question(&self, image: Bytes, top: usize, limit: Duration) -> Result<Encoded, ClientError> {
        let classes = Parameters::default().with("classification", top.max(1)).with("binary_data", false);
        self.ask(image, limit, vec![RequestedOutput { name: self.output.clone(), parameters: classes }])
    }

    /// The question of an encoded image: what objects are on it, of use within `limit`.
    pub fn question_of_objects(&self, image: Bytes, limit: Duration) -> Result<Encoded, ClientError> {
        let binary = || Parameters::default().with("binary_data", true);
        let outputs = OBJECTS.map(|name| RequestedOutput { name: name.to_owned(), parameters: binary() });
        self.ask(image, limit, outputs.into())
    }

    fn ask(&self, image: Bytes, limit: Duration, outputs: Vec<RequestedOutput>) -> Result<Encoded, ClientError> {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let request = InferRequest {
            id: None,
            parameters: Parameters::default().with("timeout", micros),
            inputs: vec![Tensor::bytes(&self.input, &[1], vec![image])?],
            outputs: Some(outputs),
        };
        Ok(request.encode(true)?)
    }

    /// The exchange, unless its answer is no success.
    pub(crate) fn check(&self, answer: Exchange, had_key: bool) -> Result<Exchange, ClientError> {
        check(answer, had_key, &self.name, self.version)
    }
}

fn path(name: &ModelName, version: Option<Version>) -> String {
    version.map_or_else(|| format!("/v2/models/{name}"), |version| format!("/v2/models/{name}/versions/{version}"))
}

/// What models can be asked, as far as it can be told.
async fn list(connection: &mut Connection) -> Vec<String> {
    let body = serde_json::to_vec(&IndexRequest { ready: true }).unwrap_or_default();
    let body = Encoded { header_length: None, body: body.into() };
    let Ok(answer) = connection.exchange(Method::POST, "/v2/repository/index", Some(&body)).await else {
        return Vec::new();
    };
    let entries: Vec<IndexEntry> = serde_json::from_slice(&answer.body).unwrap_or_default();
    let mut names: Vec<_> = entries
        .into_iter()
        .map(|entry| if entry.version.is_empty() { entry.name } else { format!("{} {}", entry.name, entry.version) })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn check(answer: Exchange, had_key: bool, name: &ModelName, version: Option<Version>) -> Result<Exchange, ClientError> {
    if answer.status == StatusCode::OK {
        return Ok(answer);
    }
    let message = message(&answer);
    let retry_after = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Err(match answer.status {
        StatusCode::UNAUTHORIZED => ClientError::Unauthorized { had_key, message },
        StatusCode::FORBIDDEN => ClientError::Forbidden { message },
        StatusCode::NOT_FOUND => {
            let model = version.map_or_else(|| name.to_string(), |version| format!("{name} in version {version}"));
            ClientError::NoSuchModel { model, there: Vec::new() }
        }
        StatusCode::SERVICE_UNAVAILABLE => ClientError::Unavailable { message, retry_after },
        status => ClientError::Status { status, message },
    })
}

/// What an answer that is no success says.
fn message(answer: &Exchange) -> String {
    let said = serde_json::from_slice::<ErrorBody>(&answer.body).map(|body| body.error);
    let said = said.unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).into_owned());
    // From a stranger to a terminal: a line, and nothing that a terminal obeys.
    let said: String = said.trim().chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if said.is_empty() { "no reason given".to_owned() } else { said }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(version: Option<Version>) -> Model {
        let name = ModelName::new("digits").unwrap();
        Model { name, version, input: "image".into(), output: PROBABILITIES.into(), detects: false }
    }

    #[test]
    fn a_question_is_one_image_and_its_top_classes() {
        let photo = Bytes::from_static(b"\xff\xd8photo");
        let question = model(None).question(photo.clone(), 5, Duration::from_millis(250)).unwrap();
        let read = InferRequest::parse(&question.body, question.header_length).unwrap();
        assert_eq!(read.inputs[0].name(), "image");
        assert_eq!(read.inputs[0].shape(), [1]);
        assert_eq!(read.inputs[0].to_elements().unwrap(), [photo]);
        assert_eq!(read.parameters.timeout().unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(read.requested(PROBABILITIES).unwrap().parameters.classification().unwrap(), Some(5));
        assert!(!read.wants_binary(PROBABILITIES).unwrap());
    }

    #[test]
    fn a_version_is_part_of_the_path() {
        assert_eq!(model(None).infer_path(), "/v2/models/digits/infer");
        assert_eq!(model(Some(Version(3))).infer_path(), "/v2/models/digits/versions/3/infer");
    }
}
