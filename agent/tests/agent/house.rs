//! An agent in this process with models of a test's own, and a client to ask it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use adit_agent::Agent;
use adit_agent::config::Config;
use adit_common::manifest::Load;
use adit_common::timing::Timing;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far above what anything here takes, also on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct House {
    pub(crate) agent: Agent,
    pub(crate) models: TempDir,
}

/// A stand-in's `model.toml` with these times, and one worker: so a test knows who is run and who waits.
pub(crate) fn stand_in(decode: &str, prepare: &str, forward: &str) -> String {
    format!(
        "architecture = \"stand_in\"\n[stand_in]\ndecode = \"{decode}\"\nprepare = \"{prepare}\"\nforward = \"{forward}\"\n\
         [batching]\ninstances = 1\n"
    )
}

/// A folder of models, each by the text of its `model.toml`.
pub(crate) fn folder(models: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, spec) in models {
        std::fs::create_dir(root.path().join(name)).unwrap();
        std::fs::write(root.path().join(name).join("model.toml"), spec).unwrap();
    }
    root
}

impl House {
    /// An agent with these models and the built-in one, on a local listener.
    pub(crate) async fn new(models: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Self {
        let models = folder(models);
        let mut config = config(models.path());
        config.local.listen = Some("127.0.0.1:0".parse().unwrap());
        config.admin.listen = Some("127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let agent = Agent::start(config).await.unwrap();
        timeout(LIMIT, agent.settled()).await.unwrap();
        Self { agent, models }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.agent.local_address().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        ask(self.address(), Request::get(path).body(Bytes::new()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        ask(self.address(), Request::post(path).body(body.into()).unwrap()).await
    }

    /// One of the metrics, written with its labels if it has any.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = ask(self.agent.admin_address().unwrap(), Request::get("/metrics").body(Bytes::new()).unwrap()).await;
        let text = String::from_utf8(text.body.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// Waits until so many forward passes have begun.
    pub(crate) async fn begun(&self, passes: u64) {
        let begun = async {
            while self.agent.metrics().begun.get() < passes {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, begun).await.expect("a pass in time");
    }

    /// Waits until the load is such.
    pub(crate) async fn load(&self, wanted: impl FnMut(&Load) -> bool) {
        timeout(LIMIT, self.agent.metrics().load().wait_for(wanted)).await.expect("the load in time").unwrap();
    }
}

pub(crate) fn config(models: &Path) -> Config {
    let mut config = Config::default();
    config.serving.models = Some(models.to_owned());
    config.serving.embedded = Some(true);
    config.drain_timeout = LIMIT;
    config
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The text of an error, which every refusal must have.
    pub(crate) fn error(&self) -> String {
        assert!(self.status.is_client_error() || self.status.is_server_error(), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }

    pub(crate) fn timing(&self) -> Timing {
        Timing::parse(self.headers["server-timing"].to_str().unwrap()).unwrap()
    }
}

/// Asks over a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: Request<Bytes>) -> Answer {
    timeout(LIMIT, start(address, request)).await.expect("an answer in time").unwrap()
}

/// Asks in a task; aborting it is a client that hangs up.
pub(crate) fn start(address: SocketAddr, request: Request<Bytes>) -> JoinHandle<Answer> {
    tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let (mut head, body) = request.into_parts();
        head.headers.entry("host").or_insert("agent.test".parse().unwrap());
        let exchange = async {
            let (head, body) =
                sender.send_request(Request::from_parts(head, Full::new(body))).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer { status: head.status, headers: head.headers, body }
        };
        let mut exchange = std::pin::pin!(exchange);
        // In one task, so that aborting it closes the connection.
        tokio::select! {
            answer = &mut exchange => answer,
            _ = connection => exchange.await,
        }
    })
}

/// A handwritten one, ink on paper, as a BMP file of 40 x 40 pixels.
pub(crate) fn one() -> Vec<u8> {
    let side = 40_usize;
    let size = 54 + side * side * 3;
    let mut file = b"BM".to_vec();
    for number in [size as u32, 0, 54, 40, side as u32, side as u32, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    for y in 0..side {
        for x in 0..side {
            // A stroke of three pixels, leaning a little as a hand makes it. Rows of a BMP go upwards.
            let middle = 17 + y / 8;
            let ink = (6..34).contains(&y) && (middle..middle + 3).contains(&x);
            file.extend_from_slice(&[if ink { 20 } else { 235 }; 3]);
        }
    }
    file
}

/// Text of a JSON request for one image.
pub(crate) fn json_image(image: &[u8], rest: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(image);
    let mut out = String::new();
    write!(out, r#"{{"inputs":[{{"name":"image","datatype":"BYTES","shape":[1,1],"data":["{text}"]}}]{rest}}}"#)
        .unwrap();
    out
}
