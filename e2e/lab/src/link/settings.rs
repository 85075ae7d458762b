//! What one direction of a link does to packets, as it is written on a command line or the control socket.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// One direction's settings. All zero is a wire.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Settings {
    /// Between the bottleneck and the other end.
    pub(super) delay: Duration,
    /// Added to the delay of each packet, evenly from nothing to this.
    pub(super) jitter: Duration,
    /// Whether jitter may let packets overtake each other.
    pub(super) reorder: bool,
    /// The share of packets that are lost, each on its own, 0 to 1.
    pub(super) loss: f64,
    /// Losses that come together.
    pub(super) burst: Burst,
    /// The bottleneck in bits a second; 0 is none.
    pub(super) rate: f64,
    /// Bytes that may wait in front of the bottleneck; what comes beyond is dropped. 0 is no bound.
    pub(super) queue: usize,
    /// A policer, which drops what is too much and queues nothing.
    pub(super) police: Option<Police>,
    /// Nothing gets through.
    pub(super) down: bool,
}

/// Gilbert and Elliott's two states: in the good one nothing is lost, in the bad one everything.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Burst {
    /// The share of packets that are lost so, 0 to 1.
    pub(super) share: f64,
    /// How many are lost in a row, on average; at least 1.
    pub(super) length: f64,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Police {
    /// How fast it fills, bits a second.
    pub(super) rate: f64,
    /// How much it holds, bytes.
    pub(super) depth: f64,
}

impl Settings {
    /// Changes what `words` name, such as `delay=20ms loss=1 burst=1:5 rate=50mbit queue=500k police=10mbit:64k down`, and
    /// leaves the rest; on an error all of it.
    pub(super) fn change<'a>(&mut self, words: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        let mut changed = self.clone();
        for word in words {
            changed.change_one(word).with_context(|| format!("cannot understand {word:?}"))?;
        }
        *self = changed;
        Ok(())
    }

    fn change_one(&mut self, word: &str) -> anyhow::Result<()> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "delay" => self.delay = duration(value)?,
            "jitter" => self.jitter = duration(value)?,
            "reorder" => self.reorder = value != "0",
            "loss" => self.loss = share(value)?,
            "burst" => {
                let (lost, length) = value.split_once(':').context("want PERCENT:MEAN_LENGTH")?;
                self.burst = Burst { share: share(lost)?, length: number(length)? };
                ensure!(
                    self.burst.share < 1.0 && self.burst.length >= 1.0,
                    "want less than 100 % and a length of 1 or more"
                );
            }
            "rate" => self.rate = number(value)?,
            "queue" => self.queue = number(value)? as usize,
            "police" if value == "0" => self.police = None,
            "police" => {
                let (rate, depth) = value.split_once(':').context("want RATE:BYTES, or 0")?;
                self.police = Some(Police { rate: number(rate)?, depth: number(depth)? });
            }
            "down" => self.down = true,
            "up" => self.down = false,
            "clear" => *self = Self::default(),
            _ => bail!("there is no such setting"),
        }
        Ok(())
    }
}

/// `20ms`, `250us`, `1.5s`; a bare `0` too.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let (value, scale) = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))
        .or_else(|| (text == "0").then_some((text, 0.0)))
        .context("want a time such as 20ms")?;
    Ok(Duration::try_from_secs_f64(number(value)? * scale)?)
}

/// Percent, as a share of one.
fn share(text: &str) -> anyhow::Result<f64> {
    let percent = number(text)?;
    ensure!(percent <= 100.0, "more than 100 %");
    Ok(percent / 100.0)
}

/// A number that is not negative, with `k`, `m` or `g` for thousands, before `bit` too.
fn number(text: &str) -> anyhow::Result<f64> {
    let bare = text.strip_suffix("bit").unwrap_or(text);
    let (value, scale) = [("k", 1e3), ("m", 1e6), ("g", 1e9)]
        .iter()
        .find_map(|(unit, scale)| Some((bare.strip_suffix(unit)?, *scale)))
        .unwrap_or((bare, 1.0));
    let value: f64 = value.parse()?;
    ensure!(value.is_finite() && value >= 0.0, "want a number that is not negative");
    Ok(value * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Settings> {
        let mut settings = Settings::default();
        settings.change(text.split_whitespace())?;
        Ok(settings)
    }

    #[test]
    fn words_are_understood() {
        let read =
            read("delay=20ms jitter=250us reorder loss=1 burst=2:5 rate=50mbit queue=500k police=1.5mbit:64k down")
                .unwrap();
        let expected = Settings {
            delay: Duration::from_millis(20),
            jitter: Duration::from_micros(250),
            reorder: true,
            loss: 0.01,
            burst: Burst { share: 0.02, length: 5.0 },
            rate: 50e6,
            queue: 500_000,
            police: Some(Police { rate: 1.5e6, depth: 64_000.0 }),
            down: true,
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_not_named_stays_and_clear_takes_all_away() {
        let mut settings = read("delay=20ms loss=1 down").unwrap();
        settings.change(["loss=0", "up"].into_iter()).unwrap();
        assert_eq!(settings, read("delay=20ms").unwrap());
        settings.change(["clear"].into_iter()).unwrap();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut settings = read("delay=20ms").unwrap();
        for text in [
            "delay=5",
            "loss=101",
            "loss=-1",
            "burst=1",
            "burst=1:0.5",
            "burst=100:2",
            "rate=fast",
            "rate=nan",
            "wings=2",
        ] {
            assert!(settings.change(["loss=3", text].into_iter()).is_err(), "{text}");
            assert_eq!(settings, read("delay=20ms").unwrap(), "{text}");
        }
    }
}
