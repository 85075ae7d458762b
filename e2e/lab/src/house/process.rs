//! Programs in namespaces, and what they cost.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

/// What a program is there for; costs are added up by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// A link's emulator.
    Link,
    /// What does TLS for peers that have none.
    Front,
    /// The public end of a tunnel.
    Relay,
    /// Its end behind the firewall.
    Agent,
    /// What is asked in the end.
    Server,
}

/// What the programs of a lab cost, by role.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Seconds of processor time.
    pub(crate) cpu_s: BTreeMap<Role, f64>,
    /// Megabytes of memory in RAM.
    pub(crate) rss_mb: BTreeMap<Role, f64>,
}

impl Cost {
    /// The processor time since `before`, and the memory now.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (role, seconds) in &mut self.cpu_s {
            // What was killed meanwhile has taken its account with it.
            *seconds = (*seconds - before.cpu_s.get(role).copied().unwrap_or_default()).max(0.0);
        }
        self
    }
}

/// One program, with whatever it started itself.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) role: Role,
    child: Child,
    pid: Option<i32>,
}

impl Process {
    /// Starts it, with its output going into a file.
    pub(super) fn start(role: Role, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log).context("cannot open a log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot open a log")?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", command.as_std().get_program().display()))?;
        let pid = child.id().map(|pid| pid as i32);
        Ok(Self { role, child, pid })
    }

    /// Whether it still runs.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as `kill -9` does, and waits until it is gone. Some children leave their parent's process group, so each is killed.
    pub(super) async fn kill(mut self) {
        let births = births();
        for pid in self.pid.into_iter().flat_map(|pid| family(pid, &births)) {
            kill(pid);
        }
        let _ = self.child.wait().await;
    }
}

/// Kills a process that may have gone already.
pub(super) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// What these processes cost until now, with their children.
pub(super) fn cost<'a>(processes: impl Iterator<Item = &'a Process>) -> Cost {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let (mut cost, births) = (Cost::default(), births());
    for process in processes {
        for pid in process.pid.into_iter().flat_map(|pid| family(pid, &births)) {
            *cost.cpu_s.entry(process.role).or_default() += cpu_ticks(pid).unwrap_or_default() as f64 / ticks;
            *cost.rss_mb.entry(process.role).or_default() += resident_kib(pid).unwrap_or_default() as f64 / 1024.0;
        }
    }
    cost
}

/// The children of every process of the machine.
fn births() -> HashMap<i32, Vec<i32>> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if let Some(parent) = stat(pid, 1).and_then(|field| field.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// A process and all that descend from it.
fn family(root: i32, births: &HashMap<i32, Vec<i32>>) -> Vec<i32> {
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(pid) = open.pop() {
        found.push(pid);
        open.extend(births.get(&pid).into_iter().flatten());
    }
    found
}

/// A field of `/proc/PID/stat`, counted from the one behind the name: 0 is the state, 1 the parent.
fn stat(pid: i32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets; nothing behind it does.
    stat.rsplit_once(')')?.1.split_whitespace().nth(field).map(Into::into)
}

fn cpu_ticks(pid: i32) -> Option<u64> {
    Some(stat(pid, 11)?.parse::<u64>().ok()? + stat(pid, 12)?.parse::<u64>().ok()?)
}

fn resident_kib(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_family_is_found_counted_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // The grandchild leaves the group, as some servers' children do.
        command.args(["-c", "setsid sleep 1000 & wait"]);
        let process = Process::start(Role::Agent, command, &folder.path().join("log")).unwrap();
        let root = process.pid.unwrap();
        let family = loop {
            let family = family(root, &births());
            if family.len() == 2 && fs::read_to_string(format!("/proc/{}/comm", family[1])).unwrap() == "sleep\n" {
                break family;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(cost([&process].into_iter()).rss_mb[&Role::Agent] > 0.1);
        process.kill().await;
        while family.iter().any(|pid| stat(*pid, 0).is_some_and(|state| state != "Z")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
