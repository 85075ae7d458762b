//! Which room may name which, and what a door may be.
//!
//! A request only ever walks down the stairs. So a room below never names one above, and nothing needs a circle.

use std::collections::BTreeSet;

use crate::paths::{Named, paths, tokens};
use crate::source::{Source, house};
use crate::{Breach, finds, kept};

// A door is read at one glance.
const DOOR_LINES: usize = 60;

/// Files under `place` (`relay/src/fleet`: that folder, or that file) name none of `banned`; `except` stay out of it.
fn apart(sources: &[Source], places: &[&str], except: &[&str], banned: &[&str]) -> Vec<Breach> {
    let under = |source: &Source, place: &&str| {
        let rest = source.path.strip_prefix(*place);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs" || place.ends_with('/'))
    };
    let mut found = Vec::new();
    for source in sources {
        if !places.iter().any(|place| under(source, place)) || except.iter().any(|place| under(source, place)) {
            continue;
        }
        for named in paths(source) {
            if let Some(banned) = banned.iter().find(|banned| named.starts_with(banned)) {
                found.push(Breach::new(
                    &source.path,
                    named.line,
                    format!("names {} ({banned} is out of bounds)", named.text()),
                ));
            }
        }
    }
    found
}

fn fleet_looks_up(sources: &[Source]) -> Vec<Breach> {
    apart(sources, &["relay/src/fleet"], &[], &["crate::proxy", "crate::front"])
}

#[test]
fn relay_fleet_names_neither_proxy_nor_front() {
    kept("relay/fleet names neither proxy nor front", &fleet_looks_up(house()));
}

#[test]
fn relay_fleet_can_fail() {
    let planted = [
        Source::new(
            "relay/src/fleet/registry.rs",
            "use crate::fleet::health::Health;\nuse super::super::front::Service;",
        ),
        Source::new("relay/src/fleet/mod.rs", "mod registry;\npub use crate::proxy::call::Call;"),
        Source::new("relay/src/proxy/call.rs", "use crate::fleet::Registry;"),
    ];
    finds(&fleet_looks_up(&planted), &["relay/src/fleet/registry.rs:2", "relay/src/fleet/mod.rs:2"]);
}

fn proxy_looks_up(sources: &[Source]) -> Vec<Breach> {
    apart(sources, &["relay/src/proxy"], &[], &["crate::front"])
}

#[test]
fn relay_proxy_names_no_front() {
    kept("relay/proxy names no front", &proxy_looks_up(house()));
}

#[test]
fn relay_proxy_can_fail() {
    let planted = [Source::new("relay/src/proxy/forward.rs", "use crate::{fleet, front::body::FrontBody};")];
    finds(&proxy_looks_up(&planted), &["relay/src/proxy/forward.rs:1"]);
}

fn admin_is_named(sources: &[Source]) -> Vec<Breach> {
    apart(sources, &["relay/src/"], &["relay/src/relay", "relay/src/admin"], &["crate::admin"])
}

#[test]
fn only_the_relay_names_admin() {
    kept("nobody but relay.rs names admin", &admin_is_named(house()));
}

#[test]
fn only_the_relay_names_admin_can_fail() {
    let planted = [
        Source::new("relay/src/relay.rs", "use crate::admin::Admin;"),
        Source::new("relay/src/admin/web.rs", "use crate::admin::fleet::list;"),
        Source::new("relay/src/main.rs", "fn main() { adit_relay::admin::serve() }"),
    ];
    finds(&admin_is_named(&planted), &["relay/src/main.rs:1"]);
}

fn serving_knows_http(sources: &[Source]) -> Vec<Breach> {
    let banned =
        ["crate::api", "crate::hub", "crate::workbench", "http", "hyper", "axum", "tonic", "reqwest", "hf_hub"];
    apart(sources, &["agent/src/serving"], &[], &banned)
}

#[test]
fn agent_serving_names_no_api_and_no_http() {
    kept("agent/serving names neither api nor hub nor HTTP", &serving_knows_http(house()));
}

#[test]
fn agent_serving_can_fail() {
    let text =
        "use crate::error::InferError;\nfn f() -> http::StatusCode { crate::api::spell() }\nuse crate::hub::Hub;";
    let planted = [Source::new("agent/src/serving/infer.rs", text)];
    let infer = |line: usize| format!("agent/src/serving/infer.rs:{line}");
    finds(&serving_knows_http(&planted), &[&infer(2), &infer(2), &infer(3)]);
}

fn api_knows_tunnel(sources: &[Source]) -> Vec<Breach> {
    apart(sources, &["agent/src/api"], &[], &["crate::tunnel", "adit_common::tunnel", "quinn", "h3"])
}

#[test]
fn agent_api_names_no_tunnel_and_no_quic() {
    kept("agent/api names neither tunnel nor QUIC", &api_knows_tunnel(house()));
}

#[test]
fn agent_api_can_fail() {
    let planted =
        [Source::new("agent/src/api/router.rs", "use adit_common::tunnel::Callee;\nuse adit_common::id::AgentId;")];
    finds(&api_knows_tunnel(&planted), &["agent/src/api/router.rs:1"]);
}

fn upstream_looks_up(sources: &[Source]) -> Vec<Breach> {
    let banned = ["crate::api", "crate::serving", "crate::tunnel", "adit_common::tunnel", "quinn"];
    apart(sources, &["agent/src/upstream"], &[], &banned)
}

#[test]
fn agent_upstream_names_no_api_no_serving_and_no_tunnel() {
    kept("agent/upstream names neither api nor serving nor tunnel", &upstream_looks_up(house()));
}

#[test]
fn agent_upstream_can_fail() {
    let planted =
        [Source::new("agent/src/upstream/carry.rs", "use crate::config::Config;\nuse crate::serving::Serving;")];
    finds(&upstream_looks_up(&planted), &["agent/src/upstream/carry.rs:2"]);
}

/// A crate's `config.rs`, `error.rs` and `metrics.rs` stand on the ground: they name no folder of their crate, nor the
/// file that puts the folders together.
fn ground_looks_up(sources: &[Source]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources {
        let (krate, module) = (source.krate(), source.module().unwrap_or_default());
        if !matches!(module.as_slice(), ["config" | "error" | "metrics", ..]) {
            continue;
        }
        let rooms: BTreeSet<&str> = sources
            .iter()
            .filter(|other| other.krate() == krate)
            .filter_map(|other| other.path.split_once("/src/")?.1.split_once('/').map(|(room, _)| room))
            .chain([krate])
            .filter(|room| *room != module[0])
            .collect();
        for named in paths(source) {
            if let Some(room) =
                named.inside().and_then(|inside| inside.first()).filter(|room| rooms.contains(room.as_str()))
            {
                found.push(Breach::new(&source.path, named.line, format!("names {}: {room} is a room", named.text())));
            }
        }
    }
    found
}

#[test]
fn config_error_and_metrics_import_no_room() {
    kept("config, error and metrics import no room", &ground_looks_up(house()));
}

#[test]
fn config_error_and_metrics_can_fail() {
    let planted = [
        Source::new("relay/src/front/tcp.rs", "use crate::config::FrontConfig;"),
        Source::new("relay/src/config.rs", "use crate::error::ProxyError;\nuse crate::front::tcp::Limits;"),
        Source::new("relay/src/metrics.rs", "use crate::relay::Relay;"),
    ];
    finds(&ground_looks_up(&planted), &["relay/src/config.rs:2", "relay/src/metrics.rs:1"]);
}

fn doors_define(sources: &[Source]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.is_door()) {
        if source.lines.len() > DOOR_LINES + 1 {
            found.push(Breach::new(&source.path, source.lines.len(), format!("is over {DOOR_LINES} lines")));
        }
        let tokens = tokens(source);
        let (mut depth, mut item): (i32, Vec<&str>) = (0, Vec::new());
        for (at, (line, token)) in tokens.iter().enumerate() {
            let is_attribute = token == "[" && at > 0 && matches!(tokens[at - 1].1.as_str(), "#" | "!");
            match token.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && token == ";" {
                item.clear();
            } else if depth == 0 && !is_attribute && !matches!(token.as_str(), "#" | "!" | "]" | ")") {
                item.push(token);
                // The first word that says what the item is.
                let kind = item.iter().find(|word| !matches!(**word, "pub"));
                if item.len() <= 2 && kind.is_some_and(|kind| !matches!(*kind, "mod" | "use")) {
                    found.push(Breach::new(
                        &source.path,
                        *line,
                        format!("a door defines nothing, but here is `{token}`"),
                    ));
                }
            } else if depth == 1 && token == "{" && item.contains(&"mod") {
                found.push(Breach::new(
                    &source.path,
                    *line,
                    "a door defines nothing, but here is the body of a module",
                ));
            }
        }
    }
    found
}

#[test]
fn doors_define_nothing() {
    kept("a door (mod.rs, lib.rs) has docs, mod and pub use, in at most 60 lines", &doors_define(house()));
}

#[test]
fn doors_can_fail() {
    let good = "//! Docs.\n#![cfg_attr(test, allow(x))]\nmod a;\npub(crate) mod b;\npub use a::{A, B as C};\n#[cfg(unix)]\npub mod c;\n";
    finds(&doors_define(&[Source::new("relay/src/lib.rs", good)]), &[]);
    let planted = [
        Source::new("relay/src/lib.rs", "mod a;\npub struct Relay;\n#[derive(Debug)]\nenum E { A }\n"),
        Source::new("relay/src/front/mod.rs", "pub use tcp::X;\nmod tcp { pub struct X; }\n"),
        Source::new("relay/src/proxy/mod.rs", &"// line\n".repeat(DOOR_LINES + 1)),
    ];
    let places = ["relay/src/lib.rs:2", "relay/src/lib.rs:4", "relay/src/front/mod.rs:2", "relay/src/proxy/mod.rs:62"];
    let found: Vec<_> = doors_define(&planted).into_iter().map(|breach| breach.place).collect();
    for place in places {
        assert!(found.iter().any(|found| found == place), "{place} is not among {found:?}");
    }
}

/// A file takes an item from the file that defines it, never from a door above itself: that would be a circle.
fn child_uses_door(sources: &[Source]) -> Vec<Breach> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.is_main()) {
        let Some(module) = source.module() else { continue };
        let modules: BTreeSet<Vec<&str>> =
            sources.iter().filter(|other| other.krate() == source.krate()).filter_map(Source::module).collect();
        // A folder's module may have no door among the planted sources: its files tell of it.
        let exists = |path: &[&str]| modules.iter().any(|module| module.starts_with(path));
        for named in paths(source) {
            let Some(inside) = named.inside() else { continue };
            let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
            let shared = inside.iter().zip(&module).take_while(|(one, other)| one == other).count();
            // Inside of itself, a file may name what it likes.
            if shared == module.len() && !module.is_empty() || module.is_empty() {
                continue;
            }
            if inside.len() == shared || !exists(&inside[..=shared]) {
                found.push(Breach::new(
                    &source.path,
                    named.line,
                    format!("names {} through a door above itself", named.text()),
                ));
            }
        }
    }
    found
}

#[test]
fn children_do_not_import_from_a_door_above() {
    kept("a child imports the sibling file, not its own parent's door", &child_uses_door(house()));
}

#[test]
fn children_and_doors_can_fail() {
    let planted = [
        Source::new("relay/src/lib.rs", "mod error;\npub use error::ProxyError;"),
        Source::new("relay/src/error.rs", ""),
        Source::new("relay/src/front/service.rs", ""),
        Source::new("relay/src/proxy/mod.rs", "pub use call::Call;"),
        Source::new("relay/src/proxy/call.rs", ""),
        Source::new(
            "relay/src/front/tcp.rs",
            "use super::service::Service;\nuse crate::error::ProxyError;\nuse crate::proxy::Call;\n\
             use super::Service;\nuse crate::ProxyError;\nuse super::*;\nuse crate::front::{Limits, service};\n\
             #[cfg(test)]\nmod tests { use super::*; }",
        ),
    ];
    let places = [4, 5, 6, 7].map(|line| format!("relay/src/front/tcp.rs:{line}"));
    finds(&child_uses_door(&planted), &places.each_ref().map(String::as_str));
}

#[test]
fn a_named_path_is_compared_part_by_part() {
    let named = Named { line: 1, parts: vec!["crate".into(), "frontier".into()] };
    assert!(!named.starts_with("crate::front") && named.starts_with("crate::frontier"));
}
