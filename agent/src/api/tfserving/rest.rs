//! TensorFlow Serving's REST API, version 1.
//!
//! The last segment of a path that asks ends in a verb: `/v1/models/digits:predict`. Paths are declared without it, and it is cut
//! off here. What stands after `/versions/` or `/labels/` may be a number or a label: neither can be taken for the other.
//!
//! Every error is `{"error": "..."}` under the status that TensorFlow's code has over HTTP.

use std::sync::Arc;

use adit_common::deadline::Deadline;
use adit_common::manifest::Dialect;
use adit_common::timing::{Stage, Stopwatch};
use adit_proto::tensorflow::serving::Classifications;
use adit_proto::tensorflow::{DataType, SignatureDef, TensorInfo};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use super::super::paths::Paths;
use super::super::reply::{bytes, json, refusal, timed};
use super::super::router::{Api, arrived, deadline};
use super::ask::{Wanted, input};
use super::example;
use super::grpc::statuses;
use super::json::{Classify, Predict, classify, predict, predictions, results};
use super::outputs::{classes, outputs};
use super::signature::{self, CLASSIFIES, REGRESSES, check, signatures};
use crate::serving::{Card, Choice, Input, Serving};

/// A JSON body above this is read on the blocking pool.
const LARGE_JSON: usize = 128 << 10;

/// `/v1/models/{model}[/versions/{version}|/labels/{version}]`
#[derive(Debug, Deserialize)]
pub(crate) struct ModelPath {
    model: String,
    version: Option<String>,
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Predict,
    Classify,
    Regress,
}

impl ModelPath {
    fn wanted(&self) -> Result<Wanted, Status> {
        Wanted::of_path(&self.model, self.version.as_deref())
    }

    /// Cuts the verb off.
    fn verb(&mut self) -> Option<Verb> {
        let last = self.version.as_mut().unwrap_or(&mut self.model);
        let (name, verb) = last.rsplit_once(':')?;
        let verb = match verb {
            "predict" => Verb::Predict,
            "classify" => Verb::Classify,
            "regress" => Verb::Regress,
            _ => return None,
        };
        *last = name.to_owned();
        Some(verb)
    }
}

/// What may be asked in this dialect over HTTP with JSON.
pub(crate) fn paths() -> Paths {
    let mut paths = Paths::of(Dialect::TfServing);
    for model in ["/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{version}"]
    {
        paths = paths.get(model, status).post(model, ask).get(&format!("{model}/metadata"), metadata);
    }
    paths
}

/// An error under the status of its code.
fn refuse(status: &Status) -> Response<Body> {
    let number = match status.code() {
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::FailedPrecondition => 412,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        _ => 500,
    };
    refusal(StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), status.message())
}

fn malformed(request: &Request) -> Status {
    let path: String = request.uri().path().chars().take(200).collect();
    Status::invalid_argument(format!("Malformed request: {} {path}", request.method()))
}

/// `GET /v1/models/{model}`
pub(crate) async fn status(
    State(api): State<Arc<Api>>,
    Path(path): Path<ModelPath>,
    request: Request,
) -> Response<Body> {
    if path.model.contains(':') {
        return refuse(&malformed(&request));
    }
    let found = path.wanted().and_then(|wanted| statuses(&api.serving, &wanted));
    let found = match found {
        Ok(found) => found,
        Err(status) => return refuse(&status),
    };
    let version = |version: adit_proto::tensorflow::serving::ModelVersionStatus| {
        let status = version.status.clone().unwrap_or_default();
        json!({
            "version": version.version.to_string(),
            "state": version.state().as_str_name(),
            "status": { "error_code": code_name(status.error_code), "error_message": status.error_message },
        })
    };
    let versions: Vec<_> = found.into_iter().map(version).collect();
    json(StatusCode::OK, &json!({ "model_version_status": versions }))
}

/// A code as protobuf's JSON spells it. Only those that are told of versions.
fn code_name(code: i32) -> &'static str {
    match Code::from(code) {
        Code::Ok => "OK",
        Code::Unavailable => "UNAVAILABLE",
        _ => "UNKNOWN",
    }
}

/// `GET /v1/models/{model}/metadata`
pub(crate) async fn metadata(State(api): State<Arc<Api>>, Path(path): Path<ModelPath>) -> Response<Body> {
    let found = path.wanted().and_then(|wanted| Ok((wanted.card(&api.serving)?, wanted)));
    let (card, wanted) = match found {
        Ok(found) => found,
        Err(status) => return refuse(&status),
    };
    let signatures: Map<_, _> = signatures(&card).into_iter().map(|(name, of)| (name, signature(&of))).collect();
    let spec = json!({ "name": wanted.model, "signature_name": "", "version": card.version.to_string() });
    let body = json!({
        "model_spec": spec,
        "metadata": { "signature_def": { "signature_def": signatures } },
    });
    json(StatusCode::OK, &body)
}

fn signature(of: &SignatureDef) -> Value {
    let tensors = |tensors: &std::collections::HashMap<String, TensorInfo>| -> Map<String, Value> {
        tensors.iter().map(|(name, tensor)| (name.clone(), info(tensor))).collect()
    };
    json!({ "inputs": tensors(&of.inputs), "outputs": tensors(&of.outputs), "method_name": of.method_name })
}

/// As protobuf's JSON has it: numbers of 64 bits are text.
fn info(tensor: &TensorInfo) -> Value {
    let shape = tensor.tensor_shape.clone().unwrap_or_default();
    let dim: Vec<_> = shape.dim.iter().map(|dim| json!({ "size": dim.size.to_string(), "name": dim.name })).collect();
    let datatype = DataType::try_from(tensor.dtype).unwrap_or_default();
    json!({
        "dtype": datatype.as_str_name(),
        "tensor_shape": { "dim": dim, "unknown_rank": shape.unknown_rank },
        "name": tensor.name,
    })
}

/// `POST /v1/models/{model}:predict`, and `:classify`, and `:regress`
pub(crate) async fn ask(
    State(api): State<Arc<Api>>,
    Path(mut path): Path<ModelPath>,
    request: Request,
) -> Response<Body> {
    let (arrived, deadline) = (arrived(&request), deadline(&request));
    let Some(verb) = path.verb() else { return refuse(&malformed(&request)) };
    let upload = match api.take(request).await {
        Ok(upload) => upload,
        Err(refusal) => return refusal.answer(),
    };
    let mut watch = upload.watch(arrived);
    let answered = answer(&api.serving, &path, verb, upload.bytes.clone(), deadline, &mut watch).await;
    drop(upload);
    let response = match answered {
        Ok(text) => bytes(StatusCode::OK, HeaderValue::from_static("application/json"), text.into()),
        Err(status) => refuse(&status),
    };
    watch.lap(Stage::Encode);
    timed(response, watch)
}

async fn answer(
    serving: &Serving,
    path: &ModelPath,
    verb: Verb,
    body: Bytes,
    deadline: Deadline,
    watch: &mut Stopwatch,
) -> Result<Vec<u8>, Status> {
    let mut wanted = path.wanted()?;
    // Known before anything is read: an unknown model is no reason to parse megabytes.
    let card = wanted.card(serving)?;
    // Of one version all the way, whatever is loaded meanwhile.
    wanted.choice = Choice::Version(card.version);
    let question = if body.len() > LARGE_JSON {
        let card = card.clone();
        let read = tokio::task::spawn_blocking(move || Question::read(verb, &body, &card)).await;
        read.map_err(|error| Status::invalid_argument(format!("the request cannot be read: {error}")))??
    } else {
        Question::read(verb, &body, &card)?
    };
    match question {
        Question::Predict(format, input) => {
            let response = wanted.ask(serving, input, deadline, watch).await?;
            Ok(predictions(&outputs(&card, response, &[]), format))
        }
        Question::Classify(input) => {
            let response = wanted.ask(serving, input, deadline, watch).await?;
            let found = classes(response)?;
            let pairs = |row: &Classifications| -> Vec<(String, f32)> {
                row.classes.iter().map(|class| (class.label.clone(), class.score)).collect()
            };
            let rows: Vec<_> = found.classifications.iter().map(pairs).collect();
            Ok(results(rows.iter().map(|row| row.iter().map(|(label, score)| (label.as_str(), *score)))))
        }
    }
}

/// A body that was read.
enum Question {
    Predict(super::json::Format, Input),
    Classify(Input),
}

impl Question {
    fn read(verb: Verb, body: &[u8], card: &Card) -> Result<Self, Status> {
        if verb == Verb::Predict {
            let Predict { signature, format, name, tensor } = predict(body)?;
            check(card, &signature)?;
            return Ok(Self::Predict(format, input(name.as_deref(), tensor, card)?));
        }
        let Classify { signature, examples } = classify(body)?;
        let method = if verb == Verb::Classify { CLASSIFIES } else { REGRESSES };
        signature::check_method(card, &signature, method)?;
        Ok(Self::Classify(example::input(examples, card)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_is_cut_off_the_last_segment() {
        let verb = |model: &str, version: Option<&str>| {
            let mut path = ModelPath { model: model.into(), version: version.map(str::to_owned) };
            let verb = path.verb();
            (verb, path.model, path.version)
        };
        assert_eq!(verb("m:predict", None), (Some(Verb::Predict), "m".into(), None));
        assert_eq!(verb("m", Some("3:classify")), (Some(Verb::Classify), "m".into(), Some("3".into())));
        assert_eq!(verb("m:regress", None).0, Some(Verb::Regress));
        for (model, version) in [("m", None), ("m:explain", None), ("m:predict", Some("3")), (":", None)] {
            assert_eq!(verb(model, version).0, None, "{model} {version:?}");
        }
    }
}
