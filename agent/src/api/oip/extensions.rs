//! Log and trace settings over HTTP, and shared memory, which there cannot be.

use std::collections::BTreeMap;
use std::sync::Arc;

use adit_common::manifest::Gather;
use adit_common::oip::LogUpdate;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use http::{Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::paths::Paths;
use super::super::reply::{Refusal, json, refusal};
use super::super::router::Api;
use super::ask::named;
use super::asked::asked;
use super::inform::known;
use super::settings::{log_settings, set_log, set_trace, trace_settings};
use crate::error::InferError;

/// What these extensions add to the paths of the protocol.
pub(super) fn extend(mut paths: Paths) -> Paths {
    paths = paths.get("/v2/logging", log).post("/v2/logging", change_log).controls().gathered(Gather::Every);
    paths = paths
        .get("/v2/trace/setting", trace)
        .post("/v2/trace/setting", change_trace)
        .controls()
        .gathered(Gather::Every);
    let model = "/v2/models/{model}/trace/setting";
    paths = paths.get(model, model_trace).post(model, change_model_trace).controls().gathered(Gather::Every);
    for memory in ["/v2/systemsharedmemory", "/v2/cudasharedmemory"] {
        paths = paths
            .get(&format!("{memory}/status"), no_memory)
            .get(&format!("{memory}/region/{{region}}/status"), no_memory)
            .post(&format!("{memory}/region/{{region}}/register"), no_memory)
            .post(&format!("{memory}/region/{{region}}/unregister"), no_memory)
            .post(&format!("{memory}/unregister"), no_memory);
    }
    paths
}

/// `GET /v2/logging`
async fn log() -> Response<Body> {
    json(StatusCode::OK, &log_settings())
}

/// `POST /v2/logging`
async fn change_log(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    answer(change(&api, request).await.and_then(|update: LogUpdate| set_log(&update).map_err(refused)))
}

/// `GET /v2/trace/setting`
async fn trace() -> Response<Body> {
    json(StatusCode::OK, &trace_settings())
}

/// `POST /v2/trace/setting`
async fn change_trace(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    answer(change(&api, request).await.and_then(|update| set_trace(&values(update)).map_err(refused)))
}

/// `GET /v2/models/{model}/trace/setting`
async fn model_trace(State(api): State<Arc<Api>>, Path(model): Path<String>) -> Response<Body> {
    answer(is_there(&api, &model).map(|()| trace_settings()))
}

/// `POST /v2/models/{model}/trace/setting`
async fn change_model_trace(
    State(api): State<Arc<Api>>,
    Path(model): Path<String>,
    request: Request,
) -> Response<Body> {
    let update = change(&api, request).await.and_then(|update| is_there(&api, &model).map(|()| values(update)));
    answer(update.and_then(|update| set_trace(&update).map_err(refused)))
}

/// Everything about shared memory. Not found under a status that would make relays doubt the agent.
async fn no_memory() -> Response<Body> {
    let message = "there is no shared memory: client and model are on two machines, with a tunnel between them";
    refusal(StatusCode::BAD_REQUEST, message)
}

fn is_there(api: &Api, model: &str) -> Result<(), Refusal> {
    named(model, None).and_then(|(name, _)| known(api, &name)).map_err(|error: InferError| error.into())
}

/// The body of a request that changes the agent, from whoever may do that.
async fn change<T: DeserializeOwned>(api: &Api, request: Request) -> Result<T, Refusal> {
    api.admit_control(request.extensions())?;
    let upload = api.take(request).await?;
    asked(&upload.bytes)
}

/// A setting has one value or several; none clears it.
fn values(update: BTreeMap<String, Value>) -> BTreeMap<String, Vec<String>> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let list = |value| match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.into_iter().map(text).collect(),
        one => vec![text(one)],
    };
    update.into_iter().map(|(name, value)| (name, list(value))).collect()
}

fn refused(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}

fn answer<T: Serialize>(result: Result<T, Refusal>) -> Response<Body> {
    match result {
        Ok(settings) => json(StatusCode::OK, &settings),
        Err(refusal) => refusal.answer(),
    }
}
