//! Four namespaces, joined by two links and a NAT. None has a way to any network outside.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::addresses::{AGENT, CLIENT, NAT_IN, NAT_OUT, NAT_OUT_NEXT, RELAY_IN, RELAY_OUT, SERVER_PORT};
use super::process::kill;

/// Who lives in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Who asks.
    Client,
    /// The public end.
    Relay,
    /// The router that hides the agent.
    Nat,
    /// The agent, with the server.
    Agent,
}

const ROOMS: [Room; 4] = [Room::Client, Room::Relay, Room::Nat, Room::Agent];

/// The names of one lab's namespaces.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    id: String,
}

/// Says what is missing to build namespaces, before anything is begun.
pub(crate) fn refuse_without() -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the lab builds network namespaces, which takes root: run it with sudo"
    );
    ensure!(Path::new("/dev/net/tun").exists(), "there is no /dev/net/tun: load the kernel's module tun");
    for (program, package) in
        [("ip", "iproute2"), ("nft", "nftables"), ("conntrack", "conntrack"), ("sysctl", "procps")]
    {
        let there = Command::new(program).arg("--version").output().is_ok();
        ensure!(there, "there is no {program} on PATH: apt-get install {package}");
    }
    Ok(())
}

impl Network {
    /// Of a lab; several with different ids may stand side by side.
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.into() }
    }

    /// The name of a namespace.
    pub(crate) fn name(&self, room: Room) -> String {
        let room = match room {
            Room::Client => "client",
            Room::Relay => "relay",
            Room::Nat => "nat",
            Room::Agent => "agent",
        };
        format!("adit-lab{}-{room}", self.id)
    }

    /// Makes the namespaces anew, with this TCP congestion control in each; links come later.
    pub(super) fn build(&self, congestion: &str) -> anyhow::Result<()> {
        self.tear_down();
        allow_congestion_controls();
        for room in ROOMS {
            let name = self.name(room);
            run("ip", ["netns", "add", &name])?;
            self.inside(room, "ip link set lo up")?;
            self.inside(room, &format!("sysctl -qw net.ipv4.tcp_congestion_control={congestion}"))
                .with_context(|| format!("this kernel cannot do TCP with {congestion}"))?;
            self.inside(room, "sysctl -qw net.ipv4.ip_forward=1")?;
            // Enough ports for clients that take a new one for each request.
            self.inside(room, "sysctl -qw net.ipv4.tcp_tw_reuse=1")?;
        }
        self.join(["inner", "inner"], Room::Nat, NAT_IN, Room::Agent, AGENT)
    }

    /// A link that does nothing to packets.
    pub(super) fn wire_a(&self) -> anyhow::Result<()> {
        self.join(["link-a", "link-a"], Room::Client, CLIENT, Room::Relay, RELAY_OUT)
    }

    /// The same on the agent's side.
    pub(super) fn wire_b(&self) -> anyhow::Result<()> {
        self.join(["link-b", "link-b"], Room::Relay, RELAY_IN, Room::Nat, NAT_OUT)
    }

    /// The ends of link a for its emulator.
    pub(super) fn ends_a(&self) -> [String; 2] {
        self.ends("link-a", Room::Client, CLIENT, Room::Relay, RELAY_OUT)
    }

    /// The ends of link b.
    pub(super) fn ends_b(&self) -> [String; 2] {
        self.ends("link-b", Room::Relay, RELAY_IN, Room::Nat, NAT_OUT)
    }

    fn ends(&self, device: &str, one: Room, one_at: Ipv4Addr, other: Room, other_at: Ipv4Addr) -> [String; 2] {
        [(one, one_at), (other, other_at)].map(|(room, at)| format!("{},{device},{at}/24", self.name(room)))
    }

    /// Once both links are there: ways through them, and the NAT.
    pub(super) fn route(&self, folder: &Path) -> anyhow::Result<()> {
        for (room, via) in [(Room::Client, RELAY_OUT), (Room::Agent, NAT_IN), (Room::Nat, RELAY_IN)] {
            self.inside(room, &format!("ip route add default via {via}"))?;
        }
        self.hide_behind(NAT_OUT, folder)
    }

    /// A new public address for the agent: its old mapping is gone, and packets to it vanish.
    pub(super) fn rebind(&self, folder: &Path) -> anyhow::Result<()> {
        self.inside(Room::Nat, &format!("ip address add {NAT_OUT_NEXT}/24 dev link-b"))?;
        self.hide_behind(NAT_OUT_NEXT, folder)?;
        self.inside(Room::Nat, "conntrack -F")
    }

    /// Nothing gets in but what answers, and what comes to the port that is open for the way without a tunnel.
    fn hide_behind(&self, address: Ipv4Addr, folder: &Path) -> anyhow::Result<()> {
        let rules = format!(
            "table ip lab
delete table ip lab
table ip lab {{
  chain source {{
    type nat hook postrouting priority 100
    oifname \"link-b\" snat to {address}
  }}
  chain opened {{
    type nat hook prerouting priority -100
    iifname \"link-b\" tcp dport {SERVER_PORT} dnat to {AGENT}:{SERVER_PORT}
  }}
  chain through {{
    type filter hook forward priority 0
    policy drop
    ct state established,related accept
    iifname \"inner\" oifname \"link-b\" accept
    iifname \"link-b\" ct status dnat accept
  }}
  chain into {{
    type filter hook input priority 0
    iifname \"link-b\" drop
  }}
}}
"
        );
        let file = folder.join("nat.nft");
        std::fs::write(&file, rules).context("cannot write the firewall's rules")?;
        self.inside(Room::Nat, &format!("nft -f {}", file.display()))
    }

    fn join(
        &self,
        devices: [&str; 2],
        one: Room,
        one_at: Ipv4Addr,
        other: Room,
        other_at: Ipv4Addr,
    ) -> anyhow::Result<()> {
        let [first, second] = devices;
        let (left, right) = (self.name(one), self.name(other));
        let pair = ["link", "add", first, "netns", &left, "type", "veth", "peer", "name", second, "netns", &right];
        run("ip", pair)?;
        for (room, device, at) in [(one, first, one_at), (other, second, other_at)] {
            self.inside(room, &format!("ip address add {at}/24 dev {device}"))?;
            self.inside(room, &format!("ip link set {device} up"))?;
        }
        Ok(())
    }

    /// Runs a short command in a namespace.
    fn inside(&self, room: Room, command: &str) -> anyhow::Result<()> {
        run("ip", ["netns", "exec", &self.name(room)].into_iter().chain(command.split_whitespace()))
    }

    /// Ends all that runs in the namespaces, and takes them away: those of a lab that was killed, too.
    pub(crate) fn tear_down(&self) {
        for name in ROOMS.map(|room| self.name(room)) {
            if !Path::new("/run/netns").join(&name).exists() {
                continue;
            }
            let inhabitants = Command::new("ip").args(["netns", "pids", &name]).output();
            let inhabitants =
                inhabitants.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default();
            inhabitants.split_whitespace().filter_map(|pid| pid.parse().ok()).for_each(kill);
            let _ = run("ip", ["netns", "delete", &name]);
        }
    }
}

/// A namespace may only choose among congestion controls that are allowed to everybody, and only root outside can widen that list.
fn allow_congestion_controls() {
    const KNOWN: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    // Loads BBR's module where it is one; a kernel without it says so when it is asked for.
    let _ = Command::new("modprobe").arg("tcp_bbr").output();
    if let Ok(known) = std::fs::read_to_string(KNOWN) {
        let _ = std::fs::write(ALLOWED, known);
    }
}

fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments);
    let done = command.output().with_context(|| format!("cannot run {program}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
