//! The agent's end of real tunnels, with a relay's end made of the protocol alone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_agent::Agent;
use adit_agent::config::{Config, RelayConfig};
use adit_certs::{Bundle, Store, Validity, relay_tunnel, reset_key};
use adit_common::id::AgentId;
use adit_common::manifest::{MANIFEST_PATH, Manifest, ModelState, Report};
use adit_common::timing::Timing;
use adit_common::tunnel::{
    RelayTransport, ResetCode, Session, SessionLimits, TransportOptions, TunnelBody, UDP_BUFFER, bind_udp,
    relay_endpoint,
};
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::house::{LIMIT, config, folder, json_image, one, stand_in};

/// An authority, and a relay's end on some port.
struct Relay {
    folder: TempDir,
    endpoint: quinn::Endpoint,
    address: SocketAddr,
}

fn authority() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    store.init(&["relay.test".parse().unwrap()], Validity::default(), false).unwrap();
    let agent = AgentId::new("shop-7").unwrap();
    store.issue_agent(&agent, Validity::default(), &store.agent_folder(&agent)).unwrap();
    (folder, store)
}

fn listen(folder: &TempDir, address: SocketAddr) -> quinn::Endpoint {
    let store = Store::new(folder.path());
    let tls = relay_tunnel(&Bundle::relay(&store.relay_folder())).unwrap();
    let (socket, _) = bind_udp(address, UDP_BUFFER).unwrap();
    let key = reset_key(&folder.path().join("reset.key")).unwrap();
    let transport = RelayTransport::new(tls, TransportOptions::default()).unwrap();
    relay_endpoint(socket, &transport, &key).unwrap()
}

impl Relay {
    fn new() -> Self {
        let (folder, _) = authority();
        let endpoint = listen(&folder, "127.0.0.1:0".parse().unwrap());
        let address = endpoint.local_addr().unwrap();
        Self { folder, endpoint, address }
    }

    fn config(&self, models: &TempDir) -> Config {
        let mut config = config(models.path());
        config.tls_dir = Some(Store::new(self.folder.path()).agent_folder(&AgentId::new("shop-7").unwrap()));
        config.relays =
            vec![RelayConfig { name: Some("relay.test".into()), ..RelayConfig::new(self.address.to_string()) }];
        config
    }

    /// The next tunnel that is dialled.
    async fn accept(&self) -> Session {
        let connection = timeout(LIMIT, async { self.endpoint.accept().await.unwrap().await.unwrap() }).await.unwrap();
        let session = Session::new(connection, SessionLimits::default());
        let running = session.clone();
        tokio::spawn(async move { running.run().await });
        session
    }
}

async fn ask(session: &Session, request: Request<Bytes>) -> Response<TunnelBody> {
    let answer = session.open().unwrap().send(request.map(Full::new));
    timeout(LIMIT, answer).await.expect("an answer in time").unwrap().response
}

fn get(path: &str) -> Request<Bytes> {
    Request::get(format!("https://relay.test{path}")).body(Bytes::new()).unwrap()
}

fn infer(model: &str) -> Request<Bytes> {
    let builder = Request::post(format!("https://relay.test/v2/models/{model}/infer"));
    builder.header("content-type", "image/bmp").body(one().into()).unwrap()
}

/// The lines of a manifest's answer.
struct Reports {
    body: TunnelBody,
    buffer: BytesMut,
}

impl Reports {
    async fn of(session: &Session) -> Self {
        let response = ask(session, get(MANIFEST_PATH)).await;
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { body: response.into_body(), buffer: BytesMut::new() }
    }

    async fn next(&mut self) -> Report {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return serde_json::from_slice(&self.buffer.split_to(end + 1)).unwrap();
            }
            let frame = timeout(LIMIT, self.body.frame()).await.expect("a line in time").expect("no end").unwrap();
            self.buffer.extend_from_slice(&frame.into_data().unwrap());
        }
    }

    async fn manifest(&mut self, wanted: impl Fn(&Manifest) -> bool) -> Manifest {
        loop {
            if let Report::Manifest(manifest) = self.next().await
                && wanted(&manifest)
            {
                return manifest;
            }
        }
    }
}

fn settled(manifest: &Manifest) -> bool {
    manifest.models.iter().all(|model| model.state != ModelState::Loading)
}

#[tokio::test]
async fn a_relay_learns_of_the_agent_and_asks_it() {
    let (relay, models) = (Relay::new(), folder(&[("broken", "architecture = \"lenet\"\n")]));
    let agent = Agent::start(relay.config(&models)).await.unwrap();
    let session = relay.accept().await;
    let mut reports = Reports::of(&session).await;
    let manifest = reports.manifest(settled).await;
    assert_eq!((manifest.agent.as_str(), manifest.draining), ("shop-7", false));
    assert_eq!((&manifest.devices[..], manifest.capacity), (&["cpu".to_owned()][..], 257));
    let states: Vec<_> = manifest.models.iter().map(|model| (model.name.as_str(), model.state)).collect();
    assert_eq!(states, [("broken", ModelState::Unavailable), ("digits", ModelState::Ready)]);
    assert!(manifest.models[0].reason.contains("[preprocess] is missing"));
    assert_eq!(agent.metrics().sessions(), 1);

    // Whatever the manifest offers is there. Unloading comes before loading in it.
    for endpoint in &manifest.endpoints {
        let path = endpoint.path.replace("{model}", "digits").replace("{version}", "1");
        let path = path.replace("{file}", "swagger-ui.css");
        let request = Request::builder().method(&*endpoint.method).uri(format!("https://relay.test{path}"));
        let status = ask(&session, request.body(Bytes::new()).unwrap()).await.status();
        assert!(![StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status), "{endpoint:?}: {status}");
    }

    let mut request = infer("digits");
    *request.body_mut() = json_image(&one(), "").into();
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    request.headers_mut().insert("x-request-id", "r-1".parse().unwrap());
    let response = ask(&session, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-request-id"], "r-1");
    let timing = Timing::parse(response.headers()[Timing::HEADER].to_str().unwrap()).unwrap();
    assert!(timing.total() > Duration::ZERO && timing.receive().is_some());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(std::str::from_utf8(&body).unwrap().contains(r#""model_name":"digits""#), "{body:?}");

    // The relay says who the client is.
    let mut request = get("/");
    request.headers_mut().insert("forwarded", "for=\"[2001:db8::9]:4711\";proto=https".parse().unwrap());
    let text = ask(&session, request).await.into_body().collect().await.unwrap().to_bytes();
    assert!(text.starts_with(b"Request:2001:db8::9,4711; HOST:relay.test; Hostname:"), "{text:?}");
}

#[tokio::test]
async fn a_cancelled_exchange_stops_the_network() {
    let (relay, models) = (Relay::new(), folder(&[("endless", &stand_in("0ms", "0ms", "1h"))]));
    let agent = Agent::start(relay.config(&models)).await.unwrap();
    let session = relay.accept().await;
    agent.settled().await;
    let mut load = agent.metrics().load();
    let asked = tokio::spawn({
        let session = session.clone();
        async move { session.open().unwrap().send(infer("endless").map(Full::new)).await.map(drop) }
    });
    // A report tells of it, as the relay balances by that.
    let mut reports = Reports::of(&session).await;
    loop {
        if let Report::Load(load) = reports.next().await
            && load.in_flight == 1
            && load.queued == 0
        {
            break;
        }
    }
    asked.abort();
    timeout(LIMIT, load.wait_for(|load| load.in_flight == 0)).await.expect("freed in time").unwrap();
    let metrics = agent.metrics();
    assert_eq!(metrics.cancelled_running.get() + metrics.cancelled_queued.get(), 1);
    assert_eq!(metrics.forwards.get(), 0);
}

#[tokio::test]
async fn a_draining_agent_loses_no_request() {
    let (relay, models) = (Relay::new(), folder(&[("slow", &stand_in("0ms", "0ms", "300ms"))]));
    let agent = Agent::start(relay.config(&models)).await.unwrap();
    let session = relay.accept().await;
    let mut reports = Reports::of(&session).await;
    reports.manifest(settled).await;
    let asked = tokio::spawn({
        let session = session.clone();
        async move { ask(&session, infer("slow")).await.status() }
    });
    timeout(LIMIT, agent.metrics().load().wait_for(|load| load.in_flight == 1)).await.unwrap().unwrap();
    let drained = tokio::spawn(agent.drain());
    assert!(reports.manifest(|manifest| manifest.draining).await.draining);
    // Asked before the relay had read that: it is answered all the same.
    assert_eq!(ask(&session, infer("slow")).await.status(), StatusCode::OK);
    assert_eq!(asked.await.unwrap(), StatusCode::OK);
    assert!(!drained.is_finished(), "it waits until the relay has its last answer");
    session.close(ResetCode::NO_ERROR, "drained");
    assert!(timeout(LIMIT, drained).await.unwrap().unwrap(), "in time");
}

#[tokio::test]
async fn a_relay_that_leaves_is_dialled_anew_and_the_old_tunnel_is_served_on() {
    let (relay, models) = (Relay::new(), folder(&[]));
    let agent = Agent::start(relay.config(&models)).await.unwrap();
    agent.settled().await;
    let old = relay.accept().await;
    old.goaway();
    let new = relay.accept().await;
    for session in [&old, &new] {
        assert_eq!(ask(session, infer("digits")).await.status(), StatusCode::OK);
    }
    assert_eq!(agent.metrics().sessions(), 2);
    old.close(ResetCode::NO_ERROR, "left");
    timeout(LIMIT, async {
        while agent.metrics().sessions() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(ask(&new, infer("digits")).await.status(), StatusCode::OK);
}

/// Kills the relay under an agent, lets `change` do something to its files, starts it again after `pause`, and gives the
/// agent's metrics once it has answered, in less than two seconds.
fn killed(pause: Duration, change: impl FnOnce(&TempDir)) -> String {
    let (relays_life, agents_life) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let models = folder(&[]);
    let relay = relays_life.block_on(async { Relay::new() });
    let mut config = relay.config(&models);
    // An agent under load would send at once; this one is idle.
    config.tunnel.keep_alive = Duration::from_millis(200);
    let agent = agents_life.block_on(Agent::start(config)).unwrap();
    agents_life.block_on(agent.settled());
    let session = relays_life.block_on(relay.accept());
    // A killed process says nothing: its tasks end where they are, and its socket is closed.
    relays_life.shutdown_timeout(LIMIT);
    let Relay { folder, endpoint, address } = relay;
    drop((session, endpoint));
    change(&folder);

    agents_life.block_on(async {
        tokio::time::sleep(pause).await;
        let up = Instant::now();
        let relay = Relay { endpoint: listen(&folder, address), folder, address };
        let session = relay.accept().await;
        assert_eq!(ask(&session, infer("digits")).await.status(), StatusCode::OK);
        assert!(up.elapsed() < Duration::from_secs(2), "{:?}", up.elapsed());
        agent.metrics().render()
    })
}

#[test]
fn a_restarted_relay_tells_the_agent_that_its_session_is_gone() {
    let metrics = killed(Duration::ZERO, |_| {});
    assert!(metrics.contains("outcome=\"reset\"} 1"), "{metrics}");
}

#[test]
fn a_relay_that_was_silent_for_long_is_found_as_soon_as_it_is_back() {
    // Without its key it cannot tell, and the agent's idle time-out is ten seconds.
    let metrics =
        killed(Duration::from_secs(3), |folder| std::fs::remove_file(folder.path().join("reset.key")).unwrap());
    assert!(!metrics.contains("outcome=\"reset\""), "{metrics}");
    assert!(metrics.contains("outcome=\"connected\"} 2"), "{metrics}");
}

#[tokio::test]
async fn why_there_is_no_tunnel_is_told_in_the_metrics() {
    let models = folder(&[]);
    let outcome = async |relay: &Relay, change: &dyn Fn(&mut Config), wanted: &str| {
        let mut config = relay.config(&models);
        change(&mut config);
        let agent = Agent::start(config).await.unwrap();
        let accept = async {
            while let Some(incoming) = relay.endpoint.accept().await {
                let _ = incoming.await;
            }
        };
        let told = async {
            loop {
                let text = agent.metrics().render();
                if text.contains(&format!("outcome=\"{wanted}\"")) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            told = timeout(LIMIT, told) => told.unwrap_or_else(|_| panic!("{wanted}: {}", agent.metrics().render())),
            () = accept => panic!("the relay's end closed"),
        }
        assert_eq!(agent.metrics().sessions(), 0);
    };
    let relay = Relay::new();
    let (stranger, store) = authority();
    let strange = store.agent_folder(&AgentId::new("shop-7").unwrap());
    // The agent trusts another authority than the relay's.
    outcome(&relay, &|config| config.tls_dir = Some(strange.clone()), "untrusted").await;
    // The relay trusts another authority than the agent's.
    let own = relay.config(&models).tls_dir.unwrap();
    std::fs::copy(own.join("ca.pem"), strange.join("ca.pem")).unwrap();
    outcome(&relay, &|config| config.tls_dir = Some(strange.clone()), "rejected").await;
    outcome(&relay, &|config| config.relays[0].name = Some("other.test".into()), "name").await;
    outcome(&relay, &|config| config.relays[0].address = "nowhere.invalid:1".into(), "unresolved").await;
    drop(stranger);
}

#[tokio::test]
async fn an_agent_that_could_not_serve_does_not_start() {
    let (relay, models) = (Relay::new(), folder(&[]));
    let fails = async |change: &dyn Fn(&mut Config)| {
        let mut config = relay.config(&models);
        change(&mut config);
        Agent::start(config).await.unwrap_err().to_string()
    };
    assert!(fails(&|config| config.tls_dir = None).await.contains("--tls-dir"));
    assert!(fails(&|config| config.tls_dir = Some("/nowhere".into())).await.contains("identity"));
    assert!(fails(&|config| config.relays.clear()).await.contains("nobody to serve"));
    assert!(fails(&|config| config.serving.models = Some("/nowhere".into())).await.contains("/nowhere"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    assert!(fails(&|config| config.local.listen = Some(address)).await.contains(&address.to_string()));
}
