//! Servers behind agents: whole requests are carried to them and back, through relay and tunnel.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use adit_agent::Agent;
use adit_agent::config::{Config, UpstreamConfig, UpstreamProtocol};
use adit_common::manifest::Scope;
use adit_common::timing::Stage;
use adit_e2e::{Body, Channel, House, LIMIT, Plan, Version, full};
use adit_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adit_proto::inference::{ModelInferRequest, ModelReadyRequest, ServerMetadataRequest};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::SinkExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tonic::Code;

use crate::ask::{get, raw};
use crate::origin::Origin;

const BOTH: [UpstreamProtocol; 2] = [UpstreamProtocol::H1, UpstreamProtocol::H2c];

fn plan(name: &str, upstreams: Vec<UpstreamConfig>) -> Plan {
    Plan::new(name).change(move |config| {
        config.upstreams = upstreams;
        // As an agent that has no model, unless a test gives it some.
        config.serving.embedded = config.serving.embedded.filter(|embedded| *embedded);
        config.local.listen = Some(([127, 0, 0, 1], 0).into());
    })
}

/// Waits until the relay knows so many servers that answer, over all agents.
async fn until_up(house: &House, count: usize) -> Result<()> {
    house
        .until(|fleet| {
            let agents = fleet["agents"].as_array().into_iter().flatten();
            let upstreams = agents.flat_map(|agent| agent["upstreams"].as_array().into_iter().flatten());
            upstreams.filter(|upstream| upstream["able"] == true).count() == count
        })
        .await
}

async fn with(upstreams: Vec<UpstreamConfig>) -> Result<House> {
    let count = upstreams.len();
    let house = House::builder().agent(plan("box", upstreams)).open().await?;
    until_up(&house, count).await?;
    Ok(house)
}

async fn http2(house: &House) -> Result<SendRequest<Body>> {
    let io = TokioIo::new(house.tls("h2").await?);
    let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    house.scope().spawn("client", driver);
    Ok(sender)
}

fn asked(house: &House, path: &str, body: Body) -> Result<Request<Body>> {
    let uri = format!("https://{}{path}", house.relay().addresses().https);
    Ok(Request::post(uri).header("x-api-key", house.key()).body(body)?)
}

/// A body whose pieces are put in one by one.
fn steered() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (put, take) = mpsc::channel(1);
    (put, StreamBody::new(ReceiverStream::new(take).map(Ok)).boxed_unsync())
}

/// What comes next; HTTP/2 may have empty pieces, which say nothing.
async fn next(response: &mut Response<Incoming>) -> Result<Option<hyper::Result<Frame<Bytes>>>> {
    loop {
        let frame = timeout(LIMIT, response.body_mut().frame()).await.context("a piece should have come")?;
        if !matches!(&frame, Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty)) {
            return Ok(frame);
        }
    }
}

async fn piece(response: &mut Response<Incoming>) -> Result<Frame<Bytes>> {
    Ok(next(response).await?.context("the answer has ended")??)
}

async fn until(holds: impl Fn() -> bool) -> Result<()> {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, wait).await.context("it should have become so")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_pass_both_ways_before_the_last_is_there_and_trailers_behind_them() -> Result<()> {
    let (one, two) = (Origin::open(BOTH[0]).await?, Origin::open(BOTH[1]).await?);
    let configs = [(&one, "one"), (&two, "two")]
        .map(|(origin, name)| UpstreamConfig { prefix: format!("/{name}"), ..origin.config(name) });
    let house = with(configs.into()).await?;
    for name in ["one", "two"] {
        let mut sender = http2(&house).await?;
        let (put, body) = steered();
        put.send(Frame::data(Bytes::from_static(b"0"))).await?;
        let request = asked(&house, &format!("/{name}/echo"), body)?;
        let mut response = timeout(LIMIT, sender.send_request(request)).await??;
        assert_eq!(response.status(), 200);
        for turn in 0..20 {
            // Nothing more is sent before what was sent has come back.
            let heard = piece(&mut response).await?.into_data().ok().context("data")?;
            assert_eq!(heard, turn.to_string(), "{name}");
            put.send(Frame::data(Bytes::from((turn + 1).to_string()))).await?;
        }
        assert_eq!(piece(&mut response).await?.into_data().ok().context("data")?, "20");
        let trailers: HeaderMap = [("x-sum".parse()?, HeaderValue::from_static("17"))].into_iter().collect();
        if name == "two" {
            put.send(Frame::trailers(trailers.clone())).await?;
        }
        drop(put);
        if name == "two" {
            assert_eq!(piece(&mut response).await?.into_trailers().ok().context("trailers")?, trailers);
        }
        assert!(next(&mut response).await?.is_none());
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_megabytes_pass_as_they_are() -> Result<()> {
    let large: Bytes = (0..20_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for protocol in BOTH {
        let origin = Origin::open(protocol).await?;
        let house = with(vec![origin.config("store")]).await?;
        for version in [Version::Http1, Version::Http2] {
            let mut client = house.client(version).await?;
            let counted = client.ask(Request::put("/count").body(full(large.clone()))?).await?;
            assert_eq!((counted.status, &counted.body[..]), (StatusCode::OK, &b"20000000"[..]), "{protocol:?}");
            let answer = client.ask(Request::post("/echo").body(full(large.clone()))?).await?;
            assert!(answer.body == large, "{protocol:?} {version:?}");
        }
        assert_eq!(house.agent_metric("box", "adit_agent_upstream_in_flight{upstream=\"store\"}")?, 0.0);
        assert!(house.close().await);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_sees_the_client_and_nothing_of_the_tunnel() -> Result<()> {
    for protocol in BOTH {
        let origin = Origin::open(protocol).await?;
        let told =
            UpstreamConfig { prefix: "/told".into(), send_host: Some("localhost".into()), ..origin.config("told") };
        let house = with(vec![origin.config("web"), told]).await?;
        let https = house.relay().addresses().https.to_string();
        let mut client = house.client(Version::Http1).await?;
        let request = Request::delete("/a%2Fb/c?d=%20").header("x-request-id", "order-17").header("adit-upstream", "0");
        let answer = client.ask(request.header("cookie", "a=1").body(full(""))?).await?;
        assert_eq!((answer.header("x-origin")?, answer.header("x-request-id")?), ("here", "order-17"));
        assert!(!answer.headers.contains_key("keep-alive"));
        let seen = answer.json()?;
        let target = seen["target"].as_str().context("a target")?;
        assert!(seen["method"] == "DELETE" && target.ends_with("/a%2Fb/c?d=%20"), "{seen}");
        let fields = seen["fields"].as_object().context("fields")?;
        assert_eq!(
            (&fields["x-forwarded-host"], &fields["x-forwarded-proto"]),
            (&https.clone().into(), &"https".into())
        );
        assert_eq!((&fields["x-forwarded-for"], &fields["x-request-id"]), (&"127.0.0.1".into(), &"order-17".into()));
        assert!(fields.contains_key("traceparent") && fields["cookie"] == "a=1");
        let ours =
            |name: &&String| name.starts_with("adit-") || ["x-api-key", "authorization"].contains(&name.as_str());
        assert_eq!(fields.keys().find(ours), None);
        assert!(!fields.contains_key("transfer-encoding"), "a request without a body has none there either");
        if protocol == UpstreamProtocol::H1 {
            assert_eq!(fields["host"], https);
        } else {
            assert_eq!(target, format!("http://{https}/a%2Fb/c?d=%20"));
        }
        let seen = client.ask(get("/told")).await?.json()?;
        let host = seen["fields"]["host"].as_str().unwrap_or_else(|| seen["target"].as_str().unwrap_or_default());
        assert!(host == "localhost" || host == "http://localhost/told", "{seen}");
        let climbs = client.ask(get("/told/%2e%2e/x")).await?;
        assert!(climbs.status == StatusCode::BAD_REQUEST && climbs.error()?.contains("`..`"), "{climbs:?}");
        assert!(house.close().await);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_and_a_closed_one_costs_no_request() -> Result<()> {
    for protocol in BOTH {
        let origin = Origin::open(protocol).await?;
        // Looked at once: every look is a connection.
        let config = UpstreamConfig { interval: Duration::from_secs(3600), ..origin.config("web") };
        let house = with(vec![config]).await?;
        let mut client = house.client(Version::Http2).await?;
        for _ in 0..30 {
            assert_eq!(client.ask(Request::post("/count").body(full("four"))?).await?.body, "4");
        }
        assert_eq!(origin.seen.connections.load(SeqCst), 2, "the look, and one for thirty requests");
        // Its connections are closed, and it is there again.
        origin.kill().await;
        let again = Origin::open_at(protocol, origin.address, true).await?;
        assert_eq!(client.ask(get("/any")).await?.status, StatusCode::OK);
        assert_eq!(again.seen.requests.load(SeqCst), 1);
        assert!(house.close().await);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_there_is_no_answer_is_said_by_name() -> Result<()> {
    let origin = Origin::open(UpstreamProtocol::H1).await?;
    let config = UpstreamConfig { interval: Duration::from_secs(3600), max_requests: 1, ..origin.config("triton") };
    let other = Origin::open(UpstreamProtocol::H1).await?;
    let hasty =
        UpstreamConfig { prefix: "/hasty".into(), timeout: Duration::from_millis(100), ..other.config("hasty") };
    let strict = UpstreamConfig { prefix: "/strict".into(), scope: Scope::Control, ..other.config("strict") };
    let house = with(vec![config, hasty, strict]).await?;
    let mut client = house.client(Version::Http2).await?;

    let late = client.ask(get("/hasty/wait")).await?;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(late.error()?.contains("`hasty` behind the agent did not answer in time"), "{late:?}");
    until(|| other.seen.waiting.load(SeqCst) == 0).await?;
    assert_eq!(client.ask(get("/strict/x")).await?.status, StatusCode::FORBIDDEN);

    let waiting = tokio::spawn(client.send(get("/wait")));
    until(|| origin.seen.waiting.load(SeqCst) == 1).await?;
    let full = client.ask(get("/any")).await?;
    assert!(full.status == StatusCode::SERVICE_UNAVAILABLE && full.error()?.contains("`triton`"), "{full:?}");
    assert!(full.headers.contains_key("retry-after"));

    // It dies with a request under way; then there is nobody, until it is known to be down.
    origin.kill().await;
    let broken = timeout(LIMIT, waiting).await???;
    assert!(broken.status == StatusCode::BAD_GATEWAY && broken.error()?.contains("`triton`"), "{broken:?}");
    let refused = client.ask(get("/any")).await?;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
    assert!(
        refused.error()?.contains("`triton` behind the agent cannot be reached: connection refused"),
        "{refused:?}"
    );
    let grpc = Request::post("/x.Y/Z").header("content-type", "application/grpc");
    let grpc = client.ask(grpc.body(adit_e2e::full(""))?).await?;
    assert_eq!((grpc.status, grpc.header("grpc-status")?), (StatusCode::OK, "14"));
    assert!(grpc.header("grpc-message")?.contains("triton"), "{grpc:?}");
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_is_left_out_and_comes_back() -> Result<()> {
    let origin = Origin::open(UpstreamProtocol::H1).await?;
    let config = UpstreamConfig { health: Some("/health".into()), ..origin.config("triton") };
    let house = with(vec![config]).await?;
    let mut client = house.client(Version::Http2).await?;
    assert_eq!(client.ask(get("/any")).await?.status, StatusCode::OK);
    origin.seen.well.store(false, SeqCst);
    until_up(&house, 0).await?;
    let down = client.ask(get("/any")).await?;
    assert_eq!(down.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(down.error()?.contains("the server triton behind the agents does not answer"), "{down:?}");
    assert_eq!(house.agent_metric("box", "adit_agent_upstream_up{upstream=\"triton\"}")?, 0.0);
    origin.seen.well.store(true, SeqCst);
    until_up(&house, 1).await?;
    assert_eq!(client.ask(get("/any")).await?.status, StatusCode::OK);
    origin.kill().await;
    until_up(&house, 0).await?;
    let _again = Origin::open_at(UpstreamProtocol::H1, origin.address, true).await?;
    until_up(&house, 1).await?;
    assert_eq!(client.ask(get("/any")).await?.status, StatusCode::OK);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_no_answer_that_ends() -> Result<()> {
    for protocol in BOTH {
        let origin = Origin::open(protocol).await?;
        let house = with(vec![origin.config("web")]).await?;
        let mut sender = http2(&house).await?;
        let mut response = timeout(LIMIT, sender.send_request(asked(&house, "/drip", full(""))?)).await??;
        assert_eq!(piece(&mut response).await?.into_data().ok().context("data")?, "first");
        origin.kill().await;
        let end = next(&mut response).await?.context("a clean end")?;
        assert!(end.is_err(), "{end:?}");
        let cut = "adit_agent_upstream_requests_total{upstream=\"web\",outcome=\"cut\"}";
        assert_eq!(house.agent_metric("box", cut)?, 1.0);
        assert!(house.close().await);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_ends_the_request_at_the_server() -> Result<()> {
    for protocol in BOTH {
        let origin = Origin::open(protocol).await?;
        let house = with(vec![origin.config("web")]).await?;
        let mut client = house.client(Version::Http2).await?;
        let waiting = tokio::spawn(client.send(get("/wait")));
        until(|| origin.seen.waiting.load(SeqCst) == 1).await?;
        house.until_busy("box", 1, 0).await?;
        waiting.abort();
        until(|| origin.seen.waiting.load(SeqCst) == 0).await?;
        house.until_busy("box", 0, 0).await?;
        assert_eq!(client.ask(get("/any")).await?.status, StatusCode::OK);
        assert!(house.close().await);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_models_come_first_and_a_host_of_its_own_before_them() -> Result<()> {
    let origin = Origin::open(UpstreamProtocol::H1).await?;
    let below = UpstreamConfig { prefix: "/v2".into(), ..origin.config("below") };
    let site = UpstreamConfig { host: Some("triton.test".into()), ..origin.config("site") };
    let other = UpstreamConfig { prefix: "/v2".into(), ..origin.config("same") };
    let models = plan("models", vec![below]).digits();
    let house = House::builder().agent(models).agent(plan("servers", vec![site, other])).open().await?;
    until_up(&house, 3).await?;
    let mut client = house.client(Version::Http1).await?;
    let digit = adit_vision::image::digit_picture(3)?;
    client.ask(raw("digits", digit.clone())).await?.inferred()?;
    assert_eq!(client.ask(get("/v2")).await?.json()?["name"], "adit");
    let told = client.ask(raw("resnet", digit.clone())).await?.json()?;
    assert_eq!(told["target"], "/v2/models/resnet/infer");
    let mut many = house.client(Version::Http2).await?;
    let waiting: Vec<_> = (0..40).map(|_| tokio::spawn(many.send(get("/v2/wait")))).collect();
    until(|| origin.seen.waiting.load(SeqCst) == 40).await?;
    origin.seen.go.add_permits(40);
    for answer in waiting {
        assert_eq!(timeout(LIMIT, answer).await???.status, StatusCode::OK);
    }
    for agent in ["models", "servers"] {
        let name = if agent == "models" { "below" } else { "same" };
        let count = format!("adit_agent_upstream_requests_total{{upstream=\"{name}\",outcome=\"ok\"}}");
        assert!(house.agent_metric(agent, &count)? >= 1.0, "both agents have it, and share what is under way");
    }
    assert_eq!(client.ask(get("/v3")).await?.status, StatusCode::NOT_FOUND);
    let mut sender = http2(&house).await?;
    let at_host = Request::get("https://triton.test/v2/models/digits").header("x-api-key", house.key());
    let response = timeout(LIMIT, sender.send_request(at_host.body(full(""))?)).await??;
    let told: serde_json::Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    assert_eq!((&told["target"], &told["fields"]["host"]), (&"/v2/models/digits".into(), &"triton.test".into()));

    // The local listener has the same rules.
    let local = house.agent("models")?.local_address().context("it listens")?;
    let io = TokioIo::new(tokio::net::TcpStream::connect(local).await?);
    let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
    house.scope().spawn("client", driver);
    for (path, ours) in [("/v2/models/digits", true), ("/v2/models/resnet", false), ("/v2", true), ("/v2/x", false)] {
        sender.ready().await?;
        let request = Request::get(path).header("host", "box").header("adit-upstream", "1").body(full(""))?;
        let response = timeout(LIMIT, sender.send_request(request)).await??;
        assert_eq!(!response.headers().contains_key("x-origin"), ours, "{path}");
        response.into_body().collect().await?;
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_passes_with_its_statuses_streams_and_deadlines() -> Result<()> {
    // Another agent's own listener is a server of gRPC like any other.
    let mut config = Config::default();
    config.local.listen = Some(([127, 0, 0, 1], 0).into());
    let origin = Agent::start(config).await?;
    timeout(LIMIT, origin.settled()).await?;
    let url = format!("http://{}", origin.local_address().context("it listens")?);
    let upstream = UpstreamConfig { protocol: UpstreamProtocol::H2c, ..UpstreamConfig::new("grpc".parse()?, url) };
    let silent = Origin::open(UpstreamProtocol::H2c).await?;
    let silent_config = UpstreamConfig { prefix: "/wait".into(), ..silent.config("silent") };
    let house = with(vec![upstream, silent_config]).await?;
    let scope = house.scope().child();
    let channel = Channel::secure(house.relay().addresses().https, house.ca(), Some(house.key()), scope).await?;
    let mut client = GrpcInferenceServiceClient::with_origin(channel.clone(), channel.origin());
    let metadata = client.server_metadata(ServerMetadataRequest {}).await?;
    let timing = metadata.metadata().get("server-timing").context("a timing")?.to_str()?;
    assert!(timing.contains("upstream;dur=") && timing.contains("transit;dur="), "{timing}");
    assert!(
        client.model_ready(ModelReadyRequest { name: "digits".into(), ..Default::default() }).await?.get_ref().ready
    );
    let ask = |id: &str| ModelInferRequest { model_name: "nothing".into(), id: id.into(), ..Default::default() };
    assert_eq!(client.model_infer(ask("")).await.unwrap_err().code(), Code::InvalidArgument);

    let (say, hear) = mpsc::channel(1);
    say.send(ask("0")).await?;
    let mut answers = timeout(LIMIT, client.model_stream_infer(ReceiverStream::new(hear))).await??.into_inner();
    for turn in 0..5 {
        let answer = timeout(LIMIT, answers.message()).await??.context("an answer")?;
        assert!(!answer.error_message.is_empty());
        assert_eq!(answer.infer_response.context("a response")?.id, turn.to_string());
        say.send(ask(&(turn + 1).to_string())).await?;
    }
    drop(say);
    assert!(timeout(LIMIT, answers.message()).await??.is_some());
    assert!(timeout(LIMIT, answers.message()).await??.is_none(), "it ends in order");

    let mut deadline = house.client(Version::Http2).await?;
    let request = Request::post("/wait").header("content-type", "application/grpc").header("grpc-timeout", "200m");
    let late = deadline.ask(request.body(full(""))?).await?;
    assert_eq!(late.header("grpc-status")?, (Code::DeadlineExceeded as i32).to_string());
    until(|| silent.seen.waiting.load(SeqCst) == 0).await?;
    assert!(house.close().await && origin.drain().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_are_opened_at_the_server_and_closed_with_either_end() -> Result<()> {
    for protocol in BOTH {
        let origin = Origin::open(protocol).await?;
        let house = with(vec![origin.config("chat")]).await?;
        let mut request = "wss://localhost/deep/socket".into_client_request()?;
        request.headers_mut().insert("x-api-key", house.key().parse()?);
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("chat.v1"));
        let (mut socket, response) = client_async(request, house.tls("http/1.1").await?).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat.v1");
        for turn in 0..10 {
            socket.send(Message::text(turn.to_string())).await?;
            assert_eq!(timeout(LIMIT, socket.next()).await?.context("an echo")??.to_text()?, turn.to_string());
        }
        let large = Message::binary(vec![7; 1 << 20]);
        socket.send(large.clone()).await?;
        assert!(timeout(LIMIT, socket.next()).await?.context("an echo")?? == large);
        house.until_busy("box", 1, 0).await?;
        socket.close(None).await?;
        assert!(matches!(timeout(LIMIT, socket.next()).await?, Some(Ok(Message::Close(_)))));
        house.until_busy("box", 0, 0).await?;

        // At the agent itself, and ended by the server's death.
        let local = tokio::net::TcpStream::connect(house.agent("box")?.local_address().context("it listens")?).await?;
        let (mut socket, _) = client_async("ws://localhost/socket", local).await?;
        socket.send(Message::text("here")).await?;
        assert_eq!(timeout(LIMIT, socket.next()).await?.context("an echo")??.to_text()?, "here");
        origin.kill().await;
        assert!(!matches!(timeout(LIMIT, socket.next()).await?, Some(Ok(_))));
        house.until_busy("box", 0, 0).await?;
        assert!(house.close().await);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_sockets_refuses_them_and_one_in_use_does_not_hold_the_agent_up() -> Result<()> {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let deaf = Origin::open_at(UpstreamProtocol::H2c, any, false).await?;
    let deaf = (UpstreamConfig { prefix: "/deaf".into(), ..deaf.config("deaf") }, deaf);
    let origin = Origin::open(UpstreamProtocol::H1).await?;
    let house = with(vec![origin.config("chat"), deaf.0]).await?;
    let open = async |path: &str| {
        let mut request = format!("wss://localhost{path}").into_client_request()?;
        request.headers_mut().insert("x-api-key", house.key().parse().unwrap());
        client_async(request, house.tls("http/1.1").await.unwrap()).await
    };
    for (path, status) in [("/deaf/socket", 501), ("/any", 502)] {
        let Err(Error::Http(refused)) = open(path).await else { panic!("{path} opened") };
        assert_eq!(refused.status().as_u16(), status, "{path}");
    }
    let (mut socket, _) = open("/socket").await?;
    socket.send(Message::text("here")).await?;
    assert!(timeout(LIMIT, socket.next()).await?.context("an echo")?.is_ok());
    // The server hears that nothing more will come, and the client that it has ended.
    let (closed, end) = tokio::join!(house.close(), timeout(LIMIT, socket.next()));
    assert!(closed && !matches!(end?, Some(Ok(_))));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_time_is_a_stage_of_its_own() -> Result<()> {
    let origin = Origin::open(UpstreamProtocol::H1).await?;
    let house = with(vec![origin.config("slow")]).await?;
    let mut client = house.client(Version::Http2).await?;
    for request in [get("/late"), Request::post("/late").body(full(vec![1; 200_000]))?] {
        let timing = client.ask(request).await?.timing()?;
        let there = timing.stage(Stage::Upstream).context("no such stage")?;
        assert!(there >= Duration::from_millis(300) && there <= timing.total(), "{timing:?}");
        let named: Duration = timing.stages().map(|(_, time)| time).sum();
        assert!(named <= timing.total() + Duration::from_millis(1), "{timing:?}");
    }
    house
        .agent_metric("box", "adit_agent_stage_seconds_count{stage=\"upstream\"}")
        .map(|count| assert_eq!(count, 2.0))?;
    assert_eq!(house.relay_metric("adit_relay_stage_seconds_count{stage=\"upstream\"}").await?, 2.0);
    assert!(house.close().await);
    Ok(())
}
