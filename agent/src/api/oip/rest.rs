//! Open Inference Protocol over HTTP, as its clients really call it.
//!
//! What a model takes is in `ask`, what it gives in `outputs`. A whole body can also be the one image: with
//! `inference-header-content-length: 0`, or with a content type `image/...`.
//!
//! Every error is `{"error": "..."}` under the status that Triton's clients know.

use std::sync::Arc;

use adit_common::deadline::Deadline;
use adit_common::id::{ModelName, Version};
use adit_common::manifest::{Dialect, Gather, ModelState};
use adit_common::oip::{
    Datatype, Encoded, HEADER_LENGTH, IndexEntry, IndexRequest, InferRequest, ModelMetadata, Parameters,
    ServerMetadata, TensorMetadata, header_length,
};
use adit_common::timing::{Stage, Stopwatch};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::paths::Paths;
use super::super::reply::{Refusal, bytes, json, refusal, timed};
use super::super::router::{Api, arrived, deadline, text};
use super::ask::{IMAGE, ask, input, invalid, named};
use super::control::{load, unload};
use super::outputs::{encode, outputs};
use super::statistics::statistics;
use crate::error::InferError;
use crate::serving::{Choice, Input, Serving};

/// A JSON body above this is read on the blocking pool: at some 500 MB/s it would hold up other requests for too long.
const LARGE_JSON: usize = 128 << 10;

/// `/v2/models/{model}[/versions/{version}]`
#[derive(Debug, Deserialize)]
pub(crate) struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    fn parse(&self) -> Result<(ModelName, Choice), InferError> {
        named(&self.model, self.version.as_deref())
    }
}

fn told<T: Serialize>(what: Result<T, InferError>) -> Response<Body> {
    what.map_or_else(refuse, |what| json(StatusCode::OK, &what))
}

fn refuse(error: InferError) -> Response<Body> {
    Refusal::from(error).answer()
}

/// What may be asked in this dialect over HTTP with JSON.
pub(crate) fn paths() -> Paths {
    let mut paths = Paths::of(Dialect::Oip)
        .get("/v2", metadata)
        .get("/v2/health/live", live)
        .get("/v2/health/ready", ready)
        .get("/v2/models/stats", all_stats)
        .post("/v2/repository/index", index)
        .gathered(Gather::Rows { at: String::new(), key: vec!["name".to_owned(), "version".to_owned()] })
        .post("/v2/repository/models/{model}/unload", unload)
        .controls()
        .gathered(Gather::Every)
        .post("/v2/repository/models/{model}/load", load)
        .controls()
        .gathered(Gather::Every);
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        paths = paths
            .get(model, self::model)
            .get(&format!("{model}/ready"), model_ready)
            .get(&format!("{model}/stats"), stats)
            .post(&format!("{model}/infer"), infer);
    }
    paths
}

/// `GET /v2`
pub(crate) async fn metadata() -> Response<Body> {
    json(StatusCode::OK, &server())
}

/// What the agent says of itself.
pub(super) fn server() -> ServerMetadata {
    ServerMetadata {
        name: "adit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: ["binary_tensor_data", "classification", "model_repository", "statistics"]
            .map(str::to_owned)
            .to_vec(),
    }
}

/// `GET /v2/health/live`
pub(crate) async fn live() -> Response<Body> {
    json(StatusCode::OK, &json!({ "live": true }))
}

/// `GET /v2/health/ready`
pub(crate) async fn ready(State(api): State<Arc<Api>>) -> Response<Body> {
    let catalogue = api.serving.catalogue();
    let ready = catalogue.is_settled() && catalogue.first_ready().is_some();
    if ready {
        json(StatusCode::OK, &json!({ "ready": true }))
    } else {
        let reason = if catalogue.is_settled() { "no model is ready" } else { "models are being loaded" };
        json(StatusCode::BAD_REQUEST, &json!({ "ready": false, "error": reason }))
    }
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub(crate) async fn model(State(api): State<Arc<Api>>, Path(path): Path<ModelPath>) -> Response<Body> {
    told(path.parse().and_then(|(name, choice)| describe(&api.serving, &name, &choice)))
}

/// What a model takes and gives.
pub(super) fn describe(serving: &Serving, name: &ModelName, choice: &Choice) -> Result<ModelMetadata, InferError> {
    let catalogue = serving.catalogue();
    let card = catalogue.card(name, choice)?;
    let ready = catalogue.versions(name).into_iter().flatten().filter(|(_, entry)| entry.card().is_some());
    let mut parameters = Parameters::default();
    for (label, version) in catalogue.labels(name) {
        parameters.set(&format!("label.{label}"), version.0);
    }
    Ok(ModelMetadata {
        name: name.to_string(),
        versions: ready.map(|(version, _)| version.to_string()).collect(),
        platform: card.platform.clone(),
        // `input` is another way to say the same: a client that fills every input it reads of must find one.
        inputs: vec![TensorMetadata { name: IMAGE.into(), datatype: Datatype::Bytes, shape: vec![-1, 1] }],
        outputs: outputs(card.labels.all().len(), card.detects),
        parameters,
    })
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`
pub(crate) async fn model_ready(State(api): State<Arc<Api>>, Path(path): Path<ModelPath>) -> Response<Body> {
    let found = path.parse().and_then(|(name, choice)| api.serving.catalogue().card(&name, &choice).cloned());
    match found {
        Ok(card) => json(StatusCode::OK, &json!({ "name": card.name, "ready": true })),
        Err(error @ (InferError::NotReady { .. } | InferError::NoMemory { .. })) => {
            let body = json!({ "name": path.model, "ready": false, "error": error.to_string() });
            json(StatusCode::BAD_REQUEST, &body)
        }
        Err(error) => refuse(error),
    }
}

/// `GET /v2/models/stats`
pub(crate) async fn all_stats(State(api): State<Arc<Api>>) -> Response<Body> {
    told(statistics(&api, None))
}

/// `GET /v2/models/{model}[/versions/{version}]/stats`
pub(crate) async fn stats(State(api): State<Arc<Api>>, Path(path): Path<ModelPath>) -> Response<Body> {
    told(path.parse().and_then(|target| statistics(&api, Some(&target))))
}

/// `POST /v2/repository/index`
pub(crate) async fn index(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let upload = match api.take(request).await {
        Ok(upload) => upload,
        Err(refusal) => return refusal.answer(),
    };
    let asked = match &upload.bytes[..] {
        [] => Ok(IndexRequest::default()),
        text => serde_json::from_slice(text).map_err(|error| format!("the JSON of the message is wrong: {error}")),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(message) => return refusal(StatusCode::BAD_REQUEST, &message),
    };
    let entries: Vec<_> = api
        .serving
        .catalogue()
        .report()
        .into_iter()
        .filter(|model| !asked.ready || model.state == ModelState::Ready)
        .map(|model| IndexEntry {
            name: model.name.to_string(),
            // Zero stands for a version that is not known.
            version: if model.version == Version(0) { String::new() } else { model.version.to_string() },
            state: Some(model.state),
            reason: model.reason,
        })
        .collect();
    json(StatusCode::OK, &entries)
}

/// `POST /v2/models/{model}[/versions/{version}]/infer`
pub(crate) async fn infer(
    State(api): State<Arc<Api>>,
    Path(path): Path<ModelPath>,
    request: Request,
) -> Response<Body> {
    let (arrived, deadline) = (arrived(&request), deadline(&request));
    let headers = request.headers();
    let header_length = match header_length(headers) {
        Ok(length) => length,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let is_image = text(headers, header::CONTENT_TYPE.as_str())
        .is_some_and(|kind| kind.get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case("image/")));
    // An image as the body is what the protocol calls a raw request.
    let header_length = if is_image && header_length.is_none() { Some(0) } else { header_length };
    let upload = match api.take(request).await {
        Ok(upload) => upload,
        Err(refusal) => return refusal.answer(),
    };
    let mut watch = upload.watch(arrived);
    let answered = answer(&api.serving, &path, upload.bytes.clone(), header_length, deadline, &mut watch).await;
    drop(upload);
    let response = match answered {
        Ok(encoded) => {
            let content_type = HeaderValue::from_static(encoded.content_type());
            let mut response = bytes(StatusCode::OK, content_type, encoded.body);
            if let Some(length) = encoded.header_length {
                response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
            }
            response
        }
        Err(error) => refuse(error),
    };
    watch.lap(Stage::Encode);
    timed(response, watch)
}

async fn answer(
    serving: &Serving,
    path: &ModelPath,
    body: Bytes,
    header_length: Option<usize>,
    deadline: Deadline,
    watch: &mut Stopwatch,
) -> Result<Encoded, InferError> {
    let (model, version) = path.parse()?;
    // Known before anything is read: an unknown model is no reason to parse megabytes.
    serving.catalogue().card(&model, &version)?;
    let (asked, input) = if header_length.is_none() && body.len() > LARGE_JSON {
        let parsed = tokio::task::spawn_blocking(move || parse(&body, header_length)).await;
        parsed.map_err(|error| InferError::Invalid(format!("the request cannot be read: {error}")))??
    } else {
        parse(&body, header_length)?
    };
    let answer = ask(serving, model, version, &asked, input, deadline, watch).await?;
    encode(&asked, &answer).map_err(invalid)
}

/// The request, without its input, and its input.
fn parse(body: &Bytes, header_length: Option<usize>) -> Result<(InferRequest, Input), InferError> {
    let mut asked = InferRequest::parse(body, header_length).map_err(invalid)?;
    let input = input(&std::mem::take(&mut asked.inputs))?;
    Ok((asked, input))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(InferRequest, Input), String> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), None).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_comes_in_each_shape_and_as_base64() {
        for shape in ["[2]", "[2,1]"] {
            let text = format!(
                r#"{{"inputs":[{{"name":"image","datatype":"BYTES","shape":{shape},"data":["iVBORw==","plain text"]}}]}}"#
            );
            let Ok((_, Input::Images(images))) = read(&text) else { panic!("no images: {text}") };
            assert_eq!(images, [&b"\x89PNG"[..], b"plain text"]);
        }
    }

    #[test]
    fn what_no_model_takes_is_refused_by_name() {
        for (input, because) in [
            (r#"{"name":"image","datatype":"BYTES","shape":[1,2],"data":["a","b"]}"#, "expected [N] or [N, 1]"),
            (r#"{"name":"image","datatype":"FP32","shape":[1],"data":[1]}"#, "not BYTES"),
            (r#"{"name":"picture","datatype":"BYTES","shape":[1],"data":["a"]}"#, "unknown input `picture`"),
            (r#"{"name":"input","datatype":"INT8","shape":[1],"data":[1]}"#, "not FP32"),
        ] {
            let error = read(&format!(r#"{{"inputs":[{input}]}}"#)).unwrap_err();
            assert!(error.contains(because), "{input}: {error}");
        }
        assert!(read(r#"{"inputs":[]}"#).unwrap_err().contains("this one has 0"));
    }
}
