//! One whole network with one peer in it, from the first namespace to the last kill.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::addresses::{HTTPS_PORT, RELAY_OUT, SERVER_PORT};
use super::network::{Network, Room};
use super::place::{Launch, Peer, Place, find_program};
use super::process::{Cost, Process, Role, cost};
use super::{certificates, front};
use crate::link::{Both, tell};
use crate::load::Report;

/// A tunnel that has not answered by then will not: the slowest takes a few seconds.
const UP: Duration = Duration::from_secs(30);

/// The file that says that a folder is a lab's, and may be emptied.
const MARK: &str = ".adit-lab";

/// What all labs of a run share.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// This program.
    pub(crate) program: PathBuf,
    /// Where other programs are looked for.
    pub(crate) search: Vec<PathBuf>,
    /// Files and logs.
    pub(crate) folder: PathBuf,
    /// The namespaces.
    pub(crate) network: Network,
}

/// What one lab is like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// TCP's congestion control in every namespace.
    pub(crate) congestion: String,
    /// Whether the links can be impaired; else they are plain wires, which cost nothing.
    pub(crate) emulated: bool,
    /// How long `/infer` is going to take, for peers that have to know before.
    pub(crate) service_us: u64,
    /// How many agents there are, each asked by a host of its own.
    pub(crate) agents: usize,
    /// What chance begins with on the links.
    pub(crate) seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { congestion: "cubic".into(), emulated: true, service_us: 0, agents: 1, seed: 7 }
    }
}

/// A link of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    /// Client and relay.
    A,
    /// Relay and NAT.
    B,
}

/// What a load came to, and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// As the load generator says.
    #[serde(flatten)]
    pub(crate) report: Report,
    /// Of all programs of the lab, while it ran.
    #[serde(flatten)]
    pub(crate) cost: Cost,
}

/// A program of the lab's own that runs in a namespace and says in the end, on its standard output, what it found.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    before: Cost,
    what: String,
}

/// The lab.
pub(crate) struct Lab {
    site: Site,
    place: Place,
    peer: Rc<dyn Peer>,
    links: BTreeMap<Link, PathBuf>,
    processes: Vec<Process>,
}

impl Site {
    /// Empties the folder, which must be a lab's, and puts the authority's certificates there.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let (folder, mark) = (&self.folder, self.folder.join(MARK));
        if folder.exists() {
            let is_empty = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
            ensure!(
                is_empty || mark.exists(),
                "{} is not empty, and no lab's: name another by --work",
                folder.display()
            );
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder.join("home")).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))?;
        certificates::write(folder)
    }

    /// Takes away the logs of the lab before.
    pub(crate) fn forget_logs(&self) -> anyhow::Result<()> {
        for log in self.logs() {
            fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
        }
        Ok(())
    }

    fn logs(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
    }

    /// Whether there is a program of that name.
    pub(crate) fn has(&self, program: &str) -> bool {
        find_program(program, &self.search).is_some()
    }

    fn place(&self, plan: &Plan) -> Place {
        let (folder, search) = (self.folder.clone(), self.search.clone());
        Place { folder, search, service_us: plan.service_us, agents: plan.agents }
    }

    /// A command in a namespace, or outside of all; with an environment of its own.
    fn command(&self, room: Option<Room>, launch: &Launch) -> Command {
        let mut command = match room {
            Some(room) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &self.network.name(room)]).arg(&launch.program);
                command
            }
            None => Command::new(&launch.program),
        };
        let path: Vec<_> = self.search.iter().map(|folder| folder.display().to_string()).collect();
        command.args(&launch.arguments).env_clear().env("PATH", path.join(":")).env("HOME", self.folder.join("home"));
        command.envs(launch.environment.iter().cloned());
        command
    }
}

impl Lab {
    /// Builds the network, starts the server, the peer and its front, and waits until a request comes through to every agent.
    pub(crate) async fn build(site: &Site, peer: Rc<dyn Peer>, plan: &Plan) -> anyhow::Result<Self> {
        ensure!(
            plan.agents <= peer.most_agents(),
            "{} carries {} agent(s), and this takes {}",
            peer.name(),
            peer.most_agents(),
            plan.agents
        );
        let place = site.place(plan);
        site.network.build(&plan.congestion)?;
        let mut lab = Self { site: site.clone(), place, peer, links: BTreeMap::new(), processes: Vec::new() };
        lab.lay(plan).await?;
        lab.site.network.route(&lab.site.folder)?;
        let server = Launch::new(lab.site.program.clone(), "stand-in --listen").and(format!("0.0.0.0:{SERVER_PORT}"));
        lab.start(Role::Server, Some(Room::Agent), &server, "server")?;
        lab.peer.prepare(&lab.place)?;
        lab.start_relay()?;
        // A relay that listens already spares agents their first, failing, attempt, after which each waits as it likes.
        sleep(Duration::from_millis(700)).await;
        for number in 0..plan.agents {
            for (index, launch) in lab.peer.agent(&lab.place, number)?.iter().enumerate() {
                lab.start(Role::Agent, Some(Room::Agent), launch, &format!("agent{number}-{index}"))?;
            }
        }
        if !lab.peer.has_front() {
            let targets: Vec<_> = (0..plan.agents).map(|number| lab.peer.target(number)).collect();
            let launch = front::launch(&lab.place, &targets)?;
            lab.start(Role::Front, Some(Room::Relay), &launch, "front")?;
        }
        if let Err(error) = lab.wait_until_up(plan.agents).await {
            let logs = lab.last_words();
            return Err(error.context(format!("{} never came up{logs}", lab.peer.name())));
        }
        Ok(lab)
    }

    /// Links a and b.
    async fn lay(&mut self, plan: &Plan) -> anyhow::Result<()> {
        if !plan.emulated {
            self.site.network.wire_a()?;
            return self.site.network.wire_b();
        }
        for (link, name, [a, b]) in
            [(Link::A, "link-a", self.site.network.ends_a()), (Link::B, "link-b", self.site.network.ends_b())]
        {
            let socket = self.place.file(&format!("{name}.socket"));
            let _ = fs::remove_file(&socket);
            let arguments = format!("link --attached --a {a} --b {b} --seed {} --control", plan.seed + link as u64);
            let mut launch = Launch::new(self.site.program.clone(), &arguments).and(&socket);
            // Whoever stands for a wire must not wait for a processor that its ends have taken.
            if let Ok(first) = self.place.program("chrt") {
                launch = launch.through(first, &["-f", "10"]);
            }
            self.start(Role::Link, None, &launch, name)?;
            let begun = Instant::now();
            while tell(&socket, "stats").is_err() {
                let runs = self.processes.last_mut().is_some_and(Process::runs);
                if !runs || begun.elapsed() > Duration::from_secs(5) {
                    bail!("the link did not start{}", self.last_words());
                }
                sleep(Duration::from_millis(10)).await;
            }
            self.links.insert(link, socket);
        }
        Ok(())
    }

    fn start(&mut self, role: Role, room: Option<Room>, launch: &Launch, name: &str) -> anyhow::Result<()> {
        let command = self.site.command(room, launch);
        self.processes.push(Process::start(role, command, &self.place.file(&format!("{name}.log")))?);
        Ok(())
    }

    /// Starts the peer's public end, for the first time or again.
    pub(crate) fn start_relay(&mut self) -> anyhow::Result<()> {
        for (index, launch) in self.peer.relay(&self.place)?.iter().enumerate() {
            self.start(Role::Relay, Some(Room::Relay), launch, &format!("relay{index}"))?;
        }
        Ok(())
    }

    /// Kills the peer's public end as `kill -9` does.
    pub(crate) async fn kill_relay(&mut self) {
        let (relays, others) = self.processes.drain(..).partition(|process| process.role == Role::Relay);
        self.processes = others;
        let relays: Vec<Process> = relays;
        for relay in relays {
            relay.kill().await;
        }
    }

    /// Gives the agent another public address and port.
    pub(crate) fn rebind(&self) -> anyhow::Result<()> {
        self.site.network.rebind(&self.site.folder)
    }

    /// Changes a link: `both delay=20ms loss=1`.
    pub(crate) fn set(&self, link: Link, line: &str) -> anyhow::Result<()> {
        tell(self.socket(link)?, line).map(drop)
    }

    /// What a link has seen.
    pub(crate) fn seen(&self, link: Link) -> anyhow::Result<Both> {
        Ok(serde_json::from_str(&tell(self.socket(link)?, "stats")?)?)
    }

    fn socket(&self, link: Link) -> anyhow::Result<&Path> {
        self.links.get(&link).map(PathBuf::as_path).context("the links of this lab are plain wires")
    }

    /// What runs costs until now, and holds now.
    pub(crate) fn cost(&self) -> Cost {
        cost(self.processes.iter())
    }

    /// A file of the lab.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.place.file(name)
    }

    /// Whether the peer can carry what is asked for here.
    pub(crate) fn carries(&self, path: &str) -> bool {
        self.peer.path(path).is_some()
    }

    /// Asks the first agent's server: `words` are arguments of `adit-lab load`, `path` is one of the stand-in's.
    pub(crate) async fn load(&self, path: &str, words: &str) -> anyhow::Result<Measured> {
        self.begin_load(0, path, words)?.measured(self).await
    }

    /// Begins to ask an agent's server.
    pub(crate) fn begin_load(&self, agent: usize, path: &str, words: &str) -> anyhow::Result<Running> {
        let asked = self.peer.path(path).with_context(|| format!("{} cannot carry {path}", self.peer.name()))?;
        let arguments = format!(
            "load --to {RELAY_OUT}:{HTTPS_PORT} --server-name {} --host {} {words} --path {asked} --ca",
            self.place.name(),
            self.place.host(agent),
        );
        let launch = Launch::new(self.site.program.clone(), &arguments).and(self.peer.authority(&self.place));
        self.begin(Room::Client, &launch, "the load")
    }

    /// How many agents it has.
    pub(crate) fn agents(&self) -> usize {
        self.place.agents
    }

    /// Asks every agent's server, again and again, for so many seconds: when each answered first, in order.
    pub(crate) async fn probe(&self, seconds: u32) -> anyhow::Result<Vec<f64>> {
        let path = self.peer.path("/infer").context("there is nothing to ask for")?;
        let mut launch = Launch::new(
            self.site.program.clone(),
            &format!(
                "probe --to {RELAY_OUT}:{HTTPS_PORT} --server-name {} --path {path} --seconds {seconds}",
                self.place.name()
            ),
        );
        for agent in 0..self.place.agents {
            launch = launch.and("--host").and(self.place.host(agent));
        }
        let launch = launch.and("--ca").and(self.peer.authority(&self.place));
        let said = self.begin(Room::Client, &launch, "the probe")?.output().await?;
        Ok(serde_json::from_str(&said)?)
    }

    /// Begins another of the lab's own programs.
    pub(crate) fn begin_own(&self, room: Room, arguments: &str) -> anyhow::Result<Running> {
        self.begin(room, &Launch::new(self.site.program.clone(), arguments), arguments)
    }

    fn begin(&self, room: Room, launch: &Launch, what: &str) -> anyhow::Result<Running> {
        let mut command = self.site.command(Some(room), launch);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        Ok(Running { child, before: self.cost(), what: what.into() })
    }

    async fn wait_until_up(&mut self, agents: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        for agent in 0..agents {
            loop {
                let tried =
                    self.begin_load(agent, "/infer", "--requests 1 --body 100 --timeout 2")?.measured(self).await?;
                if tried.report.ok == 1 {
                    break;
                }
                ensure!(begun.elapsed() < UP, "agent {agent} does not answer: {:?}", tried.report.failures);
                ensure!(self.processes.iter_mut().all(Process::runs), "a program has ended");
                sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }

    /// The ends of all logs.
    fn last_words(&self) -> String {
        let mut words = String::new();
        for log in self.site.logs() {
            let text = fs::read(&log).unwrap_or_default();
            let end = String::from_utf8_lossy(&text[text.len().saturating_sub(600)..]).trim().to_owned();
            if !end.is_empty() {
                words += &format!("\n--- {}\n{end}", log.display());
            }
        }
        words
    }

    /// Ends everything, and takes the network away.
    pub(crate) async fn tear_down(self) {
        for process in self.processes {
            process.kill().await;
        }
        self.site.network.tear_down();
    }
}

impl Running {
    /// What it said, once it has ended.
    pub(crate) async fn output(self) -> anyhow::Result<String> {
        let done = self.child.wait_with_output().await.with_context(|| format!("cannot wait for {}", self.what))?;
        ensure!(done.status.success(), "{}: {}", self.what, String::from_utf8_lossy(&done.stderr).trim());
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Of a load: what came of it, and what the lab's programs cost while it ran.
    pub(crate) async fn measured(self, lab: &Lab) -> anyhow::Result<Measured> {
        let before = self.before.clone();
        let report = serde_json::from_str(&self.output().await?)?;
        Ok(Measured { report, cost: lab.cost().since(&before) })
    }

    /// Ends it early.
    pub(crate) async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_labs_own_folder_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site {
            program: "adit-lab".into(),
            search: Vec::new(),
            folder: folder.path().join("work"),
            network: Network::new("none"),
        };
        site.clear().unwrap();
        let left = site.folder.join("left");
        fs::write(&left, "").unwrap();
        site.clear().unwrap();
        assert!(!left.exists() && site.folder.join("front.pem").exists());
        fs::remove_file(site.folder.join(MARK)).unwrap();
        fs::write(&left, "").unwrap();
        assert!(site.clear().is_err());
        assert!(left.exists());
    }
}
