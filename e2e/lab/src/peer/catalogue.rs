//! All peers, by the names that `--peers` knows.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, bail};

use super::adit::{Adit, Serves, Variant};
use super::bore::Bore;
use super::chisel::Chisel;
use super::direct::Direct;
use super::rathole::{Over, Rathole};
use super::rusnel::Rusnel;
use super::ssh::Ssh;
use super::wstunnel::Wstunnel;
use crate::house::Peer;

/// The names, in the order of a table.
pub(crate) const NAMES: [&str; 13] = [
    "direct",
    "adit",
    "adit-model",
    "rathole",
    "rathole-noise",
    "rathole-tls",
    "rathole-wss",
    "bore",
    "wstunnel",
    "wstunnel-quic",
    "chisel",
    "rusnel",
    "ssh",
];

/// A peer as it was asked for: `NAME`, `adit:FILE`, either with `+bbr` or another of TCP's congestion controls behind it.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// What it is called in records and tables.
    pub(crate) name: String,
    /// TCP's congestion control, if not the scenario's.
    pub(crate) congestion: Option<String>,
    /// How it is started.
    pub(crate) peer: Rc<dyn Peer>,
}

/// The peer that `text` asks for.
pub(crate) fn find(text: &str) -> anyhow::Result<Wanted> {
    let (name, congestion) = match text.split_once('+') {
        Some((name, congestion)) => (name, Some(congestion.to_owned())),
        None => (text, None),
    };
    let peer: Rc<dyn Peer> = match name.split_once(':') {
        Some((base @ ("adit" | "adit-model"), file)) => {
            let path = Path::new(file);
            let stem = path.file_stem().context("no file of a variant")?.display();
            Rc::new(adit(base, format!("{base}:{stem}"), Variant::read(path)?))
        }
        Some((base, _)) => bail!("{base} has no variants, only adit has"),
        None => match name {
            "adit" | "adit-model" => Rc::new(adit(name, name.into(), Variant::default())),
            "direct" => Rc::new(Direct),
            "rathole" => Rc::new(Rathole { over: Over::Tcp }),
            "rathole-noise" => Rc::new(Rathole { over: Over::Noise }),
            "rathole-tls" => Rc::new(Rathole { over: Over::Tls }),
            "rathole-wss" => Rc::new(Rathole { over: Over::Wss }),
            "bore" => Rc::new(Bore),
            "wstunnel" => Rc::new(Wstunnel { quic: false }),
            "wstunnel-quic" => Rc::new(Wstunnel { quic: true }),
            "chisel" => Rc::new(Chisel),
            "rusnel" => Rc::new(Rusnel),
            "ssh" => Rc::new(Ssh),
            _ => bail!("there is no peer {name}; there are {}", NAMES.join(", ")),
        },
    };
    let suffix = congestion.as_ref().map(|congestion| format!("+{congestion}")).unwrap_or_default();
    Ok(Wanted { name: peer.name() + &suffix, congestion, peer })
}

fn adit(base: &str, name: String, variant: Variant) -> Adit {
    let serves = if base == "adit" { Serves::Upstream } else { Serves::Model };
    Adit { name, serves, variant }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known() {
        for name in NAMES {
            assert_eq!(find(name).unwrap().name, name);
        }
        let wanted = find("direct+bbr").unwrap();
        assert_eq!((wanted.name.as_str(), wanted.congestion.as_deref()), ("direct+bbr", Some("bbr")));
        for wrong in ["", "carrier-pigeon", "rathole:x.toml", "adit:/no/such/file.toml"] {
            assert!(find(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_variant_is_named_after_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cubic.toml");
        std::fs::write(&file, "[relay.tunnel]\ncongestion = \"cubic\"\n").unwrap();
        assert_eq!(find(&format!("adit:{}+bbr", file.display())).unwrap().name, "adit:cubic+bbr");
    }
}
