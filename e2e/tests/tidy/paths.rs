//! The paths that a source names: every leaf of its `use` trees, and every `a::b::c` in its code.

use crate::source::Source;

/// A path as it was named, resolved to the root of its crate.
pub(crate) struct Named {
    pub(crate) line: usize,
    /// `crate` first for a path inside this crate, else the name of another crate or of something in scope.
    pub(crate) parts: Vec<String>,
}

impl Named {
    /// The parts below `crate`.
    pub(crate) fn inside(&self) -> Option<&[String]> {
        self.parts.split_first().filter(|(first, _)| *first == "crate").map(|(_, rest)| rest)
    }

    pub(crate) fn starts_with(&self, path: &str) -> bool {
        let wanted: Vec<_> = path.split("::").collect();
        self.parts.len() >= wanted.len() && self.parts.iter().zip(&wanted).all(|(part, wanted)| part == wanted)
    }

    pub(crate) fn text(&self) -> String {
        self.parts.join("::")
    }
}

/// The paths that a source names in shipped code.
pub(crate) fn paths(source: &Source) -> Vec<Named> {
    let tokens = tokens(source);
    let file = source.module();
    // The names of the modules that are open at this place, each with the depth of its braces.
    let (mut open, mut depth): (Vec<(&str, usize)>, usize) = (Vec::new(), 0);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let (first, before_count) = (at, found.len());
        match tokens[at].1.as_str() {
            "{" => {
                depth += 1;
                if at > 1 && tokens[at - 2].1 == "mod" {
                    open.push((&tokens[at - 1].1, depth));
                }
            }
            "}" => {
                if open.last().is_some_and(|(_, opened)| *opened == depth) {
                    open.pop();
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        let before = at.checked_sub(1).map(|before| tokens[before].1.as_str());
        let begins = matches!(before, None | Some(";" | "{" | "}" | ")" | "]" | "pub"));
        if tokens[at].1 == "use" && begins {
            at = tree(&tokens, at + 1, &[], &mut found);
        } else if is_name(&tokens[at].1) && before != Some("::") {
            let (line, mut parts) = (tokens[at].0, vec![tokens[at].1.clone()]);
            while tokens.get(at + 1).is_some_and(|next| next.1 == "::")
                && tokens.get(at + 2).is_some_and(|next| is_name(&next.1))
            {
                parts.push(tokens[at + 2].1.clone());
                at += 2;
            }
            // A macro at the root of a crate has nowhere else to be.
            let is_macro = tokens.get(at + 1).is_some_and(|next| next.1 == "!");
            // `pub(in crate::front)` says who may look, and takes nothing from there.
            let is_scope = before == Some("in") && first > 1 && tokens[first - 2].1 == "(";
            if parts.len() > 1 && !is_macro && !is_scope {
                found.push(Named { line, parts });
            }
            at += 1;
        } else {
            at += 1;
        }
        let module: Option<Vec<&str>> =
            file.as_ref().map(|file| file.iter().copied().chain(open.iter().map(|(name, _)| *name)).collect());
        found[before_count..]
            .iter_mut()
            .for_each(|named: &mut Named| resolve(source, module.as_deref(), &mut named.parts));
    }
    found
}

/// Words and signs of the shipped code, with their lines.
pub(crate) fn tokens(source: &Source) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (number, line) in source.shipped() {
        let mut rest = line.code.as_str();
        while let Some(char) = rest.chars().next() {
            let is_part = |char: char| char.is_alphanumeric() || char == '_';
            let length = match char {
                _ if is_part(char) => rest.find(|char| !is_part(char)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => char.len_utf8(),
            };
            if !char.is_whitespace() {
                tokens.push((number, rest[..length].to_owned()));
            }
            rest = &rest[length..];
        }
    }
    tokens
}

/// Reads one `use` tree from `at` on, and returns where it ended.
fn tree(tokens: &[(usize, String)], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let mut parts = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.0);
    while let Some((_, token)) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.1 != "}") {
                    at = tree(tokens, at, &parts, found);
                    if tokens.get(at).is_some_and(|token| token.1 == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 1,
            "," | "}" | ";" => break,
            "::" => {}
            // `a::{self}` names `a`.
            "self" if !parts.is_empty() => {}
            // The new name after `as` is none of the path's.
            name if tokens[at - 1].1 != "as" => parts.push(name.to_owned()),
            _ => {}
        }
        at += 1;
    }
    found.push(Named { line, parts });
    at
}

/// From `super`, `self` and the crate's own name to a path from `crate`.
fn resolve(source: &Source, module: Option<&[&str]>, parts: &mut Vec<String>) {
    let own = format!("adit_{}", source.krate());
    let Some(module) = module else { return };
    if parts[0] == own || (parts[0] == "self" && module.is_empty()) {
        parts[0] = "crate".into();
        return;
    }
    let ups = parts.iter().take_while(|part| *part == "super").count();
    let below = if parts[0] == "self" { 1 } else { ups };
    if below == 0 {
        return;
    }
    let kept = &module[..module.len().saturating_sub(ups)];
    let whole = ["crate"].into_iter().chain(kept.iter().copied()).map(str::to_owned);
    *parts = whole.chain(parts[below..].iter().cloned()).collect();
}

fn is_name(token: &str) -> bool {
    token.chars().next().is_some_and(|char| char.is_alphabetic() || char == '_')
}

#[test]
fn every_way_to_name_a_path_is_seen() {
    let text = "pub use super::{tcp, super::fleet::{self, registry::Registry as Known}};\nfn f() {\n  crate::proxy::go();\n\
                let x: adit_relay::admin::Web = self::inner::new();\n  crate::shout!();\n  use std::env;\n}\n\
                pub(in crate::front) mod deep { use super::super::tls; }\nuse super::body;";
    let named = paths(&Source::new("relay/src/front/quic.rs", text));
    let texts: Vec<_> = named.iter().map(|named| (named.line, named.text())).collect();
    let expected = [
        (1, "crate::front::tcp"),
        (1, "crate::fleet"),
        (1, "crate::fleet::registry::Registry"),
        (3, "crate::proxy::go"),
        (4, "crate::admin::Web"),
        (4, "crate::front::quic::inner::new"),
        (6, "std::env"),
        (8, "crate::front::tls"),
        (9, "crate::front::body"),
    ];
    assert_eq!(texts, expected.map(|(line, text)| (line, text.to_owned())));
}
