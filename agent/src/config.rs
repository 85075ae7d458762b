//! `agent.toml`: every knob, its default and its reason. Imports no room.
//!
//! `agent/agent.toml` lists the same keys for whoever installs an agent; a test holds the two together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use adit_common::daemon::LogFormat;
use adit_common::id::{ModelName, UpstreamName};
use adit_common::manifest::Scope;
use adit_common::tunnel::CongestionControl;
use adit_vision::DeviceChoice;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a stopping agent waits for what it has accepted. 30 s: longer than any sensible request, shorter than
    /// systemd's 90 s before it kills.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub drain_timeout: Duration,
    /// Threads that carry requests; 0 is one for every four cores. Decoding and networks have threads of their own, and need the cores.
    pub io_threads: u8,
    /// The folder with `agent.pem`, `agent.key` and `ca.pem`, as `adit-certs issue agent` writes it. No default: without
    /// an identity there is no tunnel. Not needed by an agent without relays.
    pub tls_dir: Option<PathBuf>,
    /// The relays to dial, one tunnel each. None is only of use with `[local] listen`.
    #[serde(rename = "relay")]
    pub relays: Vec<RelayConfig>,
    /// The servers that it carries requests to, each for a host or for what is below a path.
    #[serde(rename = "upstream")]
    pub upstreams: Vec<UpstreamConfig>,
    /// How the tunnels are carried.
    pub tunnel: TunnelConfig,
    /// The optional plain-HTTP listener for clients on the same network.
    pub local: LocalConfig,
    /// The optional listener for health and metrics.
    pub admin: AdminConfig,
    /// What requests may look like.
    pub api: ApiConfig,
    /// Models and how they are run.
    pub serving: ServingConfig,
    /// The log, to standard error.
    pub log: LogConfig,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Where its tunnel port is, as `host:port`. The name is resolved anew at each dial, and all its addresses are tried.
    pub address: String,
    /// The name that its certificate must carry; the host of `address` unless given. Needed where the relay is dialled by
    /// another name or address than its certificate's.
    #[serde(default)]
    pub name: Option<String>,
    /// What the tunnel travels over. `auto`: QUIC where UDP gets through, else TLS on TCP until it does. `quic` and `tcp` allow
    /// no other.
    #[serde(default)]
    pub transport: TransportChoice,
    /// Where it is dialled over TCP, as `host:port`. Unless given, `address` is tried, and port 443 of its host, which
    /// firewalls let out.
    #[serde(default)]
    pub tcp_address: Option<String>,
}

/// What a tunnel may travel over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportChoice {
    /// QUIC where UDP gets through, else TCP.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// TCP alone.
    Tcp,
}

/// The port that every firewall lets out.
const HTTPS: u16 = 443;

impl RelayConfig {
    /// A relay at this address, all else as by default.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), name: None, transport: TransportChoice::Auto, tcp_address: None }
    }

    /// Where it is dialled over TCP, the likeliest first.
    pub fn tcp_addresses(&self) -> Vec<String> {
        if let Some(given) = &self.tcp_address {
            return vec![given.clone()];
        }
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let mut addresses = vec![self.address.clone(), format!("{host}:{HTTPS}")];
        addresses.dedup();
        addresses
    }

    /// The name that the relay's certificate must carry.
    pub fn server_name(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None => {
                let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
                // An IPv6 address is written in brackets before a port, and without them in a certificate.
                host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
            }
        }
    }
}

/// One server behind the agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// What it is called in errors, logs and metrics.
    pub name: UpstreamName,
    /// Where it is, as `http://host:port`. Plain HTTP: it is on this machine, or on a network that is trusted like it.
    pub url: String,
    /// The host that its requests are for, such as `triton.example.org`: it then takes all of them. Unless given, it takes what no
    /// endpoint of an agent's own does, and what asks a model that no agent knows.
    #[serde(default)]
    pub host: Option<String>,
    /// What the paths of its requests begin with. `/`: all of them.
    #[serde(default = "root")]
    pub prefix: String,
    /// How it is spoken to. HTTP/1.1 unless given: nearly every server speaks it. gRPC needs `h2c`.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// What it is asked by GET to see whether it is well: any answer of 2xx says so. Unless given, that it can be connected to does.
    #[serde(default)]
    pub health: Option<String>,
    /// How often it is looked at. 5 s: it is asked for nothing more after two failures, ten seconds at the most; and a connection that
    /// is refused is looked into at once. While it fails it is looked at five times as often.
    #[serde(default = "interval", with = "adit_common::daemon::humane_duration")]
    pub interval: Duration,
    /// How long such a look may take. 2 s: what is slower is of no use to anybody who waits.
    #[serde(default = "check_timeout", with = "adit_common::daemon::humane_duration")]
    pub check_timeout: Duration,
    /// How long connecting to it may take. 2 s: on a local network it takes less than 2 ms, or one lost packet.
    #[serde(default = "connect_timeout", with = "adit_common::daemon::humane_duration")]
    pub connect_timeout: Duration,
    /// From a request's head to the head of its answer; then 504. 1 min: the relay's own limit is 30 s, this one is for the local
    /// listener and for relays that are more patient. What has been answered may stream for ever.
    #[serde(default = "timeout", with = "adit_common::daemon::humane_duration")]
    pub timeout: Duration,
    /// Requests, sockets included, that are under way there at a time; one more is answered 503. Over HTTP/1.1 each has a connection.
    /// 256: half of what a tunnel carries.
    #[serde(default = "max_requests")]
    pub max_requests: usize,
    /// What a key must be allowed for: `infer`, or `control`.
    #[serde(default = "infer")]
    pub scope: Scope,
    /// What the server is told in `host`. Unless given, what the client said, as if there were nothing in between.
    #[serde(default)]
    pub send_host: Option<String>,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 without TLS, known to be spoken.
    H2c,
}

fn root() -> String {
    "/".to_owned()
}

const fn interval() -> Duration {
    Duration::from_secs(5)
}

const fn check_timeout() -> Duration {
    Duration::from_secs(2)
}

const fn connect_timeout() -> Duration {
    Duration::from_secs(2)
}

const fn timeout() -> Duration {
    Duration::from_secs(60)
}

const fn max_requests() -> usize {
    256
}

const fn infer() -> Scope {
    Scope::Infer
}

impl UpstreamConfig {
    /// A server with every default.
    pub fn new(name: UpstreamName, url: impl Into<String>) -> Self {
        Self {
            name,
            url: url.into(),
            host: None,
            prefix: root(),
            protocol: UpstreamProtocol::H1,
            health: None,
            interval: interval(),
            check_timeout: check_timeout(),
            connect_timeout: connect_timeout(),
            timeout: timeout(),
            max_requests: max_requests(),
            scope: infer(),
            send_host: None,
        }
    }
}

impl Config {
    /// Whether the digits model that is part of the program is served.
    pub fn serves_embedded(&self) -> bool {
        self.serving.embedded.unwrap_or(self.serving.models.is_none() && self.upstreams.is_empty())
    }

    /// Whether the agent has an API of its own: one that has nothing but servers to carry requests to leaves all paths to them.
    pub fn serves_models(&self) -> bool {
        self.serving.models.is_some() || self.serves_embedded() || self.upstreams.is_empty()
    }
}

/// `[tunnel]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelConfig {
    /// What to ask of the kernel for each UDP buffer: some 50 ms of 1 Gbit/s. What it gave is logged and in the metrics;
    /// `net.core.rmem_max` and `net.core.wmem_max` bound it.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub udp_buffer: usize,
    /// A relay that was not heard of for this long is dead.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub idle_timeout: Duration,
    /// How often to say something when there is nothing to say: below every NAT's timer for UDP, and so often that an idle
    /// agent finds out within a second that its relay was started anew. Some 60 bytes each.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub keep_alive: Duration,
    /// Requests that a relay may have open on a tunnel. Generous: a slow upload holds one without any work being done.
    pub streams: u32,
    /// Hand the kernel several packets at a time. Switch it off where a virtual network card loses them.
    pub segmentation_offload: bool,
    /// Where a path loses packets at random, parity goes with what is sent there, by which the other end repairs a loss without waiting
    /// for it to be sent again: 3 to 10 % more of large messages, twice as much of those of one packet; nothing on other paths. Both ends
    /// must want it.
    pub parity: bool,
    /// What decides how much may be under way: `adaptive`, our own, which random loss does not slow down; `cubic` or `new-reno`.
    pub congestion: CongestionControl,
}

/// `[local]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalConfig {
    /// Where to listen, such as `127.0.0.1:8080`. Off by default: an agent needs no listener, and this one asks nobody for a
    /// key. Open it to a network only where everybody may use the models.
    pub listen: Option<SocketAddr>,
    /// Further addresses, such as the ports of other systems, whose clients cannot be given another.
    pub also: Vec<SocketAddr>,
    /// Whether models may be loaded and unloaded there. Off by default: through a relay it takes a key that is allowed to, and
    /// here nobody is asked for one.
    pub control: bool,
}

/// `[admin]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where to serve `/healthz` and `/metrics`, such as `127.0.0.1:9902`. Off by default: an agent needs no listener.
    pub listen: Option<SocketAddr>,
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// The longest request body; a longer one is answered with 413. 64 MiB: a dozen large photographs.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub max_body: usize,
    /// What all bodies together may hold at one time; beyond it requests are refused with 503. Bounds memory against many
    /// large uploads at once.
    #[serde(with = "adit_common::daemon::humane_bytes")]
    pub max_bodies: usize,
    /// The largest picture, in pixels: 50 million is what common cameras and telephones store by default.
    pub max_pixels: u64,
}

/// `[serving]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServingConfig {
    /// The folder of models: `<models>/<model>/model.toml` and `<models>/<model>/<version>/model.safetensors`. Without one,
    /// the agent serves the digits model that is part of the program.
    pub models: Option<PathBuf>,
    /// What networks compute on: `auto` is the first GPU where one works and the processor otherwise, `cpu`, or `cuda:N`, without
    /// which the agent does not start. GPUs need a program that was built for them, see docs/cuda.md.
    pub device: DeviceChoice,
    /// How often the folder is looked at for new versions and changed descriptions; 0 is only when a model is loaded on request.
    /// 1 s: nobody waits longer for a version, and a look at a hundred models takes milliseconds.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub watch: Duration,
    /// What the weights of all loaded models may take in memory together. Beyond it, models that nobody asks are put to sleep,
    /// the least recently used first, and loaded again when they are asked. No default: all stay loaded.
    #[serde(default, with = "adit_common::daemon::humane_bytes")]
    pub memory: Option<u64>,
    /// Whether to serve the built-in digits model; unless given, only where neither a folder of models nor an upstream is.
    pub embedded: Option<bool>,
    /// The model that answers `POST /photo`, which names none; unless given, the first classifier by name
    /// that is ready.
    pub default_model: Option<ModelName>,
    /// The detector that answers where boxes are asked for and no model is named; unless given, the first by name that is ready and
    /// tells more kinds of things than one.
    pub default_detector: Option<ModelName>,
    /// Images that may wait for a model; a request beyond it is refused with 503. A burst of 200 clients fits, and at some
    /// 600 kB each they hold 150 MB. Whoever does not want to wait that long gives a deadline.
    pub queue: usize,
    /// Images in one request. Each becomes a tensor of some 600 kB.
    pub max_images: usize,
    /// Images that are decoded or prepared at one time; 0 is one a core.
    pub decoders: usize,
    /// A forward pass that shows no progress for this long is stuck: who waits for it is answered with 500, and its worker is
    /// replaced. 1 min: longer than any layer takes with a request of `max_images`.
    #[serde(with = "adit_common::daemon::humane_duration")]
    pub stuck_after: Duration,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
    /// What is logged, such as `info` or `info,adit_agent=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(30),
            io_threads: 0,
            tls_dir: None,
            relays: Vec::new(),
            upstreams: Vec::new(),
            tunnel: TunnelConfig::default(),
            local: LocalConfig::default(),
            admin: AdminConfig::default(),
            api: ApiConfig::default(),
            serving: ServingConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            udp_buffer: 8 << 20,
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(1),
            streams: 1024,
            segmentation_offload: true,
            parity: true,
            congestion: CongestionControl::default(),
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { max_body: 64 << 20, max_bodies: 512 << 20, max_pixels: 50_000_000 }
    }
}

impl Default for ServingConfig {
    fn default() -> Self {
        Self {
            models: None,
            device: DeviceChoice::Auto,
            watch: Duration::from_secs(1),
            memory: None,
            embedded: None,
            default_model: None,
            default_detector: None,
            queue: 256,
            max_images: 32,
            decoders: 0,
            stuck_after: Duration::from_secs(60),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use adit_common::daemon::parse;
    use adit_common::tunnel::{TransportOptions, UDP_BUFFER};

    use super::*;

    const FILE: &str = include_str!("../agent.toml");

    #[test]
    fn the_file_lists_the_defaults() {
        assert_eq!(parse::<Config>("agent.toml", FILE).unwrap(), Config::default());
    }

    #[test]
    fn the_file_lists_every_key_and_its_examples_are_understood() {
        // Keys without a default stand there as `#key = value`, without a blank.
        let all: String = FILE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') => rest,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let config = parse::<Config>("agent.toml", &all).unwrap();
        assert!(config.tls_dir.is_some() && config.local.listen.is_some() && config.admin.listen.is_some());
        assert!(
            config.serving.models.is_some() && config.serving.embedded.is_some() && config.serving.memory.is_some()
        );
        assert!(
            config.serving.default_model.is_some()
                && config.serving.default_detector.is_some()
                && config.relays[0].name.is_some()
                && config.relays[0].tcp_address.is_some()
        );
        let upstream = &config.upstreams[0];
        let bare = UpstreamConfig::new(upstream.name.clone(), upstream.url.clone());
        let (host, health, send_host) = (upstream.host.clone(), upstream.health.clone(), upstream.send_host.clone());
        assert!(host.is_some() && health.is_some() && send_host.is_some());
        let prefix = upstream.prefix.clone();
        assert_eq!(*upstream, UpstreamConfig { host, health, send_host, prefix, ..bare }, "the rest are the defaults");
        let keys = all.lines().filter(|line| line.split_once(" = ").is_some_and(|(key, _)| !key.contains('#'))).count();
        assert_eq!(keys, 47, "a key was added here or there only");
    }

    #[test]
    fn the_tunnels_defaults_are_the_protocols() {
        let (ours, theirs) = (TunnelConfig::default(), TransportOptions::default());
        assert_eq!((ours.idle_timeout, ours.keep_alive), (theirs.idle_timeout, theirs.keep_alive));
        assert_eq!((ours.streams, ours.segmentation_offload), (theirs.streams, theirs.segmentation_offload));
        assert_eq!((ours.udp_buffer, ours.parity, ours.congestion), (UDP_BUFFER, theirs.parity, theirs.congestion));
    }

    #[test]
    fn the_servers_name_is_the_host_unless_given() {
        let name = |address: &str| RelayConfig::new(address).server_name().to_owned();
        assert_eq!(name("relay.example.org:4433"), "relay.example.org");
        assert_eq!(name("[2001:db8::1]:4433"), "2001:db8::1");
        assert_eq!(name("192.0.2.7:4433"), "192.0.2.7");
        let given = RelayConfig { name: Some("relay".into()), ..RelayConfig::new("192.0.2.7:4433") };
        assert_eq!(given.server_name(), "relay");
    }

    #[test]
    fn an_agent_with_nothing_but_upstreams_serves_no_models() {
        let read = |text: &str| parse::<Config>("agent.toml", text).unwrap();
        let upstream = "[[upstream]]\nname = \"triton\"\nurl = \"http://127.0.0.1:8000\"\n";
        assert!(read("").serves_embedded() && read("").serves_models());
        let alone = read(upstream);
        assert_eq!(alone.upstreams, [UpstreamConfig::new("triton".parse().unwrap(), "http://127.0.0.1:8000")]);
        assert!(!alone.serves_embedded() && !alone.serves_models());
        let beside = read(&format!("{upstream}[serving]\nmodels = \"m\""));
        assert!(!beside.serves_embedded() && beside.serves_models());
        assert!(read(&format!("{upstream}[serving]\nembedded = true")).serves_models());
    }

    #[test]
    fn over_tcp_the_same_port_is_tried_and_that_of_https() {
        let relay = |address: &str| RelayConfig::new(address);
        assert_eq!(
            relay("relay.example.org:4433").tcp_addresses(),
            ["relay.example.org:4433", "relay.example.org:443"]
        );
        assert_eq!(relay("[2001:db8::1]:443").tcp_addresses(), ["[2001:db8::1]:443"]);
        let given = RelayConfig { tcp_address: Some("other:8443".into()), ..relay("relay:4433") };
        assert_eq!(given.tcp_addresses(), ["other:8443"]);
    }

    #[test]
    fn a_transport_is_one_of_three() {
        let relay = |text: &str| parse::<Config>("agent.toml", &format!("[[relay]]\naddress = \"a:1\"\n{text}"));
        assert_eq!(relay("").unwrap().relays[0].transport, TransportChoice::Auto);
        assert_eq!(relay("transport = \"tcp\"").unwrap().relays[0].transport, TransportChoice::Tcp);
        let error = relay("transport = \"udp\"").unwrap_err().to_string();
        assert!(error.contains("agent.toml:3") && error.contains("`quic`"), "{error}");
    }

    #[test]
    fn a_device_is_one_of_three() {
        let device = |text: &str| parse::<Config>("agent.toml", &format!("[serving]\ndevice = \"{text}\"\n"));
        assert_eq!(device("cuda:2").unwrap().serving.device, DeviceChoice::Cuda(2));
        let error = device("gpu").unwrap_err().to_string();
        let told = "agent.toml:2:10: unknown device `gpu`: it is `auto`, `cpu` or `cuda:N` with a number from 0";
        assert!(error.starts_with(told), "{error}");
    }

    #[test]
    fn a_misspelt_key_is_pointed_at() {
        let error = parse::<Config>("agent.toml", "[serving]\nmodel = \"x\"\n").unwrap_err().to_string();
        assert!(error.starts_with("agent.toml:2:1:") && error.contains("did you mean `models`?"), "{error}");
    }
}
