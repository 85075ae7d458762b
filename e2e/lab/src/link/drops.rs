//! Who is lost on the way: at random, in bursts, or to a policer. Pure: chance comes from a seed, time is passed in.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::settings::{Burst, Police};

/// Chance, the same for the same seed on every machine and in every version.
#[derive(Debug)]
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Evenly from 0 to 1.
    pub(super) fn share(&mut self) -> f64 {
        self.0.random()
    }

    /// Whether what happens with this probability happens now. What never happens draws nothing.
    pub(super) fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.share() < probability
    }
}

/// Where Gilbert and Elliott's chain stands.
#[derive(Debug, Default)]
pub(super) struct Weather {
    bad: bool,
}

impl Weather {
    /// Whether the next packet is lost. The bad state is left with 1/length a packet, and entered so often that the share comes out.
    pub(super) fn loses(&mut self, burst: Burst, chance: &mut Chance) -> bool {
        if burst.share == 0.0 {
            self.bad = false;
            return false;
        }
        let leave = 1.0 / burst.length;
        let enter = leave * burst.share / (1.0 - burst.share);
        self.bad = if self.bad { !chance.happens(leave) } else { chance.happens(enter) };
        self.bad
    }
}

/// A policer's bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Option<Duration>,
}

impl Bucket {
    /// Whether a packet of so many bytes may pass; if so, it is paid for. A bucket begins full.
    pub(super) fn lets_through(&mut self, police: Police, now: Duration, bytes: usize) -> bool {
        let since = self.filled.map(|filled| now.saturating_sub(filled).as_secs_f64());
        self.tokens = since.map_or(police.depth, |since| (self.tokens + since * police.rate / 8.0).min(police.depth));
        self.filled = Some(now);
        let enough = self.tokens >= bytes as f64;
        if enough {
            self.tokens -= bytes as f64;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_have_their_share_and_their_length() {
        for (share, length) in [(0.01, 5.0), (0.05, 12.0), (0.12, 25.0), (0.25, 40.0)] {
            let (mut weather, mut chance) = (Weather::default(), Chance::new(7));
            let packets = 2_000_000;
            let (mut lost, mut bursts, mut before) = (0, 0, false);
            for _ in 0..packets {
                let loses = weather.loses(Burst { share, length }, &mut chance);
                lost += usize::from(loses);
                bursts += usize::from(loses && !before);
                before = loses;
            }
            let (measured, mean) = (lost as f64 / packets as f64, lost as f64 / bursts as f64);
            assert!((measured / share - 1.0).abs() < 0.05, "{measured} lost, not {share}");
            assert!((mean / length - 1.0).abs() < 0.05, "{mean} in a row, not {length}");
        }
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let pattern = |seed| {
            let mut chance = Chance::new(seed);
            (0..1000).map(|_| chance.happens(0.1)).collect::<Vec<_>>()
        };
        assert_eq!(pattern(3), pattern(3));
        assert_ne!(pattern(3), pattern(4));
    }

    #[test]
    fn a_policer_lets_a_burst_and_then_its_rate_through() {
        let police = Police { rate: 8e6, depth: 10_000.0 };
        let mut bucket = Bucket::default();
        // 16 Mbit/s in packets of 1000 bytes: one each 500 us.
        let passed: Vec<_> = (0..1000)
            .filter(|number| bucket.lets_through(police, Duration::from_micros(500) * *number, 1000))
            .collect();
        assert_eq!(
            passed[..19],
            (0..19).collect::<Vec<_>>()[..],
            "the bucket's ten, and nine that came in while they went"
        );
        assert_eq!(passed.len(), 10 + 499, "1000 bytes a millisecond, for 499.5 ms");
        // After a pause it is full again, not fuller.
        let after = (0..100).filter(|_| bucket.lets_through(police, Duration::from_secs(60), 1000)).count();
        assert_eq!(after, 10);
    }
}
