//! What is answered, by path.
//!
//! ```text
//! POST /infer?us=N         reads the body, waits N microseconds, answers with a little JSON
//! POST /echo               the body, as it comes
//! GET  /blob?n=N           N bytes
//! GET  /stream?n=K&ms=M    K events, one each M milliseconds
//! GET  /ws                 a WebSocket that echoes (see serve)
//! ```

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use tokio::time::sleep;

/// An answer's body.
pub(super) type Answer = UnsyncBoxBody<Bytes, hyper::Error>;

/// What a blob is sent in.
const PIECE: u64 = 1 << 16;

/// Nothing but a status.
pub(super) fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Empty::new().map_err(never).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn never(error: Infallible) -> hyper::Error {
    match error {}
}

/// Answers one request; `/infer` takes `service_us` unless it asks for something else.
pub(super) async fn answer(request: Request<Incoming>, service_us: u64) -> Response<Answer> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let number = |name: &str, otherwise| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok()).unwrap_or(otherwise)
    };
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/infer") => infer(request.into_body(), number("us", service_us)).await,
        (&Method::POST, "/echo") => Response::new(request.into_body().boxed_unsync()),
        (&Method::GET, "/blob") => blob(number("n", 1_000_000)),
        (&Method::GET, "/stream") => events(number("n", 10), Duration::from_millis(number("ms", 10))),
        (&Method::GET, "/healthz") => empty(StatusCode::OK),
        _ => empty(StatusCode::NOT_FOUND),
    }
}

async fn infer(mut body: Incoming, service_us: u64) -> Response<Answer> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return empty(StatusCode::BAD_REQUEST) };
        bytes += frame.data_ref().map_or(0, bytes::Buf::remaining);
    }
    if service_us > 0 {
        sleep(Duration::from_micros(service_us)).await;
    }
    let text = format!("{{\"bytes\":{bytes},\"label\":\"cat\",\"score\":0.98,\"box\":[10,20,110,220]}}");
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(never).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn blob(bytes: u64) -> Response<Answer> {
    let piece = Bytes::from(vec![b'x'; PIECE as usize]);
    let pieces = stream::unfold(bytes, move |left| {
        let size = left.min(PIECE);
        let frame = Frame::data(piece.slice(..size as usize));
        async move { (size > 0).then(|| (Ok(frame), left - size)) }
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    response
}

fn events(count: u64, every: Duration) -> Response<Answer> {
    let events = stream::unfold(0, move |sent| async move {
        if sent == count {
            return None;
        }
        sleep(every).await;
        Some((Ok(Frame::data(Bytes::from(format!("data: {sent}\n\n")))), sent + 1))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}
