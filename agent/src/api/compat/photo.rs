//! The photo dialect: `GET /` tells who asks, `POST /photo` tells what an image shows.
//!
//! Its clients measure the delay of a whole system with the one and its use with the other. The body is the encoded image
//! itself, under whatever content type. It names no model: the agent's default one answers. Errors, which the original leaves
//! to its web framework, are `{"error": "..."}`.

use std::net::SocketAddr;
use std::sync::Arc;

use adit_common::id::ModelName;
use adit_common::manifest::Dialect;
use adit_common::timing::Stage;
use axum::body::Body;
use axum::extract::{Request, State};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::super::paths::{Need, Paths};
use super::super::reply::{Refusal, bytes, json, refusal, timed};
use super::super::router::{Api, Origin, arrived, deadline, text};
use crate::error::InferError;
use crate::serving::{Choice, Findings, InferRequest, InferResponse, Input, Priority};

/// What may be asked in this dialect.
pub(crate) fn paths() -> Paths {
    Paths::of(Dialect::Photo).get("/", greet).post("/photo", photo).needing(Need::Classifier)
}

/// `GET /`
async fn greet(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let (ip, port) = client(&request);
    let host = match request.uri().authority() {
        // HTTP/2 and the tunnel carry the host in the request line.
        Some(authority) => authority.as_str(),
        None => text(request.headers(), header::HOST.as_str()).unwrap_or_default(),
    };
    let body = format!("Request:{ip},{port}; HOST:{host}; Hostname:{}\r\n", api.host);
    // Not to be read as HTML by a browser, whatever a client calls itself or the host.
    let body = body.replace(['<', '>', '&'], "");
    bytes(StatusCode::OK, HeaderValue::from_static("text/html; charset=utf-8"), body.into())
}

/// The client's address and port: what the relay says (RFC 7239), or whoever has connected here. A port that nobody knows
/// is 0.
fn client(request: &Request) -> (String, u16) {
    match request.extensions().get::<Origin>() {
        Some(Origin::Local(address)) => (address.ip().to_canonical().to_string(), address.port()),
        // The relay lets nobody else say it.
        Some(Origin::Tunnel) => text(request.headers(), header::FORWARDED.as_str())
            .and_then(forwarded_for)
            .map_or_else(Default::default, |peer| (peer.ip().to_string(), peer.port())),
        None => (String::new(), 0),
    }
}

/// The address in a `Forwarded` field of one hop, such as `for="192.0.2.9:4711";proto=https`.
fn forwarded_for(field: &str) -> Option<SocketAddr> {
    field.split(';').find_map(|pair| pair.trim().strip_prefix("for=")?.trim_matches('"').parse().ok())
}

/// `POST /photo`
async fn photo(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let (arrived, deadline) = (arrived(&request), deadline(&request));
    let upload = match api.take(request).await {
        Ok(upload) => upload,
        Err(refusal) => return refusal.answer(),
    };
    let mut watch = upload.watch(arrived);
    let Some(model) = api.serving.default_model() else {
        return timed(refusal(StatusCode::SERVICE_UNAVAILABLE, "no model is ready"), watch);
    };
    let input = Input::Images(vec![upload.bytes.clone()]);
    let detects = api.serving.catalogue().card(&model, &Choice::Newest).is_ok_and(|card| card.detects);
    let answered = if detects {
        Err(no_classifier(&model))
    } else {
        api.serving
            .infer(
                InferRequest { model, version: Choice::Newest, input, deadline, priority: Priority::default() },
                &mut watch,
            )
            .await
    };
    drop(upload);
    let response = match answered.and_then(|response| sentence(&response)) {
        Ok(sentence) => json(StatusCode::OK, &json!({ "inference": sentence, "message": "success" })),
        Err(error) => Refusal::from(error).answer(),
    };
    watch.lap(Stage::Encode);
    timed(response, watch)
}

/// This dialect's sentence has a class and no place for boxes.
fn no_classifier(model: &ModelName) -> InferError {
    InferError::Invalid(format!(
        "the default model `{model}` finds objects, and /photo tells classes: ask POST /v2/models/{model}/infer, or make a \
         classifier the default model"
    ))
}

fn sentence(response: &InferResponse) -> Result<String, InferError> {
    let failed = |detail: &str| InferError::Backend {
        model: response.model.clone(),
        reason: "its answer makes no sense",
        detail: detail.to_owned(),
    };
    let Findings::Probabilities(rows) = &response.findings else { return Err(no_classifier(&response.model)) };
    let row = rows.first().ok_or_else(|| failed("no probabilities"))?;
    let best = adit_vision::top(row, &response.labels, 1).map_err(|error| failed(&error.to_string()))?;
    let best = best.first().ok_or_else(|| failed("no classes"))?;
    Ok(format!("Class = {}, Confidence = {:.3}", best.label, best.probability))
}
