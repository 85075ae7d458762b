//! Bodies of requests, whole or by and by.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::time::Instant;

/// What a slow client sends at a time.
const PIECE: usize = 4096;

/// A request's body.
pub(super) type Upload = UnsyncBoxBody<Bytes, Infallible>;

/// All of `content`, as fast as it is taken, or at so many bytes a second.
pub(super) fn upload(content: Bytes, slow: Option<u64>) -> Upload {
    let Some(rate) = slow else { return Full::new(content).boxed_unsync() };
    let start = Instant::now();
    let pieces = stream::unfold(0, move |sent| {
        let content = content.clone();
        async move {
            if sent >= content.len() {
                return None;
            }
            let end = (sent + PIECE).min(content.len());
            tokio::time::sleep_until(start + at_rate(end as u64, rate)).await;
            Some((Ok(Frame::data(content.slice(sent..end))), end))
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// How long so many bytes take at so many a second.
pub(super) fn at_rate(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}
