//! What the programs tell a service manager, over a real `NOTIFY_SOCKET`.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use adit_common::daemon::Shutdown;
use adit_e2e::{Caller, Client, DRAIN, LIMIT, MODEL, Program, Site, Version, until};
use tokio::net::{TcpListener, TcpStream, UnixDatagram};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::ask::prepared;
use crate::chaos::EXECUTABLES;

/// So the programs say that they are alive five times a second.
const WATCHDOG: Duration = Duration::from_millis(400);

const READY: &str = "READY=1";
const STOPPING: &str = "STOPPING=1";
const ALIVE: &str = "WATCHDOG=1";
const STATUS: &str = "STATUS=";

/// A service manager: reads everything at once, as systemd does, for the kernel keeps ten messages and no more.
struct Manager {
    heard: watch::Receiver<Vec<(Instant, String)>>,
    read: usize,
    _reader: Shutdown,
}

impl Manager {
    /// Listens, and tells the program where; to be called before it is started.
    fn of(program: &mut Program, folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        program.set("NOTIFY_SOCKET", path);
        program.set("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let (say, heard) = watch::channel(Vec::new());
        let reader = Shutdown::new();
        reader.spawn("manager", async move {
            let mut buffer = [0; 1024];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let said = String::from_utf8(buffer[..length].to_vec()).unwrap();
                say.send_modify(|all| all.push((Instant::now(), said)));
            }
        });
        Self { heard, read: 0, _reader: reader }
    }

    /// When this is said next; what was said before it is passed over, unless it is none of `allowed`.
    async fn hear(&mut self, wanted: &str, allowed: &[&str]) -> Instant {
        let from = self.read;
        let place = |all: &Vec<(Instant, String)>| all.iter().skip(from).position(|(_, said)| said == wanted);
        let heard = timeout(LIMIT, self.heard.wait_for(|all| place(all).is_some()));
        let heard = heard.await.unwrap_or_else(|_| panic!("never heard {wanted}")).unwrap();
        let until = from + place(&heard).unwrap();
        for (_, said) in &heard[from..until] {
            assert!(allowed.iter().any(|start| said.starts_with(start)), "{said} before {wanted}");
        }
        let at = heard[until].0;
        drop(heard);
        self.read = until + 1;
        at
    }

    /// The signs of life between two moments.
    fn signs(&self, from: Instant, until: Instant) -> usize {
        let within = |(at, said): &&(Instant, String)| *at > from && *at < until && said == ALIVE;
        self.heard.borrow().iter().filter(within).count()
    }

    fn is_silent(&self) -> bool {
        self.heard.borrow().is_empty()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_ready_when_its_ports_are_open_and_alive_until_it_has_drained() {
    let mut site = Site::prepare(EXECUTABLES, &["shop"], "1500ms").await;
    let folder = site.folder().to_owned();
    let mut manager = Manager::of(&mut site.relay, &folder, "relay.notify");
    let started = Instant::now();
    site.relay.start();
    let ready = manager.hear(READY, &[STATUS]).await;
    TcpStream::connect(site.ports.https).await.expect("the front is open");
    TcpStream::connect(site.ports.admin).await.expect("the admin listener is open");
    let taken = UdpSocket::bind(site.ports.tunnel).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse, "the tunnel's port is open");
    let first = manager.hear(ALIVE, &[STATUS]).await;
    let second = manager.hear(ALIVE, &[STATUS]).await;
    assert!(second - first < WATCHDOG, "{:?}", second - first);

    site.agents[0].start();
    site.serving(1).await;
    let caller = Caller::new(&site);
    let stop = async {
        site.in_flight(1).await;
        let asked = Instant::now();
        site.relay.terminate();
        (asked, manager.hear(STOPPING, &[STATUS, ALIVE]).await)
    };
    let (answer, (asked, stopping)) = tokio::join!(caller.ask(Version::Http2), stop);
    let signs = manager.signs(stopping, answer.done);
    println!(
        "relay: READY after {:.2?}; STOPPING {:.2?} after SIGTERM, {signs} signs of life in the {:.2?} it drained",
        ready - started,
        stopping - asked,
        answer.done - stopping,
    );
    assert!(answer.is_good() && answer.done > stopping, "{answer:?}");
    assert!(stopping - asked < WATCHDOG && signs >= 3, "{:?}, {signs}", stopping - asked);
    let status = site.relay.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_without_its_port_is_never_ready() {
    let mut site = Site::prepare(EXECUTABLES, &[], "0ms").await;
    let folder = site.folder().to_owned();
    let manager = Manager::of(&mut site.relay, &folder, "relay.notify");
    // The last that it binds.
    let held = TcpListener::bind(site.ports.admin).await.unwrap();
    site.relay.start();
    let status = site.relay.ended().await;
    assert!(!status.success(), "{status}");
    let log = site.relay.log();
    assert!(log.contains(&format!("cannot bind the admin listener (tcp) to {}", site.ports.admin)), "{log}");
    assert!(manager.is_silent());
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_alive_until_it_has_drained() {
    let mut site = Site::prepare(EXECUTABLES, &["shop"], "1500ms").await;
    let folder = site.folder().to_owned();
    let mut manager = Manager::of(&mut site.agents[0], &folder, "agent.notify");
    site.relay.start();
    site.agents[0].start();
    manager.hear(READY, &[STATUS]).await;
    site.serving(1).await;
    let caller = Caller::new(&site);
    let stop = async {
        site.in_flight(1).await;
        let asked = Instant::now();
        site.agents[0].terminate();
        (asked, manager.hear(STOPPING, &[STATUS, ALIVE]).await)
    };
    let (answer, (asked, stopping)) = tokio::join!(caller.ask(Version::Http2), stop);
    let signs = manager.signs(stopping, answer.done);
    println!(
        "agent: STOPPING {:.2?} after SIGTERM, {signs} signs of life in the {:.2?} it drained",
        stopping - asked,
        answer.done - stopping,
    );
    assert!(answer.is_good() && answer.done > stopping, "{answer:?}");
    assert!(stopping - asked < WATCHDOG && signs >= 3, "{:?}, {signs}", stopping - asked);
    let (status, took) = (site.agents[0].ended().await, answer.done.elapsed());
    assert!(status.success() && took < DRAIN, "{status} after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_says_no_more_that_it_lives_when_its_last_model_is_given_up() {
    const HANG: Duration = Duration::from_secs(4);
    let mut site = Site::prepare(EXECUTABLES, &["shop"], "1ms").await;
    let folder = site.folder().to_owned();
    let mut manager = Manager::of(&mut site.agents[0], &folder, "agent.notify");
    site.agents[0].configure("stuck_after = \"100ms\"\n");
    site.relay.start();
    site.agents[0].start();
    manager.hear(READY, &[STATUS]).await;
    manager.hear(ALIVE, &[STATUS]).await;
    site.serving(1).await;
    let (scope, authority) = (Shutdown::new(), site.authority());
    let client = Client::connect(site.ports.https, &authority, Version::Http1, Some(&site.key), scope).await;
    let mut client = client.unwrap();
    let asked = Instant::now();
    let mut ask = async || {
        let hung = client.ask(prepared(MODEL, HANG.as_secs_f32())).await.unwrap();
        assert_eq!(hung.status, 500, "{hung:?}");
        assert!(hung.error().unwrap().contains("its network hung, and was given up"), "{hung:?}");
        Instant::now()
    };

    // One that hangs is replaced: nobody has to restart anything.
    let replaced = ask().await;
    while manager.hear(ALIVE, &[STATUS, ALIVE]).await < replaced + WATCHDOG {}
    ask().await;
    ask().await;
    until("the model to be given up", async || {
        let fleet = site.fleet().await?;
        (fleet["agents"][0]["models"][0]["state"] == "UNAVAILABLE").then_some(())
    })
    .await;
    let (given_up, back) = (Instant::now(), asked + HANG);
    while manager.hear(ALIVE, &[STATUS, ALIVE]).await < back {}
    // What was about to be said when it was given up does not count.
    let margin = Duration::from_millis(150);
    let signs = manager.signs(given_up + margin, back - margin);
    println!("agent: {signs} signs of life in the {:.2?} in which its only model hung", back - given_up);
    assert!(signs == 0 && back - given_up > WATCHDOG * 3, "{signs} in {:?}", back - given_up);
    site.serving(1).await;
}
