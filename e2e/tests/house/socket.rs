//! WebSockets through the relay: over HTTP/1.1 and HTTP/2, with TLS and without, and at an agent itself.

use std::io::Write as _;
use std::time::Duration;

use adit_e2e::{House, LIMIT, Plan};
use adit_vision::image::digit_picture;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// A picture as its clients send it.
fn frame(picture: &[u8]) -> Result<Message> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(picture)?;
    Ok(Message::binary(zlib.finish()?))
}

async fn hear<S>(socket: &mut WebSocketStream<S>) -> Result<Message>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Ok(timeout(LIMIT, socket.next()).await?.context("the socket has ended")??)
}

/// Says three frames at once, and hears three answers: there is no detector, and each frame is told so.
async fn converse<S>(socket: &mut WebSocketStream<S>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..3 {
        socket.send(frame(&digit_picture(7)?)?).await?;
    }
    for _ in 0..3 {
        let Message::Text(text) = hear(socket).await? else { panic!("no text") };
        // JSON within JSON.
        let inner: String = serde_json::from_str(&text)?;
        assert_eq!(serde_json::from_str::<Value>(&inner)?["error"], "no detector is ready");
    }
    Ok(())
}

async fn opened<S>(stream: S, url: &str, key: Option<&str>) -> Result<WebSocketStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = url.into_client_request()?;
    if let Some(key) = key {
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
    }
    Ok(client_async(request, stream).await?.0)
}

async fn with_every_way_in(plan: Plan) -> Result<House> {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let plan = plan.digits().change(move |config| config.local.listen = Some(any));
    House::builder().relay(|config| config.front.plain = vec![any]).agent(plan).open().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_answered_over_every_way_in() -> Result<()> {
    frames_are_answered(Plan::new("box")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_answered_over_a_tunnel_over_tcp() -> Result<()> {
    frames_are_answered(Plan::new("box").at_front()).await
}

async fn frames_are_answered(plan: Plan) -> Result<()> {
    let house = with_every_way_in(plan).await?;
    let mut secure = opened(house.tls("http/1.1").await?, "wss://localhost/ws", Some(house.key())).await?;
    converse(&mut secure).await?;
    secure.close(None).await?;
    assert!(matches!(hear(&mut secure).await?, Message::Close(_)));

    let plain = TcpStream::connect(house.relay().addresses().plain[0]).await?;
    converse(&mut opened(plain, "ws://localhost/ws", Some(house.key())).await?).await?;

    let local = house.agent("box")?.local_address().context("it listens")?;
    let mut array = opened(TcpStream::connect(local).await?, "ws://localhost/ws?json=array", None).await?;
    array.send(frame(b"no picture")?).await?;
    assert_eq!(hear(&mut array).await?.to_text()?, " {\"error\":\"no detector is ready\"} ");

    // HTTP/2 over TLS: an extended CONNECT.
    let io = TokioIo::new(house.tls("h2").await?);
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await?;
    house.scope().spawn("client", driver);
    sender.ready().await?;
    let uri = format!("https://{}/ws", house.relay().addresses().https);
    let request = Request::builder().method(Method::CONNECT).uri(uri).extension(Protocol::from_static("websocket"));
    let request = request.header("x-api-key", house.key()).header("sec-websocket-version", "13");
    // The connection says first that it may be asked so.
    let mut response = timeout(LIMIT, sender.send_request(request.body(Empty::new())?)).await??;
    assert_eq!(response.status(), 200);
    let upgraded = hyper::upgrade::on(&mut response).await?;
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    converse(&mut socket).await?;
    drop((socket, array));
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_needs_a_key_and_a_path_that_is_one() -> Result<()> {
    let house = with_every_way_in(Plan::new("box")).await?;
    for (path, key, status) in [("/ws", None, 401), ("/v2", Some(house.key()), 405), ("/none", Some(house.key()), 404)]
    {
        let url = format!("wss://localhost{path}");
        let Err(Error::Http(response)) = opened(house.tls("http/1.1").await?, &url, key).await else {
            panic!("{path} opened")
        };
        assert_eq!(response.status().as_u16(), status, "{path}");
        let body: Value = serde_json::from_slice(response.body().as_deref().context("a body")?)?;
        assert!(body["error"].is_string());
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_frees_its_place_and_one_that_stays_is_told_goodbye() -> Result<()> {
    a_client_leaves_or_stays(Plan::new("box")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_too_who_stays_is_told_goodbye() -> Result<()> {
    a_client_leaves_or_stays(Plan::new("box").at_front()).await
}

async fn a_client_leaves_or_stays(plan: Plan) -> Result<()> {
    let house = with_every_way_in(plan).await?;
    let first = opened(house.tls("http/1.1").await?, "wss://localhost/ws", Some(house.key())).await?;
    house.until_busy("box", 1, 0).await?;
    drop(first);
    house.until_busy("box", 0, 0).await?;
    let mut second = opened(house.tls("http/1.1").await?, "wss://localhost/ws", Some(house.key())).await?;
    converse(&mut second).await?;
    let began = std::time::Instant::now();
    let (closed, goodbye) = tokio::join!(house.close(), hear(&mut second));
    let Message::Close(Some(goodbye)) = goodbye? else { panic!("no goodbye") };
    assert_eq!(u16::from(goodbye.code), 1001);
    assert!(closed && began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    Ok(())
}
