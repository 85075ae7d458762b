//! The programs themselves, as processes of their own: started, killed, stopped in order, and started where they were.
//!
//! What a task in a test's own process cannot show - a death without a farewell, an exit code, memory, a service manager's
//! view - is asked of these. Nothing here waits for a time: it waits for what a program says, with a limit. Whatever is still
//! running when its [`Site`] is dropped is killed.

#![allow(clippy::unwrap_used, reason = "what cannot be set up here is a failed test")]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use adit_certs::{Store, Validity};
use adit_common::manifest::Scope;
use adit_relay::KeyFile;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::RwLockWriteGuard;
use tokio::time::{sleep, timeout};

use crate::house::STREET;
use crate::https::LIMIT;

/// How long a program may drain: far above what any request here takes.
pub const DRAIN: Duration = Duration::from_secs(10);

/// The model that every agent here serves: it computes nothing, and takes a set time.
pub const MODEL: &str = "patient";

/// Between two looks at what is being waited for: a bound on how late an event is seen.
const LOOK: Duration = Duration::from_millis(5);

/// Below the ports that Linux gives to whoever asks for any: a port of a program that is down must stay free for it.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Where certificates, keys, configurations and logs lie, with the relay and the agents that use them. It stands alone: no
/// other site or house of this process stands while it does.
#[derive(Debug)]
pub struct Site {
    /// The relay; started by [`Site::open`].
    pub relay: Program,
    /// One for each name given to [`Site::open`].
    pub agents: Vec<Program>,
    /// Where the relay is.
    pub ports: Ports,
    /// An API key that may ask models.
    pub key: String,
    folder: TempDir,
    /// Loads and kills beside other tests would measure those, and they these.
    _street: RwLockWriteGuard<'static, ()>,
}

/// The relay's addresses, the same after every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// TCP: clients.
    pub https: SocketAddr,
    /// UDP: agents.
    pub tunnel: SocketAddr,
    /// TCP: operators.
    pub admin: SocketAddr,
}

/// Where the two programs are; cargo tells the tests.
#[derive(Debug, Clone, Copy)]
pub struct Executables {
    /// `adit-relay`
    pub relay: &'static str,
    /// `adit-agent`
    pub agent: &'static str,
}

impl Site {
    /// Certificates, a key and configurations for a relay and agents of these names, whose model takes `forward` for each
    /// request (such as `"40ms"`), one at a time, and fails on request. Nothing runs yet.
    pub async fn prepare(executables: Executables, agents: &[&str], forward: &str) -> Self {
        let street = STREET.write().await;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let store = Store::new(root.join("certificates"));
        store.init(&["127.0.0.1".parse().unwrap()], Validity::default(), false).unwrap();
        let ports = Ports { https: free_tcp(), tunnel: free_udp(), admin: free_tcp() };
        let Ports { https, tunnel, admin } = ports;
        let (tls, state) = (store.relay_folder(), root.join("state"));
        fs::create_dir(&state).unwrap();
        let keys = state.join("keys.toml");
        let key = KeyFile::new(&keys).create("site", &[Scope::Infer]).unwrap();
        let config = root.join("relay.toml");
        let text = format!(
            "tls = {tls:?}\nstate = {state:?}\ndrain = {:?}\n[front]\nlisten = \"{https}\"\n\
             [tunnel]\nlisten = \"{tunnel}\"\n[admin]\nlisten = \"{admin}\"\n",
            humane(DRAIN),
        );
        fs::write(&config, text).unwrap();
        let relay = Program::new(executables.relay, &config, root.join("relay.log"));

        let model = root.join("models").join(MODEL);
        fs::create_dir_all(&model).unwrap();
        let spec = format!(
            "architecture = \"stand_in\"\n[stand_in]\nforward = \"{forward}\"\nfaults = true\n[batching]\nmax_batch = 1\ninstances = 1\n"
        );
        fs::write(model.join("model.toml"), spec).unwrap();
        let agent = |name: &&str| {
            let id = name.parse().unwrap();
            let identity = store.agent_folder(&id);
            store.issue_agent(&id, Validity::default(), &identity).unwrap();
            let config = root.join(format!("{name}.toml"));
            let (drain, models) = (humane(DRAIN), root.join("models"));
            let text = format!(
                "drain_timeout = {drain:?}\ntls_dir = {identity:?}\n[[relay]]\naddress = \"{tunnel}\"\n\
                 [serving]\nmodels = {models:?}\n"
            );
            fs::write(&config, text).unwrap();
            Program::new(executables.agent, &config, root.join(format!("{name}.log")))
        };
        let agents = agents.iter().map(agent).collect();
        Self { relay, agents, ports, key, folder, _street: street }
    }

    /// [`Site::prepare`], and everything running and serving.
    pub async fn open(executables: Executables, agents: &[&str], forward: &str) -> Self {
        let mut site = Self::prepare(executables, agents, forward).await;
        site.relay.start();
        site.agents.iter_mut().for_each(Program::start);
        site.serving(agents.len()).await;
        site
    }

    /// The authority that the relay's certificate is signed by, as a PEM file.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("certificates/relay/ca.pem")
    }

    /// The folder that all its files are in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until the relay says that it is ready, which is when its ports are open.
    pub async fn listening(&self) -> Instant {
        until("the relay to be ready", async || {
            matches!(self.admin("/readyz").await, Some((200, _))).then(Instant::now)
        })
        .await
    }

    /// Waits until so many agents take requests.
    pub async fn serving(&self, agents: usize) -> Instant {
        until("the agents to serve", async || {
            let fleet = self.fleet().await?;
            let serves = |entry: &&Value| entry["draining"] == false && entry["models"][0]["state"] == "READY";
            (fleet["agents"].as_array()?.iter().filter(serves).count() == agents).then(Instant::now)
        })
        .await
    }

    /// Waits until the relay has exactly so many requests of all its agents.
    pub async fn in_flight(&self, requests: u64) -> Instant {
        until("the requests to be in flight", async || {
            let fleet = self.fleet().await?;
            let sum: u64 = fleet["agents"].as_array()?.iter().filter_map(|entry| entry["in_flight"].as_u64()).sum();
            (sum == requests).then(Instant::now)
        })
        .await
    }

    /// What the relay says of its agents; none if it does not answer.
    pub async fn fleet(&self) -> Option<Value> {
        let (_, text) = self.admin("/fleet").await?;
        serde_json::from_str(&text).ok()
    }

    /// One answer of the relay's admin listener: status and body; none if it does not answer.
    async fn admin(&self, path: &str) -> Option<(u16, String)> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.ports.admin).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
        };
        timeout(LIMIT, exchange).await.ok().flatten()
    }
}

/// One program with its configuration: a process while it runs.
#[derive(Debug)]
pub struct Program {
    executable: PathBuf,
    config: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    fn new(executable: &str, config: &Path, log: PathBuf) -> Self {
        let (executable, config) = (executable.into(), config.to_owned());
        Self { executable, config, environment: Vec::new(), log, child: None }
    }

    /// Sets a variable of its environment from the next start on.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    /// Appends to its configuration, from the next start on.
    pub fn configure(&self, text: &str) {
        let before = fs::read_to_string(&self.config).unwrap();
        fs::write(&self.config, before + text).unwrap();
    }

    /// Starts it; its log goes on where it ended.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log: File = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(&self.executable);
        command.arg("run").arg("--config").arg(&self.config).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Its process's number.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL: it ends here and now, and says nothing to anybody.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it had died before:\n{}", self.log());
    }

    /// SIGTERM: it is asked to drain and to end.
    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let status = until("the program to end", async || child.try_wait().unwrap()).await;
        self.child = None;
        status
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// All that it has said, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(6000);
            eprintln!("---- the end of {}\n{}", self.log.display(), log.get(from..).unwrap_or(&log));
        }
    }
}

/// Asks again and again until there is an answer; fails after [`LIMIT`].
pub async fn until<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            sleep(LOOK).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("waited {LIMIT:?} in vain for {what}"))
}

fn humane(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

fn free_tcp() -> SocketAddr {
    free(|address| TcpListener::bind(address).is_ok())
}

fn free_udp() -> SocketAddr {
    // Tunnels come over TCP too, at the same number.
    free(|address| UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok())
}

/// A port that nobody has; each process begins elsewhere, so that two at a time rarely meet.
fn free(is_free: impl Fn(SocketAddr) -> bool) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u64::from(std::process::id()) * 97;
    let ports = std::iter::repeat_with(|| {
        let offset = (start + u64::from(NEXT.fetch_add(1, Ordering::Relaxed))) % (PORTS.len() as u64);
        SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + offset as u16))
    });
    ports.take(PORTS.len()).find(|address| is_free(*address)).unwrap()
}
