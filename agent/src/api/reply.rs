//! Answers: JSON, bytes, and why there is none, which each dialect spells its own way.

use adit_common::oip::ErrorBody;
use adit_common::timing::Stopwatch;
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::error::{ControlError, InferError};

/// What a refused caller is asked to wait, in seconds: a queue of a few dozen forward passes is shorter by then.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request is not answered, before a dialect has spelled it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// For the caller.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// As most dialects spell it.
    pub(super) fn answer(&self) -> Response<Body> {
        refusal(self.status, &self.message)
    }
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Self {
        let status = match &error {
            InferError::NotFound { .. } | InferError::NoLabel { .. } => StatusCode::NOT_FOUND,
            InferError::Invalid(_) => StatusCode::BAD_REQUEST,
            InferError::NotReady { .. }
            | InferError::NoMemory { .. }
            | InferError::Overloaded { .. }
            | InferError::TooLate { .. } => StatusCode::SERVICE_UNAVAILABLE,
            InferError::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            // Nobody reads it; nginx made the number known.
            InferError::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            InferError::Backend { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::Unknown(_) => StatusCode::NOT_FOUND,
            // As Triton does. It is no failure of the agent: nobody else is to be asked instead.
            ControlError::Failed { .. } => StatusCode::BAD_REQUEST,
            ControlError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

/// A JSON answer.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(text) => bytes(status, HeaderValue::from_static("application/json"), text.into()),
        // Such as a NaN in a map's key: a fault of the program, yet the caller must hear something.
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written")
        }
    }
}

/// An answer of any kind.
pub(super) fn bytes(status: StatusCode, content_type: HeaderValue, body: bytes::Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// An error: never empty and never HTML, because clients read its JSON.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    refusal_as(status, &ErrorBody { error: message.to_owned() })
}

/// An error in a dialect's own words.
pub(super) fn refusal_as<T: Serialize>(status: StatusCode, body: &T) -> Response<Body> {
    let mut response = json(status, body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// Gives the answer its stopwatch, which the router reads when the answer leaves.
pub(super) fn timed(mut response: Response<Body>, watch: Stopwatch) -> Response<Body> {
    response.extensions_mut().insert(watch);
    response
}

#[cfg(test)]
mod tests {
    use adit_common::id::ModelName;

    use super::*;

    #[test]
    fn every_error_has_its_status() {
        let model = ModelName::new("m").unwrap();
        for (error, code) in [
            (InferError::NotFound { model: "m".into(), version: None }, 404),
            (InferError::NoLabel { model: model.clone(), label: "stable".parse().unwrap() }, 404),
            (InferError::NoMemory { model: model.clone() }, 503),
            (InferError::NotReady { model: model.clone(), reason: "" }, 503),
            (InferError::Invalid(String::new()), 400),
            (InferError::Overloaded { model: model.clone() }, 503),
            (InferError::TooLate { model: model.clone(), needed: std::time::Duration::ZERO }, 503),
            (InferError::DeadlineExceeded, 504),
            (InferError::Cancelled, 499),
            (InferError::Backend { model, reason: "it is ill", detail: "secret".into() }, 500),
        ] {
            assert_eq!(Refusal::from(error.clone()).status.as_u16(), code, "{error}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
