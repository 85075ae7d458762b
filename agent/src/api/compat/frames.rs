//! A socket of frames: one picture in, what is on it out, in order.
//!
//! A client says one binary message a frame, a JPEG compressed by zlib, and hears one text message: a JSON text that itself
//! contains JSON, an array of `{"name", "class", "confidence", "box": {"x1", "y1", "x2", "y2"}}` in pixels. With
//! `?json=array` it hears the array itself with a blank on each side, which is what a client needs that cuts the quotes off.
//! The agent's first detector answers. A frame that cannot be answered hears `{"error": "..."}` in the array's place.

use std::io::Read as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use adit_common::manifest::Dialect;
use adit_common::socket::{Protocol, WEBSOCKET};
use adit_common::timing::Stopwatch;
use adit_vision::{Detection, Labels};
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use bytes::Bytes;
use flate2::read::ZlibDecoder;
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, join};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{ReaderStream, StreamReader};

use super::super::paths::{Need, Paths};
use super::super::reply::{json, refusal};
use super::super::router::{Api, deadline};
use crate::error::InferError;
use crate::serving::{Choice, Findings, InferRequest, InferResponse, Input, Priority};

/// Frames of one socket that are worked on at a time: while one runs, the next is decoded.
const AT_ONCE: usize = 2;

/// What waits between this end's words and the tunnel.
const BUFFER: usize = 64 << 10;

/// A client that says nothing for this long is asked whether it is there, and given up if it says nothing for as long again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What may be asked in this dialect.
pub(crate) fn paths() -> Paths {
    Paths::of(Dialect::Frames).get("/healthz", healthy).socket("/ws", frames).needing(Need::Detector)
}

/// `GET /healthz`
async fn healthy() -> Response<Body> {
    json(StatusCode::OK, &json!({ "status": "ok" }))
}

#[derive(Debug, Default, Deserialize)]
struct Wishes {
    json: Option<String>,
}

/// How an answer is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// A JSON text that contains JSON.
    Text,
    /// The array itself, with a blank on each side.
    Array,
}

/// `GET /ws`, upgraded.
async fn frames(
    State(api): State<Arc<Api>>,
    wishes: Result<Query<Wishes>, QueryRejection>,
    request: Request,
) -> Response<Body> {
    let wishes = match wishes {
        Ok(Query(wishes)) => wishes,
        Err(rejection) => return refusal(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let spelling = match wishes.json.as_deref() {
        None | Some("text") => Spelling::Text,
        Some("array") => Spelling::Array,
        Some(_) => return refusal(StatusCode::BAD_REQUEST, "`json` is `text` or `array`"),
    };
    if request.extensions().get::<Protocol>().is_none_or(|Protocol(protocol)| protocol != WEBSOCKET) {
        return refusal(StatusCode::BAD_REQUEST, "here is a WebSocket");
    }
    if deadline(&request).expired(std::time::Instant::now()) {
        return refusal(StatusCode::GATEWAY_TIMEOUT, "the deadline of the request has passed");
    }
    let said = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let (mine, theirs) = tokio::io::duplex(BUFFER);
    let talk = talk(api, join(StreamReader::new(said), mine), spelling);
    // The talk goes on while its words are fetched, and ends with them: there is no task to be forgotten.
    let mut talk = Box::pin(talk);
    let mut over = false;
    let mut words = ReaderStream::new(theirs);
    let answers = futures_util::stream::poll_fn(move |context| {
        if !over {
            over = talk.as_mut().poll(context).is_ready();
        }
        match words.poll_next_unpin(context) {
            Poll::Pending if over => Poll::Ready(None),
            polled => polled,
        }
    });
    Response::new(Body::from_stream(answers))
}

/// Answers frames until the client ends, or this end leaves.
async fn talk<S>(api: Arc<Api>, io: S, spelling: Spelling)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limit = api.max_body();
    let config = WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (mut say, hear) = socket.split();
    // Silence is `None`; twice in a row is too much.
    let mut silent = false;
    let heard = futures_util::stream::unfold(hear, |mut hear| async move {
        match tokio::time::timeout(PATIENCE, hear.next()).await {
            Ok(None) => None,
            Ok(Some(message)) => Some((Some(message), hear)),
            Err(_) => Some((None, hear)),
        }
    });
    let answers = heard.take_until(api.leaving()).map(|heard| {
        let api = &api;
        async move {
            match heard {
                None => Turn::Silence,
                Some(Ok(Message::Binary(frame))) => Turn::Say(answer(api, frame, spelling).await),
                Some(Ok(Message::Text(_))) => {
                    Turn::Say(spell(&Err("a frame is a binary message".to_owned()), spelling))
                }
                Some(Ok(Message::Close(_))) => Turn::Over(None),
                Some(Ok(_)) => Turn::Nothing,
                Some(Err(error)) => Turn::Over(farewell(&error, limit)),
            }
        }
    });
    let mut answers = pin!(answers.buffered(AT_ONCE));
    while let Some(turn) = answers.next().await {
        let quiet = matches!(turn, Turn::Silence);
        let said = match turn {
            Turn::Say(text) => say.send(Message::text(text)).await,
            Turn::Nothing => Ok(()),
            Turn::Silence if silent => return,
            Turn::Silence => say.send(Message::Ping(Bytes::new())).await,
            Turn::Over(reason) => {
                // A client that has gone need not hear it.
                let _ = say.send(Message::Close(reason)).await;
                return;
            }
        };
        silent = quiet;
        if said.is_err() {
            return;
        }
    }
    let reason = CloseFrame { code: CloseCode::Away, reason: "the server is going away".into() };
    let _ = say.send(Message::Close(Some(reason))).await;
}

/// What is to be done about one message.
enum Turn {
    Say(String),
    /// A message that needs no answer, such as a pong.
    Nothing,
    Silence,
    Over(Option<CloseFrame>),
}

/// What a client is told whose message could not be read; nothing where it is gone.
fn farewell(error: &Error, limit: usize) -> Option<CloseFrame> {
    let frame = |code, reason: String| Some(CloseFrame { code, reason: reason.into() });
    match error {
        Error::Capacity(_) => frame(CloseCode::Size, format!("a frame is longer than {limit} bytes")),
        Error::Protocol(_) => frame(CloseCode::Protocol, "this is not the WebSocket protocol".to_owned()),
        Error::Utf8(_) => frame(CloseCode::Invalid, "a text is not UTF-8".to_owned()),
        _ => None,
    }
}

async fn answer(api: &Api, frame: Bytes, spelling: Spelling) -> String {
    spell(&look(api, frame).await, spelling)
}

async fn look(api: &Api, frame: Bytes) -> Result<InferResponse, String> {
    // A frame is a picture, and one that is compressed again is not much longer: as long as a body, at most.
    let _room = api.hold(frame.len()).map_err(|refusal| refusal.message)?;
    let limit = api.max_body();
    let picture = tokio::task::spawn_blocking(move || inflate(&frame, limit));
    let picture = picture.await.map_err(|_| "the frame cannot be read".to_owned())??;
    let model = api.serving.default_detector(|_| true).ok_or("no detector is ready")?;
    let request = InferRequest {
        model,
        version: Choice::Newest,
        input: Input::Images(vec![picture]),
        deadline: adit_common::deadline::Deadline::never(),
        priority: Priority::default(),
    };
    api.serving.infer(request, &mut Stopwatch::start()).await.map_err(|error: InferError| error.to_string())
}

fn inflate(frame: &[u8], limit: usize) -> Result<Bytes, String> {
    let mut picture = Vec::with_capacity(frame.len().min(limit) + 1024);
    let mut decoder = ZlibDecoder::new(frame).take(limit as u64 + 1);
    decoder.read_to_end(&mut picture).map_err(|_| "the frame is not compressed by zlib".to_owned())?;
    if picture.len() > limit {
        return Err(format!("the frame's picture is longer than {limit} bytes"));
    }
    Ok(picture.into())
}

#[derive(Serialize)]
struct Found<'a> {
    name: &'a str,
    class: usize,
    confidence: f32,
    #[serde(rename = "box")]
    corners: Corners,
}

#[derive(Serialize)]
struct Corners {
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
}

fn found<'a>(detection: &Detection, labels: &'a Labels) -> Found<'a> {
    let [x1, y1, x2, y2] = detection.corners;
    let name = labels.all().get(detection.class).map_or("", |label| label);
    Found { name, class: detection.class, confidence: detection.score, corners: Corners { x1, y1, x2, y2 } }
}

fn spell(looked: &Result<InferResponse, String>, spelling: Spelling) -> String {
    let text = match looked {
        Ok(response) => match &response.findings {
            Findings::Detections(rows) => {
                let row = rows.first().into_iter().flatten();
                let row: Vec<_> = row.map(|detection| found(detection, &response.labels)).collect();
                serde_json::to_string_pretty(&row)
            }
            Findings::Probabilities(_) => serde_json::to_string(&json!({ "error": "the model finds no objects" })),
        },
        Err(error) => serde_json::to_string(&json!({ "error": error })),
    };
    // Names and finite numbers: nothing that JSON has no spelling for.
    let text = text.unwrap_or_default();
    match spelling {
        Spelling::Text => serde_json::Value::from(text).to_string(),
        Spelling::Array => format!(" {text} "),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_bomb_is_no_picture() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(&vec![0; 1 << 20]).unwrap();
        let frame = zlib.finish().unwrap();
        assert!(frame.len() < 2000);
        assert_eq!(inflate(&frame, 1 << 20).unwrap().len(), 1 << 20);
        assert!(inflate(&frame, (1 << 20) - 1).unwrap_err().contains("longer than"));
        assert!(inflate(b"\xff\xd8\xff", 1 << 20).is_err());
    }

    #[test]
    fn an_error_is_spelled_like_an_answer() {
        let error = Err("why".to_owned());
        assert_eq!(spell(&error, Spelling::Text), r#""{\"error\":\"why\"}""#);
        assert_eq!(spell(&error, Spelling::Array), r#" {"error":"why"} "#);
    }
}
