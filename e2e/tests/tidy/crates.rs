//! Which crate may depend on which, as cargo itself tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{Breach, finds, kept};

/// What each crate of the workspace may depend on, besides what comes from the registry.
const STAIRS: [(&str, &[&str]); 11] = [
    ("kernels", &[]),
    ("picture", &[]),
    ("vision", &["kernels", "picture"]),
    ("common", &[]),
    ("certs", &["common"]),
    ("proto", &[]),
    ("relay", &["common", "certs"]),
    ("agent", &["common", "certs", "proto", "picture", "vision"]),
    ("client", &["common", "picture"]),
    // It runs Adit's programs as it runs everybody else's.
    ("lab", &[]),
    ("e2e", &["kernels", "picture", "vision", "common", "certs", "proto", "relay", "agent", "client"]),
];

/// Crates of the registry that live in one place, so that the others need not build or know them.
const HOMES: [(&str, &[&str]); 19] = [
    ("rcgen", &["certs", "lab"]),
    ("candle-core", &["vision"]),
    ("candle-nn", &["vision"]),
    ("candle-transformers", &["vision"]),
    ("image", &["picture"]),
    ("mozjpeg", &["picture"]),
    ("fast_image_resize", &["vision"]),
    ("zune-jpeg", &["vision"]),
    ("safetensors", &["vision"]),
    ("axum", &["agent"]),
    ("tonic", &["agent", "proto"]),
    ("utoipa", &["agent"]),
    ("utoipa-swagger-ui", &["agent"]),
    ("hf-hub", &["agent"]),
    ("reqwest", &["agent"]),
    ("h3", &["relay"]),
    ("h3-quinn", &["relay"]),
    ("rustls-platform-verifier", &["client"]),
    ("tun-rs", &["lab"]),
];

/// What must not even be reached through others.
const APART: [(&str, &[&str]); 6] = [
    ("relay", &["adit-picture", "adit-vision", "adit-kernels", "adit-agent", "adit-client", "candle-core", "axum"]),
    ("agent", &["adit-relay", "adit-client"]),
    ("client", &["adit-vision", "adit-agent", "adit-relay", "candle-core"]),
    ("vision", &["tokio", "quinn", "hyper", "socket2", "rustls"]),
    ("kernels", &["tokio", "quinn", "hyper", "candle-core"]),
    ("picture", &["tokio", "quinn", "hyper", "socket2", "rustls", "candle-core"]),
];

/// One crate of the workspace: what it asks for, and what it ends up with on this machine.
#[derive(Default)]
struct Member {
    /// For its program; for a build script too.
    direct: BTreeSet<String>,
    /// For its tests.
    dev: BTreeSet<String>,
    /// All that its program is built from.
    reached: BTreeSet<String>,
}

type Members = BTreeMap<String, Member>;

fn short(name: &str) -> &str {
    name.strip_prefix("adit-").unwrap_or(name)
}

fn climbs(members: &Members) -> Vec<Breach> {
    let mut found = Vec::new();
    for (name, member) in members {
        let Some((_, allowed)) = STAIRS.iter().find(|(known, _)| known == name) else {
            found.push(Breach::new(
                &format!("{name}/Cargo.toml"),
                1,
                "is a crate that the table of stairs does not know",
            ));
            continue;
        };
        let above = member.direct.iter().filter(|other| other.starts_with("adit-") && !allowed.contains(&short(other)));
        found.extend(above.map(|other| Breach::new(&format!("{name}/Cargo.toml"), 1, format!("depends on {other}"))));
    }
    found
}

#[test]
fn crates_depend_down_the_stairs() {
    kept("which crate may depend on which (ARCHITECTURE.md)", &climbs(members()));
}

fn strays(members: &Members) -> Vec<Breach> {
    let mut found = Vec::new();
    for (name, member) in members.iter().filter(|(name, _)| *name != "e2e") {
        for (krate, homes) in HOMES {
            if member.direct.contains(krate) && !homes.contains(&name.as_str()) {
                found.push(Breach::new(
                    &format!("{name}/Cargo.toml"),
                    1,
                    format!("depends on {krate}, whose home is {homes:?}"),
                ));
            }
        }
    }
    found
}

#[test]
fn third_parties_live_in_one_place() {
    kept("a third-party crate with a home is used there only (tests may)", &strays(members()));
}

fn reaches(members: &Members) -> Vec<Breach> {
    let mut found = Vec::new();
    for (name, banned) in APART {
        let Some(member) = members.get(name) else { continue };
        let workspace = |krate: &str| krate.starts_with("adit-") && member.dev.contains(krate);
        let wrong = banned.iter().filter(|krate| member.reached.contains(**krate) || workspace(krate));
        found.extend(wrong.map(|krate| Breach::new(&format!("{name}/Cargo.toml"), 1, format!("reaches {krate}"))));
    }
    let with_client = members.iter().filter(|(name, _)| !matches!(name.as_str(), "client" | "e2e"));
    let with_client = with_client.filter(|(_, member)| member.reached.contains("adit-client"));
    found.extend(with_client.map(|(name, _)| Breach::new(&format!("{name}/Cargo.toml"), 1, "reaches adit-client")));
    found
}

#[test]
fn nothing_is_reached_by_a_detour() {
    kept(
        "relay reaches no vision, kernels, candle; relay and agent not each other; nobody the client",
        &reaches(members()),
    );
}

#[test]
fn crate_rules_can_fail() {
    let member = |direct: &[&str], dev: &[&str], reached: &[&str]| {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Member { direct: set(direct), dev: set(dev), reached: set(reached) }
    };
    let planted: Members = [
        ("agent", member(&["adit-vision", "axum"], &["adit-relay"], &["adit-vision", "axum"])),
        ("certs", member(&["adit-common", "rcgen"], &[], &["adit-common"])),
        ("common", member(&["adit-certs"], &["rcgen"], &["adit-certs"])),
        ("extra", member(&[], &[], &[])),
        ("relay", member(&["adit-certs", "rcgen"], &[], &["adit-certs", "candle-core"])),
    ]
    .into_iter()
    .map(|(name, member)| (name.to_owned(), member))
    .collect();
    finds(&climbs(&planted), &["common/Cargo.toml:1", "extra/Cargo.toml:1"]);
    finds(&strays(&planted), &["relay/Cargo.toml:1"]);
    finds(&reaches(&planted), &["relay/Cargo.toml:1", "agent/Cargo.toml:1"]);
}

#[test]
fn cargo_was_understood() {
    let members = members();
    let certs = &members["certs"];
    assert!(certs.direct.contains("adit-common") && certs.direct.contains("rcgen"));
    assert!(certs.reached.contains("serde"), "through adit-common");
    assert!(!certs.reached.contains("proptest"), "that is for tests of adit-common only");
    assert!(members["common"].dev.contains("proptest"));
}

/// The workspace, as `cargo metadata` describes it for this machine.
fn members() -> &'static Members {
    static MEMBERS: OnceLock<Members> = OnceLock::new();
    MEMBERS.get_or_init(|| {
        let output = |command: &mut Command| {
            let output = command.current_dir(crate::root()).output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let version = output(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"));
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        // For this machine only, else cargo would want to download crates for all the others.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = ["metadata", "--format-version", "1", "--offline", "--filter-platform", host];
        read(&serde_json::from_str(&output(Command::new(cargo).args(arguments))).unwrap())
    })
}

fn read(metadata: &Value) -> Members {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    // From a package to the packages that its program is built from, and whether an edge is for tests.
    let mut edges: BTreeMap<String, Vec<(String, bool, bool)>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let targets = list(&node["deps"]).into_iter().map(|dependency| {
            let kinds = list(&dependency["dep_kinds"]);
            let has = |wanted: Option<&str>| kinds.iter().any(|kind| kind["kind"].as_str() == wanted);
            (text(&dependency["pkg"]), has(None) || has(Some("build")), has(Some("dev")))
        });
        edges.insert(text(&node["id"]), targets.collect());
    }
    let members = list(&metadata["workspace_members"]);
    let describe = |id: &Value| {
        let (id, mut member) = (text(id), Member::default());
        for (target, normal, dev) in &edges[&id] {
            let name = names[target].clone();
            if *normal {
                member.direct.insert(name.clone());
            }
            if *dev {
                member.dev.insert(name);
            }
        }
        let mut open: Vec<&str> = vec![&id];
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        while let Some(next) = open.pop() {
            for (target, _, _) in edges[next].iter().filter(|(_, normal, _)| *normal) {
                if seen.insert(target) {
                    open.push(target);
                }
            }
        }
        member.reached = seen.into_iter().map(|id| names[id].clone()).collect();
        (short(&names[&id]).to_owned(), member)
    };
    members.iter().map(describe).collect()
}
