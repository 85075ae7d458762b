//! The lab as a whole: namespaces, links, programs, records, tables, in a few seconds.
//!
//! Building namespaces takes root and TUN. Where they are missing the tests say that they were skipped.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_adit-lab");

/// Whether namespaces can be built here.
fn can_build(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let tun = Path::new("/dev/net/tun").exists();
    let programs =
        ["ip", "nft", "conntrack", "sysctl"].iter().all(|name| Command::new(name).arg("--version").output().is_ok());
    // A container's root may not be allowed to all the same.
    let probe = format!("adit-probe-{test}");
    let ip =
        |word: &str| Command::new("ip").args(["netns", word, &probe]).output().is_ok_and(|done| done.status.success());
    let able = root && tun && programs && ip("add") && ip("delete");
    if !able {
        eprintln!("{test} skipped: root {root}, TUN {tun}, ip, nft, conntrack and sysctl {programs}");
    }
    able
}

fn lab(arguments: &[&str]) -> Output {
    Command::new(LAB).args(arguments).output().unwrap()
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Two namespaces with a link between them, and nothing else.
struct Pair {
    names: [String; 2],
    link: std::process::Child,
    server: Option<std::process::Child>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn new(id: &str, set: &str) -> Self {
        let names = ["a", "b"].map(|end| format!("adit-{id}-{end}"));
        for name in &names {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
            assert!(Command::new("ip").args(["netns", "add", name]).status().unwrap().success());
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("link.socket");
        let link = Command::new(LAB)
            .args([
                "link",
                "--a",
                &format!("{},link,10.9.0.1/24", names[0]),
                "--b",
                &format!("{},link,10.9.0.2/24", names[1]),
            ])
            .args(["--attached", "--seed", "7", "--set", set, "--control"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pair = Self { names, link, server: None, socket, _folder: folder };
        let begun = Instant::now();
        while !pair.tell("stats").status.success() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", words(&pair.tell("stats")));
            std::thread::sleep(Duration::from_millis(10));
        }
        pair
    }

    fn tell(&self, line: &str) -> Output {
        let socket = self.socket.to_str().unwrap();
        lab(&["tell", socket].into_iter().chain(line.split_whitespace()).collect::<Vec<_>>())
    }

    fn inside(&self, end: usize, program: &str, arguments: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[end], program]).args(arguments.split_whitespace());
        command
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in [Some(&mut self.link), self.server.as_mut()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

#[test]
fn a_link_delays_loses_and_is_cut() {
    if !can_build("link") {
        return;
    }
    let mut pair = Pair::new("smoke", "both delay=20ms");
    pair.server = Some(pair.inside(1, LAB, "stand-in --listen 10.9.0.2:9000").spawn().unwrap());
    let load = |words: &str| {
        let words = format!("load --to 10.9.0.2:9000 --body 15000 {words}");
        let done = pair.inside(0, LAB, &words).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    let begun = Instant::now();
    while load("--requests 1 --timeout 1")["ok"] != 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the server does not answer");
    }
    // There and back once, on a connection that is open, with a window that holds the body after the first requests.
    let calm = load("--requests 20");
    assert_eq!((&calm["ok"], &calm["failed"]), (&20.into(), &0.into()));
    let half = calm["p50_ms"].as_f64().unwrap();
    // How much more it is depends on what else the machine does.
    assert!(half >= 40.0, "40 ms there and back, not {half}");

    assert!(pair.tell("both loss=10").status.success());
    assert_eq!(load("--connections 10 --requests 20 --timeout 120")["ok"], 20, "TCP mends losses");
    let stats: Value = serde_json::from_slice(&pair.tell("stats").stdout).unwrap();
    assert!(stats["ab"]["lost"].as_u64().unwrap() > 0 && stats["ba"]["lost"].as_u64().unwrap() > 0, "{stats}");

    assert!(pair.tell("both loss=0 down").status.success());
    assert_eq!(load("--requests 1 --timeout 1")["failures"]["timeout"], 1);
    assert!(pair.tell("both up").status.success());
    assert_eq!(load("--requests 1 --timeout 10")["ok"], 1);

    let wrong = pair.tell("both wings=2");
    assert!(!wrong.status.success() && words(&wrong).contains("wings=2"));
}

#[test]
fn a_run_leaves_records_a_table_and_nothing_else() {
    if !can_build("run") {
        return;
    }
    if !words(&lab(&["peers"])).lines().any(|line| line.starts_with("direct") && line.contains("there")) {
        return eprintln!("run skipped: there is no haproxy on PATH");
    }
    let folder = tempfile::tempdir().unwrap();
    let (results, work) = (folder.path().join("results.jsonl"), folder.path().join("work"));
    let (results, work) = (results.to_str().unwrap(), work.to_str().unwrap());
    let arguments = ["run", "--peers", "direct", "--scenarios", "smoke", "--lab", "smoke", "--work", work];
    let run = || lab(&[&arguments[..], &["--out", results]].concat());
    let first = run();
    assert!(first.status.success(), "{}", words(&first));
    let spaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!words(&spaces).contains("adit-labsmoke-"), "namespaces are taken away");
    let again = run();
    assert!(words(&again).contains("done before"), "{}", words(&again));
    let table = lab(&["table", results]);
    assert!(table.status.success() && words(&table).contains("### smoke: 150k"), "{}", words(&table));
}
