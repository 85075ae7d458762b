//! What a relay's memory is: resident bytes of the program with one tunnel, with a thousand idle ones, with a thousand requests
//! in flight on one, and with hundreds of slow clients on one, beside which a brisk one is timed.
//!
//! `cargo bench -p adit-relay --bench memory` starts the program anew for each row, dials it with agents made of a session and asks as
//! clients do, all over loopback with real TLS and QUIC. It ends with 1 if a bar is missed; with `-- slow` it does the last part alone.
//! It needs some 2,500 open files (`ulimit -n`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "../tests/relay/agent.rs"]
mod agent;
#[path = "../tests/relay/house.rs"]
mod house;

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_certs::{Bundle, Store, Validity, agent_tunnel, agent_tunnel_over_tcp};
use adit_common::manifest::{ModelState, Scope};
use adit_common::tunnel::{
    PathMemory, Role, Session, SessionLimits, TransportOptions, UDP_BUFFER, agent_config, agent_endpoint, bind_udp,
    prepare_tcp,
};
use adit_relay::KeyFile;
use agent::{Agent, Does, manifest, reply};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use house::{Client, INFER, Version, entries, full, get_plain, request, tls};
use http::Method;
use quinn::Endpoint;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, watch};

/// Tunnels, and requests.
const MANY: usize = 1000;

/// Until what was only needed for a moment has been given back: the allocator's delay, and a few keep-alives.
const SETTLE: Duration = Duration::from_secs(5);

/// Dials at one time.
const WIDE: usize = 32;

/// Requests of one connection of HTTP/2.
const SHARED: usize = 250;

/// Slow clients of each kind, and the bytes of what they read.
const SLOW: usize = 200;
const LARGE: usize = 8 << 20;
static ZEROS: [u8; LARGE] = [0; LARGE];

/// Requests by which a brisk client is timed.
const BRISK: usize = 2000;

/// As the bars are set.
const MB: f64 = 1e6;

#[tokio::main]
async fn main() -> ExitCode {
    let certificates = tempfile::tempdir().unwrap();
    let store = Store::new(certificates.path());
    store.init(&["127.0.0.1".parse().unwrap()], Validity::default(), false).unwrap();
    for number in 0..=MANY {
        let id = name(number).parse().unwrap();
        store.issue_agent(&id, Validity::default(), &store.agent_folder(&id)).unwrap();
    }
    let held = std::env::args().any(|argument| argument == "slow") || sizes(&store).await;
    beside_slow_clients(&store).await;
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a row for each bar; true if all are held.
async fn sizes(store: &Store) -> bool {
    println!("| what | relay RSS, MB | bar |\n|---|---|---|");
    let mut held = true;
    let mut row = |what: &str, megabytes: f64, bar: f64| {
        let verdict = if megabytes <= bar { "" } else { ", missed" };
        println!("| {what} | {megabytes:.2} | {bar}{verdict} |");
        held &= megabytes <= bar;
    };
    for over in [Over::Quic, Over::Tcp] {
        let program = Program::start(store).await;
        let (mut agents, endpoint) = (Vec::new(), endpoint());
        agents.push(program.tunnel(store, 0, over, &endpoint, Does::says("ok")).await);
        program.until_tunnels(1).await;
        let one = program.settled().await;
        row(&format!("one tunnel over {over:?}"), one / MB, 15.0);
        let further = stream::iter(1..=MANY)
            .map(|number| program.tunnel(store, number, over, &endpoint, Does::says("ok")))
            .buffer_unordered(WIDE)
            .collect::<Vec<_>>();
        agents.extend(further.await);
        program.until_tunnels(1 + MANY).await;
        let many = program.settled().await;
        row(&format!("each of {MANY} more over {over:?}, idle"), (many - one) / MANY as f64 / MB, 0.1024);
    }
    for over in [Over::Quic, Over::Tcp] {
        for version in [Version::Http1, Version::Http2] {
            let program = Program::start(store).await;
            let (seen, mut arrived) = watch::channel(0);
            let (seen, gate) = (Arc::new(seen), Arc::new(Semaphore::new(0)));
            let opened = gate.clone();
            let does = Does::new(move |request| {
                let (seen, gate) = (seen.clone(), gate.clone());
                async move {
                    let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
                    seen.send_modify(|count| *count += 1);
                    gate.acquire().await.unwrap().forget();
                    reply(body.len().to_string())
                }
            });
            let _agent = program.tunnel(store, 0, over, &endpoint(), does).await;
            program.until_tunnels(1).await;
            let asking = program.ask(version).await;
            arrived.wait_for(|count| *count == MANY).await.unwrap();
            row(
                &format!("{MANY} uploads of 1 KB in flight on one, {over:?}, from {version:?}"),
                program.settled().await / MB,
                60.0,
            );
            opened.add_permits(MANY);
            for asked in asking {
                assert_eq!(asked.await.unwrap(), 200);
            }
        }
    }
    held
}

/// Prints what hundreds of slow clients cost a brisk one, and the relay.
async fn beside_slow_clients(store: &Store) {
    println!(
        "\n| {SLOW} clients that read 1 KB/s and {SLOW} that upload 1 byte/s | brisk client, p50 / p99 ms | relay RSS, MB |\n|---|---|---|"
    );
    for over in [Over::Quic, Over::Tcp] {
        let program = Program::start(store).await;
        let (begun, arrived) = watch::channel(0);
        let does = Does::new(move |request| {
            begun.send_modify(|count| *count += 1);
            async move {
                // Who uploads slowly is cut off at the end of the program.
                let body = http_body_util::BodyExt::collect(request.into_body()).await;
                let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                reply(if body == "large" { Bytes::from_static(&ZEROS) } else { body })
            }
        });
        let _agent = program.tunnel(store, 0, over, &endpoint(), does).await;
        program.until_tunnels(1).await;
        program.brisk().await;
        let (p50, p99) = program.brisk().await;
        println!("| over {over:?}, none of them | {p50:.2} / {p99:.2} | {:.1} |", program.settled().await / MB);
        let slow = program.slow(arrived).await;
        let rss = program.settled().await;
        let (p50, p99) = program.brisk().await;
        println!("| over {over:?}, all of them | {p50:.2} / {p99:.2} | {:.1} |", rss / MB);
        slow.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[derive(Debug, Clone, Copy)]
enum Over {
    Quic,
    Tcp,
}

fn name(number: usize) -> String {
    format!("agent-{number}")
}

/// One socket for all tunnels: they cost the relay the same.
fn endpoint() -> Endpoint {
    agent_endpoint(bind_udp(([127, 0, 0, 1], 0).into(), UDP_BUFFER).unwrap().0).unwrap()
}

/// The relay as a process of its own.
struct Program {
    child: Child,
    https: SocketAddr,
    tunnel: SocketAddr,
    admin: SocketAddr,
    authority: std::path::PathBuf,
    key: String,
    _folder: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    async fn start(store: &Store) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [https, tunnel, admin] = [(); 3].map(|()| free());
        let config = folder.path().join("relay.toml");
        let text = format!(
            "state = \".\"\n[front]\nlisten = \"{https}\"\n[tunnel]\nlisten = \"{tunnel}\"\n[admin]\nlisten = \"{admin}\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let key = KeyFile::new(folder.path().join("keys.toml")).create("bench", &[Scope::Infer]).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_adit-relay"))
            .args(["run", "--config", config.to_str().unwrap(), "--tls-dir", store.relay_folder().to_str().unwrap()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while tokio::net::TcpStream::connect(admin).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let authority = store.relay_folder().join("ca.pem");
        Self { child, https, tunnel, admin, authority, key, _folder: folder }
    }

    /// A tunnel with an agent at its other end.
    async fn tunnel(&self, store: &Store, number: usize, over: Over, endpoint: &Endpoint, does: Does) -> Agent {
        let id = name(number);
        let bundle = Bundle::agent(&store.agent_folder(&id.parse().unwrap()));
        let options = TransportOptions::default();
        let session = match over {
            Over::Quic => {
                let config = agent_config(agent_tunnel(&bundle).unwrap(), &options, &PathMemory::default()).unwrap();
                let connection = endpoint.connect_with(config, self.tunnel, "127.0.0.1").unwrap().await.unwrap();
                Session::new(connection, SessionLimits::default())
            }
            Over::Tcp => {
                let stream = tokio::net::TcpStream::connect(self.tunnel).await.unwrap();
                prepare_tcp(&stream, options.idle_timeout);
                let connector = tokio_rustls::TlsConnector::from(Arc::new(agent_tunnel_over_tcp(&bundle).unwrap()));
                let stream = connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap();
                Session::over_tcp(stream.into(), Role::Agent, &options, SessionLimits::default()).await.unwrap()
            }
        };
        Agent::new((session, 0), manifest(&id, &[("digits", ModelState::Ready)]), does)
    }

    async fn until_tunnels(&self, count: usize) {
        loop {
            let (_, fleet) = get_plain(self.admin, "/fleet").await;
            if entries(&serde_json::from_str(&fleet).unwrap()).count() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Resident bytes once nothing changes any more.
    async fn settled(&self) -> f64 {
        tokio::time::sleep(SETTLE).await;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }

    /// Uploads, each over a connection of its own on HTTP/1.1 and sharing a few on HTTP/2; their statuses are to come.
    async fn ask(&self, version: Version) -> Vec<tokio::task::JoinHandle<u16>> {
        let mut asking = Vec::new();
        while asking.len() < MANY {
            let clients = match Client::connect_by(&self.authority, self.https, version).await {
                Client::Http2(client) => (0..SHARED).map(|_| Client::Http2(client.clone())).collect(),
                client => vec![client],
            };
            for mut client in clients {
                let upload = request(Method::POST, INFER, Some(&self.key), full(vec![b'q'; 1000]));
                asking.push(tokio::spawn(async move { client.start(upload).await.unwrap().status().as_u16() }));
            }
        }
        asking
    }
}

impl Program {
    /// Slow clients, each with a connection of its own; they have begun when this returns.
    async fn slow(&self, mut arrived: watch::Receiver<usize>) -> Vec<tokio::task::JoinHandle<()>> {
        let before = *arrived.borrow();
        let mut slow = Vec::new();
        for number in 0..2 * SLOW {
            let mut stream = tls(&self.authority, self.https, "http/1.1").await;
            let length = if number < SLOW { 5 } else { 1000 };
            let key = &self.key;
            let head =
                format!("POST {INFER} HTTP/1.1\r\nhost: relay\r\nx-api-key: {key}\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            slow.push(tokio::spawn(async move {
                if number < SLOW {
                    stream.write_all(b"large").await.unwrap();
                    while stream.read_exact(&mut [0; 1024]).await.is_ok() {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                while stream.write_all(b"s").await.is_ok() {
                    stream.flush().await.unwrap();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }));
        }
        arrived.wait_for(|count| *count == before + 2 * SLOW).await.unwrap();
        slow
    }

    /// The median and the 99th percentile of a brisk client's delays, in milliseconds.
    async fn brisk(&self) -> (f64, f64) {
        let mut client = Client::connect_by(&self.authority, self.https, Version::Http1).await;
        let mut delays = Vec::new();
        for _ in 0..BRISK {
            let begun = Instant::now();
            let answer = client.ask(request(Method::POST, INFER, Some(&self.key), full("brisk"))).await;
            delays.push(begun.elapsed().as_secs_f64() * 1e3);
            assert_eq!((answer.status, &answer.body[..]), (200, &b"brisk"[..]));
        }
        delays.sort_by(f64::total_cmp);
        (delays[BRISK / 2], delays[BRISK * 99 / 100])
    }
}

fn free() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}
