//! Durations and sizes as people write them: `"250ms"`, `"8MiB"`.
//!
//! A bare number in a configuration file makes its reader guess the unit, so there is none: a unit is always written, and a
//! default printed with [`format_duration`] or [`format_bytes`] is read back to the same value.

use std::time::Duration;

/// Why a text is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct HumaneError {
    text: String,
    wanted: &'static str,
}

impl HumaneError {
    fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.chars().take(40).collect(), wanted }
    }
}

/// Reads a duration such as `250ms`, `30s`, `5m` or `1h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, HumaneError> {
    humantime::parse_duration(text)
        .map_err(|_| HumaneError::new(text, "a duration such as \"250ms\", \"30s\", \"5m\" or \"1h 30m\""))
}

/// Writes a duration so that [`parse_duration`] reads it back.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Units, largest first among each kind; binary ones first, so that `8388608` is written `8MiB`.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a size such as `64KiB`, `8MiB`, `20MB` or `512B`, in bytes.
pub fn parse_bytes(text: &str) -> Result<u64, HumaneError> {
    let error = || HumaneError::new(text, "a size such as \"512B\", \"64KiB\", \"8MiB\" or \"20MB\"");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(error)?;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(error)
}

/// Writes a size in the largest unit that divides it, so that [`parse_bytes`] reads it back.
pub fn format_bytes(bytes: u64) -> String {
    let (unit, factor) = UNITS
        .into_iter()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        // invariant: the last unit divides everything.
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// What [`humane_duration`] can carry: a duration, or the wish for none.
pub trait HumaneDuration: Sized {
    /// From what was written.
    fn from_duration(duration: Duration) -> Self;
    /// What to write; `None` leaves the key out.
    fn to_duration(&self) -> Option<Duration>;
}

impl HumaneDuration for Duration {
    fn from_duration(duration: Duration) -> Self {
        duration
    }
    fn to_duration(&self) -> Option<Duration> {
        Some(*self)
    }
}

impl HumaneDuration for Option<Duration> {
    fn from_duration(duration: Duration) -> Self {
        Some(duration)
    }
    fn to_duration(&self) -> Option<Duration> {
        *self
    }
}

/// What [`humane_bytes`] can carry: a number of bytes, or the wish for none.
pub trait HumaneBytes: Sized {
    /// From what was written; `None` if this machine's type cannot hold it.
    fn from_bytes(bytes: u64) -> Option<Self>;
    /// What to write; `None` leaves the key out.
    fn to_bytes(&self) -> Option<u64>;
}

macro_rules! humane_bytes_for {
    ($($number:ty),*) => {$(
        impl HumaneBytes for $number {
            fn from_bytes(bytes: u64) -> Option<Self> {
                bytes.try_into().ok()
            }
            fn to_bytes(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }

        impl HumaneBytes for Option<$number> {
            fn from_bytes(bytes: u64) -> Option<Self> {
                <$number>::from_bytes(bytes).map(Some)
            }
            fn to_bytes(&self) -> Option<u64> {
                self.as_ref().and_then(HumaneBytes::to_bytes)
            }
        }
    )*};
}

humane_bytes_for!(u32, u64, usize);

/// For `#[serde(with = "adit_common::daemon::humane_duration")]` on a `Duration` or, with `default`, an `Option<Duration>`.
pub mod humane_duration {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::HumaneDuration;

    /// Writes it as a text with its unit.
    pub fn serialize<T: HumaneDuration, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        match value.to_duration() {
            Some(duration) => to.serialize_str(&super::format_duration(duration)),
            None => to.serialize_none(),
        }
    }

    /// Reads it from a text with its unit.
    pub fn deserialize<'de, T: HumaneDuration, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_duration(&text).map(T::from_duration).map_err(serde::de::Error::custom)
    }
}

/// For `#[serde(with = "adit_common::daemon::humane_bytes")]` on a `u32`, `u64` or `usize` or, with `default`, an `Option` of one.
pub mod humane_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{HumaneBytes, HumaneError};

    /// Writes it as a text with its unit.
    pub fn serialize<T: HumaneBytes, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        match value.to_bytes() {
            Some(bytes) => to.serialize_str(&super::format_bytes(bytes)),
            None => to.serialize_none(),
        }
    }

    /// Reads it from a text with its unit.
    pub fn deserialize<'de, T: HumaneBytes, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_bytes(&text)
            .and_then(|bytes| T::from_bytes(bytes).ok_or_else(|| HumaneError::new(&text, "a size that fits here")))
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Section {
        #[serde(with = "humane_duration")]
        wait: Duration,
        #[serde(with = "humane_duration", default)]
        idle: Option<Duration>,
        #[serde(with = "humane_bytes")]
        body: usize,
        #[serde(with = "humane_bytes", default)]
        window: Option<u32>,
    }

    #[test]
    fn a_section_is_written_as_people_write_it() {
        let text = "wait = \"1m 30s\"\nbody = \"8MiB\"\nwindow = \"20MB\"\n";
        let section: Section = toml::from_str(text).unwrap();
        let expected = Section { wait: Duration::from_secs(90), idle: None, body: 8 << 20, window: Some(20_000_000) };
        assert_eq!(section, expected);
        assert_eq!(toml::to_string(&section).unwrap(), text);
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_an_example() {
        assert!(parse_bytes("1024").unwrap_err().to_string().contains("such as \"512B\""));
        assert!(parse_duration("30").unwrap_err().to_string().contains("such as \"250ms\""));
        for bad in ["", "MiB", "-1MiB", "1.5MiB", "1XB", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
        assert!(toml::from_str::<Section>("wait = \"1s\"\nbody = \"1B\"\nwindow = \"8GiB\"").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: u64, nanos in 0..10_u64.pow(18)) {
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            let _ = (parse_bytes(&text), parse_duration(&text));
        }
    }
}
