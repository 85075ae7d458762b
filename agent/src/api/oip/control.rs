//! Loading and unloading models on request: the Open Inference Protocol's repository extension.
//!
//! Through a relay it takes a key with the scope `control`, which the relay checks by what the manifest says of these paths. The
//! local listener asks nobody for a key, so there it has to be switched on.

use std::sync::Arc;

use adit_common::id::ModelName;
use adit_common::oip::Parameters;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;

use super::super::reply::{Refusal, bytes, refusal};
use super::super::router::Api;
use super::asked::asked;
use crate::error::ControlError;

/// The body of both requests; it may be left out.
#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    parameters: Parameters,
}

/// `POST /v2/repository/models/{model}/load`
pub(crate) async fn load(State(api): State<Arc<Api>>, Path(model): Path<String>, request: Request) -> Response<Body> {
    let (name, asked) = match admit(&api, &model, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.answer(),
    };
    // A model is what its folder says. `config` and `file:...` would put another one into memory, which a restart forgets.
    if let Some((parameter, _)) = asked.parameters.iter().next() {
        return refusal(StatusCode::BAD_REQUEST, &not_taken(parameter));
    }
    answer(api.serving.load(&name).await)
}

/// `POST /v2/repository/models/{model}/unload`
pub(crate) async fn unload(State(api): State<Arc<Api>>, Path(model): Path<String>, request: Request) -> Response<Body> {
    // `unload_dependents`, which its clients send, is about models made of models.
    match admit(&api, &model, request).await {
        Ok((name, _)) => answer(api.serving.unload(&name).await),
        Err(refusal) => refusal.answer(),
    }
}

async fn admit(api: &Api, model: &str, request: Request) -> Result<(ModelName, Asked), Refusal> {
    api.admit_control(request.extensions())?;
    let upload = api.take(request).await?;
    let asked = asked(&upload.bytes)?;
    let unknown = |_| {
        let quoted: String = model.chars().take(80).collect();
        Refusal::new(StatusCode::NOT_FOUND, format!("unknown model `{quoted}`"))
    };
    Ok((ModelName::new(model).map_err(unknown)?, asked))
}

fn answer(result: Result<(), ControlError>) -> Response<Body> {
    match result {
        // Empty, as the protocol has it.
        Ok(()) => bytes(StatusCode::OK, HeaderValue::from_static("application/json"), Bytes::new()),
        Err(error) => Refusal::from(error).answer(),
    }
}

/// Why a parameter of a request to load is refused.
pub(super) fn not_taken(parameter: &str) -> String {
    let parameter: String = parameter.chars().take(80).collect();
    format!("the parameter `{parameter}` is not taken: a model is loaded as its folder describes it")
}
