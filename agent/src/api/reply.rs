//! Answers that every dialect writes alike: JSON, and an error as `{"error": "..."}`.

use adit_common::oip::ErrorBody;
use adit_common::timing::Stopwatch;
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// What a refused caller is asked to wait, in seconds: a queue of a few dozen forward passes is shorter by then.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

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
    let mut response = json(status, &ErrorBody { error: message.to_owned() });
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
