//! Names of files, their length, and the words and calls that are kept to one place.

use crate::paths::{paths, tokens};
use crate::source::{Source, house};
use crate::{Breach, finds, kept};

// Over this, a file is two files.
const FILE_LINES: usize = 600;

// Names that say nothing of what is inside, and so attract everything.
const EMPTY_NAMES: [&str; 9] = ["util", "utils", "helper", "helpers", "misc", "base", "manager", "types", "constants"];

fn badly_named(sources: &[Source]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources {
        for (depth, part) in source.path.split('/').enumerate() {
            let name = part.strip_suffix(".rs").unwrap_or(part);
            if EMPTY_NAMES.contains(&name) || (name == "common" && depth > 0) {
                found.push(Breach::new(&source.path, 1, format!("is named {name}: name it after what is inside")));
            }
        }
    }
    found
}

#[test]
fn file_names_say_something() {
    kept(
        "no file is named util, helper, misc, common (below the top), base, manager, types or constants",
        &badly_named(house()),
    );
}

#[test]
fn file_names_can_fail() {
    let planted = ["common/src/id.rs", "relay/src/utils.rs", "relay/tests/common/mod.rs", "relay/src/basement.rs"];
    let planted = planted.map(|path| Source::new(path, ""));
    finds(&badly_named(&planted), &["relay/src/utils.rs:1", "relay/tests/common/mod.rs:1"]);
}

fn too_long(sources: &[Source]) -> Vec<Breach> {
    let long = sources.iter().filter(|source| source.lines.len() > FILE_LINES + 1);
    long.map(|source| Breach::new(&source.path, source.lines.len(), format!("is over {FILE_LINES} lines"))).collect()
}

#[test]
fn files_are_short() {
    kept("no file is over 600 lines", &too_long(house()));
}

#[test]
fn files_are_short_can_fail() {
    let planted = [
        Source::new("relay/src/long.rs", &"\n".repeat(FILE_LINES + 1)),
        Source::new("relay/src/full.rs", &"\n".repeat(FILE_LINES)),
    ];
    finds(&too_long(&planted), &["relay/src/long.rs:602"]);
}

/// Lines of shipped code outside of `homes` where one of the words stands.
fn words_outside(sources: &[Source], homes: &[&str], words: &[&str]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !homes.iter().any(|home| source.path.starts_with(home))) {
        for (line, token) in tokens(source) {
            if words.contains(&token.as_str()) {
                found.push(Breach::new(&source.path, line, format!("names {token}")));
            }
        }
    }
    found
}

fn paths_outside(sources: &[Source], homes: &[&str], banned: &[&str]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !homes.iter().any(|home| source.path.starts_with(home))) {
        for named in paths(source) {
            if banned.iter().any(|banned| named.starts_with(banned)) {
                found.push(Breach::new(&source.path, named.line, format!("names {}", named.text())));
            }
        }
    }
    found
}

fn is_unsafe(sources: &[Source]) -> Vec<Breach> {
    // Also in tests: memory is not safer there.
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("kernels/")) {
        for (index, line) in source.lines.iter().enumerate() {
            let mut words = line.code.split(|char: char| !char.is_alphanumeric() && char != '_');
            if words.any(|word| word == "unsafe") {
                found.push(Breach::new(&source.path, index + 1, "says unsafe"));
            }
        }
    }
    found
}

#[test]
fn nobody_says_unsafe() {
    kept("unsafe only in kernels", &is_unsafe(house()));
}

#[test]
fn nobody_says_unsafe_can_fail() {
    let planted = [
        Source::new("kernels/src/pool.rs", "unsafe { x() }"),
        Source::new("relay/src/a.rs", "#![forbid(unsafe_code)]\nfn a() { unsafe { x() } } // unsafe\n"),
        Source::new("relay/tests/all.rs", "unsafe { x() }"),
    ];
    finds(&is_unsafe(&planted), &["relay/src/a.rs:2", "relay/tests/all.rs:1"]);
}

fn spawns(sources: &[Source]) -> Vec<Breach> {
    let banned = ["tokio::spawn", "tokio::task::spawn", "tokio::task::spawn_local", "task::spawn", "task::spawn_local"];
    paths_outside(sources, &["common/src/daemon/shutdown.rs"], &banned)
}

#[test]
fn tasks_are_spawned_in_one_place() {
    kept(
        "tokio::spawn only in common/src/daemon/shutdown.rs: every task belongs to a Shutdown scope",
        &spawns(house()),
    );
}

#[test]
fn tasks_are_spawned_in_one_place_can_fail() {
    let planted = [
        Source::new("common/src/daemon/shutdown.rs", "fn f() { tokio::spawn(x); }"),
        Source::new("relay/src/a.rs", "use tokio::task;\nfn f() { task::spawn(x); tokio::task::spawn_blocking(y); }"),
        Source::new("relay/src/b.rs", "use tokio::{select, spawn};\n#[test]\nfn t() { tokio::spawn(x); }"),
    ];
    finds(&spawns(&planted), &["relay/src/a.rs:2", "relay/src/b.rs:1"]);
}

fn unbounded(sources: &[Source]) -> Vec<Breach> {
    let names = ["unbounded", "unbounded_channel", "UnboundedSender", "UnboundedReceiver"];
    let mut found = words_outside(sources, &[], &names);
    // A channel that is asked for no capacity; only of a oneshot is that known from its name.
    for source in sources {
        for (line, text) in source.shipped() {
            for (at, _) in text.code.match_indices("channel") {
                let rest = &text.code[at + "channel".len()..];
                let before = text.code[..at].trim_end_matches("::");
                let rest = if rest.starts_with("::<") {
                    rest.rsplit_once(">(").map_or("", |(_, rest)| rest)
                } else {
                    rest.strip_prefix('(').unwrap_or("")
                };
                if rest.starts_with(')')
                    && !before.ends_with("oneshot")
                    && !before.ends_with('_')
                    && !before.ends_with("fn ")
                {
                    found.push(Breach::new(&source.path, line, "makes a channel without a bound"));
                }
            }
        }
    }
    found
}

#[test]
fn channels_are_bounded() {
    kept("no unbounded channels: full means Overloaded", &unbounded(house()));
}

#[test]
fn channels_are_bounded_can_fail() {
    let text = "use tokio::sync::mpsc::unbounded_channel;\nlet a = std::sync::mpsc::channel::<(u8, Vec<u8>)>();\n\
                let b = mpsc::channel();\nlet c = tokio::sync::oneshot::channel();\nlet d = mpsc::channel(4);\n\
                let e = oneshot::channel::<Vec<u8>>();\nlet f = watch::channel(());";
    finds(
        &unbounded(&[Source::new("relay/src/a.rs", text)]),
        &["relay/src/a.rs:1", "relay/src/a.rs:2", "relay/src/a.rs:3"],
    );
}

fn unwraps(sources: &[Source]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.shipped() {
            let Some(call) = [".unwrap()", ".expect("].into_iter().find(|call| line.code.contains(call)) else {
                continue;
            };
            // The reason stands on the line, or above the statement that the line belongs to.
            let above = source.lines[..number - 1]
                .iter()
                .rev()
                .take_while(|line| !line.code.trim_end().ends_with([';', '{', '}']));
            if !std::iter::once(line).chain(above).any(|line| line.comment.contains("invariant: ")) {
                found.push(Breach::new(&source.path, number, format!("{call} without an // invariant: line")));
            }
        }
    }
    found
}

#[test]
fn unwraps_have_a_reason() {
    kept("unwrap and expect outside of tests only under `// invariant: why it cannot fail`", &unwraps(house()));
}

#[test]
fn unwraps_can_fail() {
    let text = "fn f() {\n  a.unwrap();\n  // invariant: checked above\n  b.unwrap();\n  // invariant: it is there\n  let c = c\n\
                    .d()\n    .expect(\"d\");\n  e.expect(\"e\"); // invariant: e\n  f.unwrap_or(1);\n  g\n    .unwrap();\n}\n\
                #[cfg(test)]\nmod tests { fn t() { h.unwrap() } }";
    finds(&unwraps(&[Source::new("relay/src/a.rs", text)]), &["relay/src/a.rs:2", "relay/src/a.rs:12"]);
}

fn unfinished(sources: &[Source]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources {
        for pair in tokens(source).windows(2) {
            if matches!(pair[0].1.as_str(), "todo" | "unimplemented" | "dbg") && pair[1].1 == "!" {
                found.push(Breach::new(&source.path, pair[0].0, format!("says {}!", pair[0].1)));
            }
        }
    }
    found
}

#[test]
fn nothing_is_a_stub() {
    kept("no todo!, unimplemented! or dbg!", &unfinished(house()));
}

#[test]
fn stubs_can_fail() {
    finds(&unfinished(&[Source::new("relay/src/a.rs", "// todo!()\nfn f() { todo!() }")]), &["relay/src/a.rs:2"]);
}

fn environment(sources: &[Source]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.is_main() && !source.path.ends_with("/build.rs")) {
        for named in paths(source) {
            if named.starts_with("std::env")
                || ["var", "var_os", "vars", "args", "args_os"]
                    .iter()
                    .any(|call| named.starts_with(&format!("env::{call}")))
            {
                found.push(Breach::new(&source.path, named.line, format!("names {}", named.text())));
            }
        }
    }
    found
}

#[test]
fn the_environment_is_read_in_main_only() {
    kept("std::env only in main.rs: what a room needs is handed to it", &environment(house()));
}

#[test]
fn the_environment_can_fail() {
    let planted = [
        Source::new("relay/src/main.rs", "fn main() { std::env::args(); }"),
        Source::new("relay/src/config.rs", "const V: &str = env!(\"X\");\nfn f() { std::env::var(\"HOME\"); }"),
        Source::new("relay/src/a.rs", "use std::{env, fs};"),
    ];
    finds(&environment(&planted), &["relay/src/config.rs:2", "relay/src/a.rs:1"]);
}

const NETWORK: [&str; 8] =
    ["tokio", "quinn", "hyper", "std::net", "std::os::unix::net", "socket2", "rustls", "std::time::SystemTime"];

fn computing_looks_out(sources: &[Source]) -> Vec<Breach> {
    let inside: Vec<_> =
        sources.iter().filter(|source| matches!(source.krate(), "picture" | "vision" | "kernels")).collect();
    let mut found = Vec::new();
    for source in inside {
        let named = paths(source).into_iter().filter(|named| NETWORK.iter().any(|banned| named.starts_with(banned)));
        found.extend(named.map(|named| Breach::new(&source.path, named.line, format!("names {}", named.text()))));
        let clocks = tokens(source)
            .into_iter()
            .filter(|(_, token)| matches!(token.as_str(), "SystemTime" | "Instant" | "OffsetDateTime"));
        found
            .extend(clocks.map(|(line, token)| Breach::new(&source.path, line, format!("looks at a clock ({token})"))));
    }
    found
}

#[test]
fn vision_picture_and_kernels_only_compute() {
    kept("vision, picture and kernels name no runtime, no network and no clock", &computing_looks_out(house()));
}

#[test]
fn vision_and_kernels_can_fail() {
    let planted = [
        Source::new("vision/src/weights.rs", "use std::fs;\nuse std::net::TcpStream;\nfn f() { Instant::now(); }"),
        Source::new("agent/src/serving/worker.rs", "use std::time::Instant;"),
    ];
    finds(&computing_looks_out(&planted), &["vision/src/weights.rs:2", "vision/src/weights.rs:3"]);
}

const PURE: [&str; 14] = [
    "common/src/tunnel/frame",
    "common/src/tunnel/fields",
    "common/src/tunnel/pulse",
    "common/src/tunnel/congestion/adaptive",
    "common/src/tunnel/congestion/calm",
    "common/src/tunnel/congestion/contested",
    "common/src/tunnel/congestion/cubic",
    "common/src/tunnel/congestion/evidence",
    "common/src/tunnel/congestion/extreme",
    "common/src/tunnel/congestion/round",
    "common/src/tunnel/congestion/start",
    "common/src/tunnel/turns/queue",
    "agent/src/serving/batcher",
    "agent/src/serving/cost",
];

fn pure_acts(sources: &[Source]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| PURE.iter().any(|pure| source.path.starts_with(pure))) {
        let banned = ["tokio", "quinn", "hyper", "socket2", "std::io", "std::fs", "std::net", "std::thread"];
        let named = paths(source).into_iter().filter(|named| banned.iter().any(|banned| named.starts_with(banned)));
        found.extend(named.map(|named| Breach::new(&source.path, named.line, format!("names {}", named.text()))));
        let acts = ["spawn", "now", "elapsed", "sleep", "await"];
        let calls = tokens(source).into_iter().filter(|(_, token)| acts.contains(&token.as_str()));
        // `now` is also the right name for the parameter: only the call is a clock.
        let calls = calls
            .filter(|(line, token)| token != "now" || source.lines[line - 1].code.replace(' ', "").contains("::now("));
        found.extend(calls.map(|(line, token)| Breach::new(&source.path, line, format!("does {token}"))));
    }
    found
}

#[test]
fn codecs_controls_and_the_batcher_are_pure() {
    kept(
        "the tunnel's codecs, turns, congestion control and pulse, serving/batcher and serving/cost do no IO, spawn nothing and ask no clock",
        &pure_acts(house()),
    );
}

#[test]
fn codecs_controls_and_the_batcher_can_fail() {
    let planted = [
        Source::new("common/src/tunnel/frame.rs", "use std::io::Read;\nasync fn f() { x.await }"),
        Source::new("agent/src/serving/batcher.rs", "fn poll(now: Instant) {}\nfn g() { Instant::now(); }"),
        Source::new("common/src/tunnel/session.rs", "use tokio::time;"),
    ];
    let places = ["common/src/tunnel/frame.rs:1", "common/src/tunnel/frame.rs:2", "agent/src/serving/batcher.rs:2"];
    finds(&pure_acts(&planted), &places);
}

/// The agent's own listener is one too: what axum offers spawns outside every scope and has no time-out for heads.
fn hyper_serves(sources: &[Source]) -> Vec<Breach> {
    let banned = ["hyper::server", "hyper_util::server"];
    paths_outside(sources, &["relay/", "agent/src/api/listener", "common/src/tunnel/fallback"], &banned)
}

#[test]
fn hyper_is_a_server_where_there_is_a_listener_only() {
    kept("hyper as a server only in relay, the agent's listener and common/tunnel/fallback", &hyper_serves(house()));
}

#[test]
fn hyper_as_a_server_can_fail() {
    let planted = [
        Source::new("relay/src/front/tcp.rs", "use hyper::server::conn::http1;"),
        Source::new(
            "client/src/load.rs",
            "use hyper_util::server::conn::auto::Builder;\nuse hyper::client::conn::http2;",
        ),
    ];
    finds(&hyper_serves(&planted), &["client/src/load.rs:1"]);
}
