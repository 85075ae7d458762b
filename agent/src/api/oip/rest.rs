//! Open Inference Protocol over HTTP, as its clients really call it.
//!
//! What is asked and answered is in `ask` and `inform`; here it is read from JSON with binary tensors behind it, and written so.
//! A whole body can also be the one image: with `inference-header-content-length: 0`, or with a content type `image/...`.
//!
//! Every error is `{"error": "..."}` under the status that Triton's clients know.

use std::sync::Arc;

use adit_common::deadline::Deadline;
use adit_common::id::ModelName;
use adit_common::manifest::{Dialect, Gather};
use adit_common::oip::{Encoded, HEADER_LENGTH, IndexRequest, InferRequest, header_length};
use adit_common::timing::{Stage, Stopwatch};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::coding::Coding;
use super::super::paths::Paths;
use super::super::reply::{Refusal, bytes, json, refusal, timed};
use super::super::router::{Api, arrived, deadline, text};
use super::ask::{ask, input, invalid, named};
use super::asked::asked;
use super::control::{load, unload};
use super::extensions::extend;
use super::inform;
use super::outputs::encode;
use super::statistics::statistics;
use crate::error::InferError;
use crate::serving::{Choice, Input, Receipt};

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
        .gathered(counters())
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
            .get(&format!("{model}/config"), config)
            .get(&format!("{model}/stats"), stats)
            .gathered(counters())
            .post(&format!("{model}/infer"), infer);
    }
    extend(paths)
}

/// How relays make one answer of the statistics of all agents.
fn counters() -> Gather {
    Gather::Counters { at: "/model_stats".to_owned(), key: vec!["name".to_owned(), "version".to_owned()] }
}

/// `GET /v2`
pub(crate) async fn metadata() -> Response<Body> {
    json(StatusCode::OK, &inform::server())
}

/// `GET /v2/health/live`
pub(crate) async fn live() -> Response<Body> {
    json(StatusCode::OK, &json!({ "live": true }))
}

/// `GET /v2/health/ready`
pub(crate) async fn ready(State(api): State<Arc<Api>>) -> Response<Body> {
    match inform::readiness(&api) {
        Ok(()) => json(StatusCode::OK, &json!({ "ready": true })),
        Err(reason) => json(StatusCode::BAD_REQUEST, &json!({ "ready": false, "error": reason })),
    }
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub(crate) async fn model(State(api): State<Arc<Api>>, Path(path): Path<ModelPath>) -> Response<Body> {
    told(path.parse().and_then(|target| inform::metadata(&api, &target)))
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`
pub(crate) async fn model_ready(State(api): State<Arc<Api>>, Path(path): Path<ModelPath>) -> Response<Body> {
    match path.parse().and_then(|target| inform::model_readiness(&api, &target)) {
        Ok(()) => json(StatusCode::OK, &json!({ "name": path.model, "ready": true })),
        Err(error @ (InferError::NotReady { .. } | InferError::NoMemory { .. })) => {
            let body = json!({ "name": path.model, "ready": false, "error": error.to_string() });
            json(StatusCode::BAD_REQUEST, &body)
        }
        Err(error) => refuse(error),
    }
}

/// `GET /v2/models/{model}[/versions/{version}]/config`
pub(crate) async fn config(State(api): State<Arc<Api>>, Path(path): Path<ModelPath>) -> Response<Body> {
    told(path.parse().and_then(|target| inform::configuration(&api, &target)))
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
    match asked::<IndexRequest>(&upload.bytes) {
        Ok(asked) => json(StatusCode::OK, &inform::index(&api, asked.ready)),
        Err(refusal) => refusal.answer(),
    }
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
    let coding = Coding::wanted(headers);
    let upload = match api.take(request).await {
        Ok(upload) => upload,
        Err(refusal) => return refusal.answer(),
    };
    let mut watch = upload.watch(arrived);
    let answered = answer(&api, &path, upload.bytes.clone(), header_length, deadline, &mut watch).await;
    drop(upload);
    let response = match answered {
        Ok((encoded, receipt)) => {
            let content_type = HeaderValue::from_static(encoded.content_type());
            let packed = match coding {
                Some(coding) => coding.compress(&encoded.body).await.map(|packed| (coding, packed)),
                None => None,
            };
            // The inference includes the writing.
            drop(receipt);
            let (coding, body) = packed.map_or((None, encoded.body), |(coding, packed)| (Some(coding), packed));
            let mut response = bytes(StatusCode::OK, content_type, body);
            if let Some(coding) = coding {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            }
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
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
    api: &Api,
    path: &ModelPath,
    body: Bytes,
    header_length: Option<usize>,
    deadline: Deadline,
    watch: &mut Stopwatch,
) -> Result<(Encoded, Receipt), InferError> {
    let target = path.parse()?;
    // Known before anything is read: an unknown model is no reason to parse megabytes.
    inform::model_readiness(api, &target)?;
    let (asked, input) = if header_length.is_none() && body.len() > LARGE_JSON {
        let parsed = tokio::task::spawn_blocking(move || parse(&body, header_length)).await;
        parsed.map_err(|error| InferError::Invalid(format!("the request cannot be read: {error}")))??
    } else {
        parse(&body, header_length)?
    };
    let (model, version) = target;
    let (response, receipt) = ask(&api.serving, model, version, &asked, input, deadline, watch).await?;
    Ok((encode(&asked, &response).map_err(invalid)?, receipt))
}

/// The request, without its input, and its input.
fn parse(body: &Bytes, header_length: Option<usize>) -> Result<(InferRequest, Input), InferError> {
    let mut asked = InferRequest::parse(body, header_length).map_err(invalid)?;
    let input = input(&std::mem::take(&mut asked.inputs))?;
    Ok((asked, input))
}
