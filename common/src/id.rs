//! Names, parsed once and never re-checked.
//!
//! Each type is a cheap clone of a shared string (or a number), so it can travel with a request through every room.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not the name it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: {rule}")]
pub struct IdError {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

impl IdError {
    fn new(kind: &'static str, rule: &'static str, text: &str) -> Self {
        // A client may send anything: quote no more of it than a person would read.
        Self { kind, rule, text: text.chars().take(80).collect() }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $accepts:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the name, or says which rule it breaks.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let accepts: fn(&str) -> bool = $accepts;
                if accepts(text) { Ok(Self(text.into())) } else { Err(IdError::new($kind, $rule, text)) }
            }

            /// The name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({})", stringify!($name), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(from)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// Who an agent is: a DNS-label-like name, carried in its certificate as a SAN URI.
    AgentId,
    "an agent id",
    "1 to 63 of a-z, 0-9 and '-', not starting or ending with '-'",
    |text| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    }
);

name!(
    /// What a model is called in paths, folders and requests.
    ModelName,
    "a model name",
    "1 to 128 of letters, digits, '.', '_' and '-', not starting with '.'",
    |text| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && !text.starts_with('.')
    }
);

name!(
    /// What a version of a model is called besides its number, such as `stable` or `canary`. Never a number itself, so that the
    /// two cannot be taken for each other.
    VersionLabel,
    "a version's label",
    "1 to 64 of letters, digits, '.', '_' and '-', beginning with a letter",
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
    }
);

name!(
    /// What a server is called that an agent carries requests to.
    UpstreamName,
    "an upstream's name",
    "1 to 63 of letters, digits, '.', '_' and '-', not starting with '.'",
    |text| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && !text.starts_with('.')
    }
);

name!(
    /// One request, in every log line of every program it passes.
    RequestId,
    "a request id",
    "1 to 64 of letters, digits, '.', '_' and '-'",
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    }
);

impl RequestId {
    /// The header that carries it, on every hop and back to the client.
    pub const HEADER: &'static str = "x-request-id";

    /// A fresh id: 16 random hexadecimal digits.
    pub fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }
}

/// A model's version: the number of its folder, and greater is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl FromStr for Version {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if plain && number > 0 => Ok(Self(number)),
            _ => Err(IdError::new("a version", "a whole number from 1", text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_rules() {
        assert!(AgentId::new("shop-7").is_ok());
        for bad in ["", "Shop", "-shop", "shop-", "a/b", "ä", &"a".repeat(64)] {
            assert!(AgentId::new(bad).is_err(), "{bad:?}");
        }
        assert!(ModelName::new("mobilenet_v2.1").is_ok());
        for bad in ["", "..", ".hidden", "a/b", "a b", "a\0", &"m".repeat(129)] {
            assert!(ModelName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_whole_numbers_from_one() {
        assert_eq!("12".parse(), Ok(Version(12)));
        for bad in ["", "0", "-1", "+1", "1.0", "99999999999999999999"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_label_is_never_a_number() {
        for good in ["stable", "v2", "a", "canary-2026.11"] {
            assert!(VersionLabel::new(good).is_ok() && good.parse::<Version>().is_err(), "{good:?}");
        }
        for bad in ["", "2", "2nd", "-x", "a/b", "ä", &"l".repeat(65)] {
            assert!(VersionLabel::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_names_the_rule_and_quotes_little() {
        let error = ModelName::new(&"/".repeat(5000)).unwrap_err().to_string();
        assert!(error.contains("is not a model name: 1 to 128"), "{error}");
        assert!(error.len() < 300);
    }
}
