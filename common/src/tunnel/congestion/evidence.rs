//! Whether what is lost is lost because of us.

/// Loss while we send little against loss while we send much.
///
/// A full queue or a policer drops what exceeds it, so in the rounds after we send less nothing is lost. Noise loses as much then as
/// before. So no share of loss is too much by itself; what counts is that there is significantly more of it when we send more.
/// What is counted are reports, not packets: packets are lost in bursts, and a burst is one event.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    little: Count,
    much: Count,
}

/// Packets over which what happened while we sent little counts half: long, for noise is a property of the path.
const LITTLE: f64 = 4000.0;

/// The same for while we sent much: a few rounds.
const MUCH: f64 = 400.0;

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    losses: f64,
    packets: f64,
}

impl Count {
    fn add(&mut self, losses: u32, packets: f64, half: f64) {
        let keep = 0.5_f64.powf(packets / half);
        self.losses = self.losses * keep + f64::from(losses);
        self.packets = self.packets * keep + packets;
    }
}

impl Evidence {
    pub(super) fn new() -> Self {
        Self { little: Count::default(), much: Count::default() }
    }

    /// Takes in a round in which we sent less than the path is known to carry.
    pub(super) fn little(&mut self, losses: u32, packets: f64) {
        self.little.add(losses, packets, LITTLE);
    }

    /// Takes in a round in which we may have sent more.
    pub(super) fn much(&mut self, losses: u32, packets: f64) {
        self.much.add(losses, packets, MUCH);
    }

    /// After a reduction, what was before it is settled.
    pub(super) fn settle(&mut self) {
        self.much = Count::default();
    }

    /// Losses for each packet that are not our doing, from 0 to 1.
    pub(super) fn noise(&self) -> f64 {
        (self.little.losses / self.little.packets.max(1.0)).min(1.0)
    }

    /// Whether there is more loss than noise explains: by twice the deviation of a Poisson distribution.
    pub(super) fn is_ours(&self) -> bool {
        let expected = self.noise() * self.much.packets;
        self.much.losses > expected + 2.0 * expected.sqrt() + 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_noise_the_first_loss_is_ours() {
        let mut evidence = Evidence::new();
        evidence.little(0, 500.0);
        assert!(!evidence.is_ours());
        evidence.much(1, 100.0);
        assert!(evidence.is_ours());
        evidence.settle();
        assert!(!evidence.is_ours());
    }

    #[test]
    fn twelve_in_a_hundred_are_nobodys_if_they_are_lost_at_any_rate() {
        let mut evidence = Evidence::new();
        for _ in 0..20 {
            evidence.little(12, 100.0);
            evidence.much(13, 100.0);
        }
        assert!((evidence.noise() - 0.12).abs() < 0.001);
        assert!(!evidence.is_ours());
        for _ in 0..3 {
            evidence.much(30, 100.0);
        }
        assert!(evidence.is_ours());
    }
}
