//! `relay.toml`: every knob with its default and its reason.
//!
//! One section a room, handed to the room's constructor. Nothing here names a room: the sections are plain values.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_common::daemon::LogFormat;
use adit_common::manifest::Scope;
use adit_common::tunnel::{CongestionControl, TransportOptions, UDP_BUFFER};
use serde::{Deserialize, Serialize};

/// Requests that an agent must be able to have at a time: fewer are no relay's traffic, and one of them is its manifest.
const LEAST_STREAMS: u32 = 16;

/// The whole configuration; every key may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of certificates, as `adit-certs init` writes it: relative names below are looked up here.
    pub tls: PathBuf,
    /// The folder of what the relay itself keeps: the keys file and the tunnel's reset key.
    pub state: PathBuf,
    /// How long a stop waits for requests in flight; what is left then is cut.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub drain: Duration,
    /// Threads that carry requests; 0 is one for every two cores: the kernel's part of the work needs the others.
    pub io_threads: u8,
    /// The public HTTPS front.
    pub front: FrontConfig,
    /// Where agents dial in.
    pub tunnel: TunnelConfig,
    /// Who may ask.
    pub auth: AuthConfig,
    /// The walk of a request.
    pub proxy: ProxyConfig,
    /// For operators.
    pub admin: AdminConfig,
    /// The log.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls: "/etc/adit/relay".into(),
            state: "/var/lib/adit-relay".into(),
            drain: Duration::from_secs(30),
            io_threads: 0,
            front: FrontConfig::default(),
            tunnel: TunnelConfig::default(),
            auth: AuthConfig::default(),
            proxy: ProxyConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Config {
    /// The HTTPS front's certificate chain and key.
    pub fn https_files(&self) -> (PathBuf, PathBuf) {
        (self.tls.join(&self.front.certificate), self.tls.join(&self.front.key))
    }

    /// The file of API keys.
    pub fn keys_file(&self) -> PathBuf {
        self.state.join(&self.auth.keys)
    }

    /// The file of the tunnel's stateless-reset key.
    pub fn reset_key_file(&self) -> PathBuf {
        self.state.join(&self.tunnel.reset_key)
    }
}

/// The public HTTPS front: HTTP/1.1 and HTTP/2 by ALPN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FrontConfig {
    /// TCP address; `[::]` takes IPv4 as well.
    pub listen: SocketAddr,
    /// Further addresses, over TLS like the first: ports of other systems, whose clients cannot be given another.
    pub also: Vec<SocketAddr>,
    /// Addresses without TLS, for clients that cannot speak it. Keys and pictures travel in the open there.
    pub plain: Vec<SocketAddr>,
    /// Certificate chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Connections at a time; one more is closed at once. A connection costs some 60 KiB, so 10,000 need 600 MB.
    pub max_connections: usize,
    /// For the TLS handshake: ten round trips on the slowest link, and little for who sends nothing.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub handshake_timeout: Duration,
    /// For a whole request head on HTTP/1, and for an idle HTTP/1 connection's next one: what ends a slow loris.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub head_timeout: Duration,
    /// How long a client may send nothing within a body.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub write_timeout: Duration,
    /// How long an HTTP/2 connection may be open without a request.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub idle_timeout: Duration,
    /// Header fields of a request; more are answered 431. Browsers send some 20.
    pub max_headers: usize,
    /// Bytes of a request's head; more are answered 431.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub max_head: usize,
    /// Bytes of a request's body; more are answered 413. A photo is below 20 MB, a batch of them below this.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub max_body: u64,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv6Addr::UNSPECIFIED, 443).into(),
            also: Vec::new(),
            plain: Vec::new(),
            certificate: "https.pem".into(),
            key: "https.key".into(),
            max_connections: 10_000,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            max_headers: 100,
            max_head: 64 << 10,
            max_body: 64 << 20,
            streams: 250,
        }
    }
}

/// Where agents dial in: QUIC on a UDP port of its own, for whether to ask for a client certificate is decided before the
/// protocol is known; and where UDP is blocked, TLS on TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelConfig {
    /// UDP address; `[::]` takes IPv4 as well.
    pub listen: SocketAddr,
    /// Whether agents may come over TCP too: at the same port, and at the front's, where the protocol's name in the TLS
    /// handshake tells them from clients. Needed by agents behind firewalls that let no UDP out.
    pub tcp: bool,
    /// The stateless-reset key, made at the first start: with it a restarted relay tells agents within a round trip.
    pub reset_key: PathBuf,
    /// For QUIC's handshake, and again for an agent's first manifest.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub handshake_timeout: Duration,
    /// Handshakes at a time; more are refused, and agents try again.
    pub max_handshakes: usize,
    /// An agent that was not heard of for this long is dead.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub idle_timeout: Duration,
    /// Unread bytes of one answer: 512 KiB carries 80 Mbit/s over 50 ms. A client that reads slowly holds so many.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub stream_window: u32,
    /// Unread bytes of all answers of one agent: a bound on memory. An agent is asked for as many answers at a time as have room
    /// in it, 1,024, so that clients that read slowly stop nobody else.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub session_window: u32,
    /// Bytes kept for retransmission to one agent: a bound on memory, and twice what 1 Gbit/s over 50 ms has under way.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub send_window: u32,
    /// What to ask of the kernel for each UDP buffer: 50 ms of 1 Gbit/s.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub udp_buffer: usize,
    /// Hand the kernel several packets at a time; some virtual network cards lose them.
    pub segmentation_offload: bool,
    /// Where a path loses packets at random, parity goes with what is sent there, by which the other end repairs a loss without waiting
    /// for it to be sent again: 3 to 10 % more of large messages, twice as much of those of one packet; nothing on other paths. Both ends
    /// must want it.
    pub parity: bool,
    /// What decides how much may be under way: `adaptive`, our own, which random loss does not slow down; `cubic` or `new-reno`.
    pub congestion: CongestionControl,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        let transport = TransportOptions::default();
        Self {
            listen: (Ipv6Addr::UNSPECIFIED, 4433).into(),
            tcp: true,
            reset_key: "reset.key".into(),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1000,
            idle_timeout: transport.idle_timeout,
            stream_window: 512 << 10,
            session_window: 512 << 20,
            send_window: transport.send_window,
            udp_buffer: UDP_BUFFER,
            segmentation_offload: transport.segmentation_offload,
            parity: transport.parity,
            congestion: transport.congestion,
        }
    }
}

impl TunnelConfig {
    /// QUIC's settings.
    pub fn transport(&self) -> TransportOptions {
        TransportOptions {
            idle_timeout: self.idle_timeout,
            stream_window: self.stream_window,
            streams: self.session_window.checked_div(self.stream_window).unwrap_or(0),
            send_window: self.send_window,
            segmentation_offload: self.segmentation_offload,
            parity: self.parity,
            congestion: self.congestion,
            ..TransportOptions::default()
        }
    }
}

/// Who may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The file that `adit-relay key new` writes; it is read again when it changes.
    pub keys: PathBuf,
    /// What may be done without a key, such as `["infer"]`; nothing, unless this says so.
    pub anonymous: Vec<Scope>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { keys: "keys.toml".into(), anonymous: Vec::new() }
    }
}

/// The walk of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// From a request's head to its answer's head, upload included; then 504, or 408 if the client is still sending.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub timeout: Duration,
    /// Requests at a time, over all clients; one more is answered 503. Each may hold a stream window on both sides.
    pub max_requests: usize,
    /// How often a request that no agent can have worked on, or that changes nothing, is sent again.
    pub retries: u32,
    /// How long after an agent was lost, or the relay started, a request that nobody else can answer waits for agents to dial in:
    /// twice what they need to notice. Nobody waits for an agent that was lost because it had been silent. `0s`: not at all.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub agent_wait: Duration,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), max_requests: 4096, retries: 2, agent_wait: Duration::from_secs(2) }
    }
}

/// For operators: plain HTTP without keys, so on loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// TCP address of `/healthz`, `/readyz`, `/metrics` and `/fleet`.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 9901).into() }
    }
}

/// The log, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
    /// What is logged; `info,adit_relay::access=off` leaves out the line of each request.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

impl Config {
    /// Looks for what no single key shows, and says what to do about it.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("drain", self.drain),
            ("front.handshake_timeout", self.front.handshake_timeout),
            ("front.head_timeout", self.front.head_timeout),
            ("front.body_timeout", self.front.body_timeout),
            ("front.write_timeout", self.front.write_timeout),
            ("front.idle_timeout", self.front.idle_timeout),
            ("tunnel.handshake_timeout", self.tunnel.handshake_timeout),
            ("tunnel.idle_timeout", self.tunnel.idle_timeout),
            ("proxy.timeout", self.proxy.timeout),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, time)| time.is_zero()) {
            return Err(format!("{key} is zero, so nothing would ever be in time"));
        }
        // hyper's HTTP/1 buffer is no smaller than this, and an HTTP/2 head is held to a list below 1 MiB.
        if !(8 << 10..=512 << 10).contains(&self.front.max_head) {
            return Err("front.max_head must be from 8KiB to 512KiB".into());
        }
        if self.tunnel.transport().streams < LEAST_STREAMS {
            return Err(format!("tunnel.session_window must be at least {LEAST_STREAMS} times tunnel.stream_window"));
        }
        let counts = [
            ("front.max_connections", self.front.max_connections),
            ("front.max_headers", self.front.max_headers),
            ("front.streams", self.front.streams as usize),
            ("tunnel.max_handshakes", self.tunnel.max_handshakes),
            ("proxy.max_requests", self.proxy.max_requests),
        ];
        match counts.iter().find(|(_, count)| !(1..=1_000_000).contains(count)) {
            Some((key, _)) => Err(format!("{key} must be from 1 to 1000000")),
            None => Ok(()),
        }
    }

    /// Puts relative folders of a configuration file under the file's own folder.
    pub fn relative_to(&mut self, folder: &Path) {
        self.tls = folder.join(&self.tls);
        self.state = folder.join(&self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../relay.toml");

    #[test]
    fn the_file_lists_every_key_with_its_default() {
        let read: Config = adit_common::daemon::parse("relay.toml", FILE).unwrap();
        assert_eq!(read, Config::default());
        let listed: toml::Table = FILE.parse().unwrap();
        assert_eq!(listed, toml::Table::try_from(Config::default()).unwrap());
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_the_right_one() {
        let error = adit_common::daemon::parse::<Config>("relay.toml", "[front]\nmax_bodi = \"1MiB\"").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("relay.toml:2") && text.contains("max_body"), "{text}");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(Config::default().check(), Ok(()));
        let mut config = Config::default();
        config.proxy.timeout = Duration::ZERO;
        assert!(config.check().unwrap_err().contains("proxy.timeout"));
        let mut config = Config::default();
        config.front.max_head = 4 << 20;
        assert!(config.check().unwrap_err().contains("front.max_head"));
        for windows in [(0, 1 << 20), (1 << 20, 1 << 20)] {
            let mut config = Config::default();
            (config.tunnel.stream_window, config.tunnel.session_window) = windows;
            assert!(config.check().unwrap_err().contains("tunnel.session_window"));
        }
    }
}
