//! How a call is served: its request is taken in like any other body, and its errors are gRPC's.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use adit_common::deadline::Deadline;
use adit_common::timing::Stopwatch;
use axum::body::Body;
use axum::extract::Request;
use http::{Extensions, HeaderMap, Response, StatusCode};
use tonic::{Code, Status};
use tower_service::Service;

use super::super::reply::Refusal;
use super::super::router::{Api, Arrived, arrived, deadline as budget, text};
use super::super::upload::Upload;
use crate::error::InferError;

/// Serves a call with one request: it is taken in whole before the service sees it, within the limits of all bodies.
pub(crate) async fn serve<S, B>(api: &Api, service: S, mut request: Request) -> Response<Body>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let body = std::mem::take(request.body_mut());
    let upload = match api.receive(body).await {
        Ok(upload) => Arc::new(upload),
        Err(refusal) => return Status::from(refusal).into_http(),
    };
    *request.body_mut() = Body::from(upload.bytes.clone());
    request.extensions_mut().insert(upload);
    flow(service, request).await
}

/// Serves a call whose requests come one after the other: the service takes them in as it comes to them.
pub(crate) async fn flow<S, B>(mut service: S, mut request: Request) -> Response<Body>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let deadline = call_deadline(&request);
    request.extensions_mut().insert(deadline);
    match service.call(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// Until when a call's answer is of use: as the relay says, or the caller itself.
fn call_deadline(request: &Request) -> Deadline {
    let own = text(request.headers(), Deadline::GRPC_HEADER);
    let own = own.map_or(Deadline::never(), |own| Deadline::parse_grpc(arrived(request), own));
    budget(request).min(own)
}

/// The deadline that was noted.
pub(crate) fn deadline(extensions: &Extensions) -> Deadline {
    extensions.get().copied().unwrap_or_default()
}

/// A stopwatch that was started when the request was there as a whole.
pub(crate) fn started(extensions: &Extensions) -> Stopwatch {
    let arrived = extensions.get::<Arrived>().map_or_else(Instant::now, |arrived| arrived.0);
    match extensions.get::<Arc<Upload>>() {
        Some(upload) => upload.watch(arrived),
        None => Stopwatch::start_at(Instant::now()),
    }
}

/// An inference's error.
pub(crate) fn status(error: &InferError) -> Status {
    let code = match error {
        InferError::NotFound { .. } | InferError::NoLabel { .. } => Code::NotFound,
        InferError::Invalid(_) => Code::InvalidArgument,
        InferError::NotReady { .. }
        | InferError::NoMemory { .. }
        | InferError::Overloaded { .. }
        | InferError::TooLate { .. } => Code::Unavailable,
        InferError::DeadlineExceeded => Code::DeadlineExceeded,
        InferError::Cancelled => Code::Cancelled,
        InferError::Backend { .. } => Code::Internal,
    };
    Status::new(code, error.to_string())
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.status {
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::Unimplemented,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
            status if status.is_server_error() => Code::Internal,
            _ => Code::InvalidArgument,
        };
        Self::new(code, refusal.message)
    }
}

/// Whether a request is one of gRPC's, by its head.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    text(headers, http::header::CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_code() {
        for (status, code) in [
            (StatusCode::BAD_REQUEST, Code::InvalidArgument),
            (StatusCode::FORBIDDEN, Code::PermissionDenied),
            (StatusCode::NOT_FOUND, Code::NotFound),
            (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
            (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        ] {
            let status = Status::from(Refusal::new(status, "why"));
            assert_eq!((status.code(), status.message()), (code, "why"));
        }
    }
}
