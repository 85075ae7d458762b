//! Exchanges between our own two ends: streaming, backpressure, cancellation, going away.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use adit_common::socket::Protocol;
use adit_common::tunnel::{CallError, ResetCode, Sent, Session, Transport, TransportOptions, TunnelBody, TunnelError};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::ends::Ends;
use crate::pair::Pair;

const LIMIT: Duration = Duration::from_secs(20);

/// Each of these holds over either transport.
macro_rules! over_either {
    ($($name:ident,)+) => {
        mod over_quic {
            $(#[tokio::test] async fn $name() { super::$name(adit_common::tunnel::Transport::Quic).await })+
        }
        mod over_tcp {
            $(#[tokio::test] async fn $name() { super::$name(adit_common::tunnel::Transport::Tcp).await })+
        }
    };
}

over_either! {
    bodies_and_trailers_go_both_ways,
    an_answer_may_come_before_the_upload_ends,
    a_reader_that_stops_makes_the_sender_wait_and_nobody_else,
    hanging_up_drops_the_service_at_the_other_end,
    an_unread_answer_is_cancelled_by_dropping_it,
    half_an_upload_never_looks_like_a_whole_one,
    out_of_credit_is_said_at_once,
    a_socket_goes_both_ways_and_each_end_is_told,
    an_answer_that_breaks_off_never_looks_whole,
    an_answer_without_the_rest_of_its_upload_is_whole,
    who_closes_says_why,
    who_goes_away_is_asked_nothing_new_and_finishes_what_it_has,
    a_lost_session_fails_its_exchanges_at_once,
    who_gives_up_within_a_service_does_not_ask_for_another_try,
}

fn post<B>(path: &str, body: B) -> Request<B> {
    Request::post(format!("https://relay.test{path}")).header("content-type", "image/jpeg").body(body).unwrap()
}

/// A body fed by hand.
fn fed() -> (mpsc::Sender<Bytes>, impl Body<Data = Bytes, Error = Infallible> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(1);
    let stream = futures_util::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Bytes>| {
        Some((Ok(Frame::data(receiver.recv().await?)), receiver))
    });
    (sender, StreamBody::new(Box::pin(stream)))
}

/// A body that fails after its first bytes, as a client's does that hangs up.
struct Broken(Option<Bytes>);

impl Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(self.0.take().map(Frame::data).ok_or_else(|| std::io::ErrorKind::ConnectionReset.into())))
    }
}

/// Serves one exchange by a function of the whole request body.
async fn echo(agent: Session) -> Result<(), TunnelError> {
    agent
        .accept()
        .await?
        .serve(async |request: Request<TunnelBody>| {
            let path = request.uri().path().to_owned();
            let kind = request.headers()["content-type"].clone();
            let body = request.into_body().collect().await.unwrap();
            let trailers = body.trailers().cloned();
            let mut response = Response::new(Full::new(body.to_bytes()).with_trailers(async { trailers.map(Ok) }));
            response.headers_mut().insert("content-type", kind);
            response.headers_mut().insert("x-path", path.parse().unwrap());
            response
        })
        .await
}

async fn bodies_and_trailers_go_both_ways(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    for size in [0, 1, 1000, 150_000, 5_000_000] {
        let body: Bytes = (0..size).map(|byte: usize| (byte * 31 % 251) as u8).collect::<Vec<_>>().into();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "a1b2".parse().unwrap());
        let sent = Full::new(body.clone()).with_trailers({
            let trailers = trailers.clone();
            Box::pin(async { Some(Ok(trailers)) })
        });
        let exchange = async {
            let answer = relay.open().unwrap().send(post("/echo?a=b", sent)).await.unwrap();
            assert_eq!(answer.response.headers()["content-type"], "image/jpeg");
            assert_eq!(answer.response.headers()["x-path"], "/echo");
            assert!(answer.sent.unwrap() >= answer.opened);
            answer.response.into_body().collect().await.unwrap()
        };
        let (served, answer) = timeout(LIMIT, async { tokio::join!(echo(agent.clone()), exchange) }).await.unwrap();
        served.unwrap();
        assert_eq!(answer.trailers(), Some(&trailers));
        assert!(answer.to_bytes() == body, "{size} bytes came back changed");
    }
}

async fn an_answer_may_come_before_the_upload_ends(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let (feed, body) = fed();
    let server = tokio::spawn(async move {
        agent.accept().await?.serve(async |request: Request<TunnelBody>| Response::new(request.into_body())).await
    });
    let answer = timeout(LIMIT, relay.open().unwrap().send(post("/", body))).await.unwrap().unwrap();
    assert_eq!(answer.sent, None, "the upload had not ended");
    let mut back = answer.response.into_body();
    for part in [&b"one"[..], b"two"] {
        feed.send(Bytes::from_static(part)).await.unwrap();
        let frame = timeout(LIMIT, back.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    drop(feed);
    assert!(timeout(LIMIT, back.frame()).await.unwrap().is_none());
    server.await.unwrap().unwrap();
}

async fn a_reader_that_stops_makes_the_sender_wait_and_nobody_else(transport: Transport) {
    let options = TransportOptions { stream_window: 64 << 10, send_window: 128 << 10, ..TransportOptions::default() };
    let ends = Ends::with(transport, options).await;
    let (relay, agent) = ends.sessions();
    let taken = Arc::new(AtomicUsize::new(0));
    let held = Arc::new(Notify::new());
    let server = tokio::spawn({
        let (agent, held) = (agent.clone(), held.clone());
        async move {
            let slow = agent.accept().await?;
            let fast = echo(agent);
            let slow = slow.serve(async |request: Request<TunnelBody>| {
                held.notified().await;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(Full::new(Bytes::from(body.len().to_string())))
            });
            tokio::try_join!(slow, fast).map(drop)
        }
    });
    let counter = taken.clone();
    let chunks = futures_util::stream::iter(0..1000).map(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[1; 16 << 10])))
    });
    use futures_util::StreamExt;
    let upload = tokio::spawn(relay.open().unwrap().send(post("/slow", StreamBody::new(chunks))));
    // Another request passes while the slow one is held.
    let quick = async {
        let answer = loop {
            if taken.load(Ordering::Relaxed) >= 3 {
                break relay.open().unwrap().send(post("/quick", Full::new(Bytes::from_static(b"hi")))).await;
            }
            tokio::task::yield_now().await;
        };
        answer.unwrap().response.into_body().collect().await.unwrap().to_bytes()
    };
    assert_eq!(timeout(LIMIT, quick).await.unwrap(), "hi");
    let stalled = taken.load(Ordering::Relaxed);
    assert!(stalled < 1000, "{stalled} of 1000 chunks were taken from a sender nobody reads from");
    held.notify_one();
    let answer = timeout(LIMIT, upload).await.unwrap().unwrap().unwrap();
    let size = answer.response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(size, (1000_usize * (16 << 10)).to_string());
    server.await.unwrap().unwrap();
}

/// Sets its flag when dropped.
struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn hanging_up_drops_the_service_at_the_other_end(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let (running, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let server = tokio::spawn({
        let (running, dropped) = (running.clone(), dropped.clone());
        async move {
            agent
                .accept()
                .await?
                .serve(async move |request: Request<TunnelBody>| {
                    let _guard = OnDrop(dropped);
                    request.into_body().collect().await.unwrap();
                    running.notify_one();
                    pending::<Response<Empty<Bytes>>>().await
                })
                .await
        }
    });
    let call = tokio::spawn(relay.open().unwrap().send(post("/", Full::new(Bytes::from_static(b"photo")))));
    timeout(LIMIT, running.notified()).await.unwrap();
    call.abort();
    timeout(LIMIT, dropped.notified()).await.expect("the computing service was not dropped");
    let error = server.await.unwrap().unwrap_err();
    assert!(matches!(error, TunnelError::Stopped(ResetCode::REQUEST_CANCELLED)), "{error}");
}

async fn an_unread_answer_is_cancelled_by_dropping_it(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let dropped = Arc::new(Notify::new());
    let server = tokio::spawn({
        let dropped = dropped.clone();
        async move {
            agent
                .accept()
                .await?
                .serve(async move |_: Request<TunnelBody>| {
                    let guard = OnDrop(dropped);
                    let endless = futures_util::stream::unfold(guard, async |guard| {
                        tokio::task::yield_now().await;
                        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 1024]))), guard))
                    });
                    Response::new(StreamBody::new(endless))
                })
                .await
        }
    });
    let answer = relay.open().unwrap().send(post("/", Empty::new())).await.unwrap();
    drop(answer);
    timeout(LIMIT, dropped.notified()).await.expect("the endless body was not dropped");
    assert!(server.await.unwrap().is_err());
}

async fn half_an_upload_never_looks_like_a_whole_one(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let server = tokio::spawn(async move {
        let (seen, mut result) = mpsc::channel(1);
        let served = agent
            .accept()
            .await?
            .serve(async move |request: Request<TunnelBody>| {
                seen.send(request.into_body().collect().await.map(|body| body.to_bytes())).await.unwrap();
                Response::new(Empty::<Bytes>::new())
            })
            .await;
        Ok::<_, TunnelError>((served.is_ok(), result.recv().await))
    });
    let call = relay.open().unwrap().send(post("/", Broken(Some(Bytes::from_static(b"half")))));
    let CallError { error, sent } = call.await.unwrap_err();
    assert!(matches!(error, TunnelError::Body(_)), "{error}");
    assert_eq!(sent, Sent::Part);
    // Either the agent saw the reset in the body, or it was cancelled before it looked.
    if let (_, Some(body)) = timeout(LIMIT, server).await.unwrap().unwrap().unwrap() {
        assert!(matches!(body, Err(TunnelError::Reset(ResetCode::REQUEST_CANCELLED))), "{body:?}");
    }
}

async fn out_of_credit_is_said_at_once(transport: Transport) {
    let ends = Ends::with(transport, TransportOptions { streams: 2, ..TransportOptions::default() }).await;
    let (relay, agent) = ends.sessions();
    if transport == Transport::Tcp {
        // The credit is known once the agent has spoken.
        let call = relay.open().unwrap().send(post("/", Full::new(Bytes::from_static(b"hi"))));
        let (served, answer) = timeout(LIMIT, async { tokio::join!(echo(agent.clone()), call) }).await.unwrap();
        served.unwrap();
        answer.unwrap().response.into_body().collect().await.unwrap();
    }
    let held = (relay.open().unwrap(), relay.open().unwrap());
    assert!(matches!(relay.open(), Err(TunnelError::NoCredit)));
    drop(held);
}

async fn a_socket_goes_both_ways_and_each_end_is_told(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    // Over TCP an agent says first that it may be asked so.
    let call = relay.open().unwrap().send(post("/", Empty::new()));
    let (served, answer) = timeout(LIMIT, async { tokio::join!(echo(agent.clone()), call) }).await.unwrap();
    served.unwrap();
    drop(answer);
    let (feed, body) = fed();
    let server = tokio::spawn(async move {
        let serve = agent.accept().await?.serve(async |request: Request<TunnelBody>| {
            assert_eq!((request.method(), request.uri().path()), (&Method::CONNECT, "/ws"));
            assert_eq!(request.extensions().get(), Some(&Protocol("websocket".to_owned())));
            Response::new(request.into_body())
        });
        serve.await
    });
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut()) = (Method::CONNECT, "https://relay.test/ws".parse().unwrap());
    request.extensions_mut().insert(Protocol("websocket".to_owned()));
    let answer = timeout(LIMIT, relay.open().unwrap().send(request)).await.unwrap().unwrap();
    assert_eq!(answer.response.status(), 200);
    let mut back = answer.response.into_body();
    feed.send(Bytes::from_static(b"frame")).await.unwrap();
    assert_eq!(timeout(LIMIT, back.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap(), "frame");
    drop(feed);
    assert!(timeout(LIMIT, back.frame()).await.unwrap().is_none());
    server.await.unwrap().unwrap();
}

async fn an_answer_that_breaks_off_never_looks_whole(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let server = tokio::spawn(async move {
        agent
            .accept()
            .await?
            .serve(async |_: Request<TunnelBody>| Response::new(Broken(Some(Bytes::from_static(b"half")))))
            .await
    });
    let call = relay.open().unwrap().send(post("/", Empty::new()));
    // It may break off before its head is read, and then there is none.
    if let Ok(answer) = timeout(LIMIT, call).await.unwrap() {
        let body = timeout(LIMIT, answer.response.into_body().collect()).await.unwrap();
        assert!(matches!(body, Err(TunnelError::Reset(_))), "{body:?}");
    }
    assert!(matches!(server.await.unwrap(), Err(TunnelError::Body(_))));
}

async fn an_answer_without_the_rest_of_its_upload_is_whole(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let server = tokio::spawn(async move {
        let answer = Bytes::from(vec![7; 300_000]);
        agent.accept().await?.serve(async |_: Request<TunnelBody>| Response::new(Full::new(answer))).await
    });
    let endless =
        futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 4096]))));
    let call = relay.open().unwrap().send(post("/", StreamBody::new(endless)));
    let answer = timeout(LIMIT, call).await.unwrap().unwrap();
    let body = timeout(LIMIT, answer.response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(body.len(), 300_000);
    server.await.unwrap().unwrap();
}

async fn who_closes_says_why(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    // Both control streams stand once an exchange has gone through.
    let call = relay.open().unwrap().send(post("/", Empty::new()));
    let (served, _) = timeout(LIMIT, async { tokio::join!(echo(agent.clone()), call) }).await.unwrap();
    served.unwrap();
    relay.close(ResetCode::GENERAL_PROTOCOL_ERROR, "the manifest is another's");
    let error = timeout(LIMIT, agent.closed()).await.unwrap();
    assert!(error.is_loss() && !error.is_orderly_close());
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("the manifest is another's"), "{why}");
    assert!(timeout(LIMIT, relay.closed()).await.unwrap().is_orderly_close(), "this end wanted it");
}

async fn who_goes_away_is_asked_nothing_new_and_finishes_what_it_has(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let (feed, body) = fed();
    let call = tokio::spawn(relay.open().unwrap().send(post("/", body)));
    let server = tokio::spawn(echo(agent.clone()));
    agent.goaway();
    timeout(LIMIT, relay.peer_going_away()).await.unwrap();
    assert!(matches!(relay.open(), Err(TunnelError::GoingAway)));
    feed.send(Bytes::from_static(b"late")).await.unwrap();
    drop(feed);
    let answer = timeout(LIMIT, call).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.response.into_body().collect().await.unwrap().to_bytes(), "late");
    server.await.unwrap().unwrap();

    relay.goaway();
    timeout(LIMIT, agent.peer_going_away()).await.unwrap();
    relay.close(ResetCode::NO_ERROR, "done");
    assert!(timeout(LIMIT, agent.closed()).await.unwrap().is_orderly_close());
}

async fn a_lost_session_fails_its_exchanges_at_once(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let call = tokio::spawn(relay.open().unwrap().send(post("/", Empty::new())));
    let callee = agent.accept().await.unwrap();
    agent.close(ResetCode::INTERNAL_ERROR, "gone");
    let error = timeout(LIMIT, call).await.unwrap().unwrap().unwrap_err();
    assert!(error.error.is_loss(), "{}", error.error);
    assert_eq!(error.sent, Sent::All);
    assert!(relay.open().is_err_and(|error| error.is_loss()));
    drop(callee);
}

#[tokio::test]
async fn garbage_on_a_stream_ends_that_exchange_and_no_other() {
    let pair = Pair::new().await;
    let (relay, agent) = pair.sessions();
    let server = tokio::spawn({
        let agent = agent.clone();
        async move {
            let garbled = agent.accept().await?;
            let error = garbled.serve(async |_| Response::new(Empty::<Bytes>::new())).await.unwrap_err();
            assert!(matches!(error, TunnelError::Protocol { .. }), "{error}");
            echo(agent).await
        }
    });
    let (mut send, mut receive) = pair.relay.open_bi().await.unwrap();
    send.write_all(&[0xff; 300]).await.unwrap();
    let reset = timeout(LIMIT, receive.read_to_end(10)).await.unwrap();
    assert!(reset.is_err(), "the agent must reset the stream");
    let call = relay.open().unwrap().send(post("/", Full::new(Bytes::from_static(b"fine"))));
    let answer = timeout(LIMIT, call).await.unwrap().unwrap();
    assert_eq!(answer.response.into_body().collect().await.unwrap().to_bytes(), "fine");
    server.await.unwrap().unwrap();
}

async fn who_gives_up_within_a_service_does_not_ask_for_another_try(transport: Transport) {
    let ends = Ends::new(transport).await;
    let (relay, agent) = ends.sessions();
    let begun = Arc::new(Notify::new());
    let server = tokio::spawn({
        let begun = begun.clone();
        async move {
            let serve = agent.accept().await?.serve(async move |_: Request<TunnelBody>| {
                begun.notify_one();
                pending::<Response<Empty<Bytes>>>().await
            });
            serve.await
        }
    });
    let call = tokio::spawn(relay.open().unwrap().send(post("/", Empty::new())));
    timeout(LIMIT, begun.notified()).await.unwrap();
    server.abort();
    let error = timeout(LIMIT, call).await.unwrap().unwrap().unwrap_err().error;
    // "Rejected" would mean that nothing was done, and that it may be sent again.
    assert!(matches!(error, TunnelError::Reset(ResetCode::INTERNAL_ERROR)), "{error}");
}
