//! Whether packets are lost one by one.

/// How much of what was seen before counts when packets are lost again: the last ten times or so.
const KEPT: f64 = 0.9;

/// Where on average more packets than this are lost together, the parity of one mostly repairs nothing.
const TOGETHER: f64 = 2.0;

/// What a path lost of late.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    /// Packets that were lost and how often some were, as last counted.
    counted: (u64, u64),
    packets: f64,
    times: f64,
}

impl Losses {
    /// So many packets were lost so far, in so many goes.
    pub(super) fn count(&mut self, packets: u64, times: u64) {
        let (packets_before, times_before) = std::mem::replace(&mut self.counted, (packets, times));
        let more = times.saturating_sub(times_before) as f64;
        let kept = KEPT.powf(more);
        self.packets = self.packets * kept + packets.saturating_sub(packets_before) as f64;
        self.times = self.times * kept + more;
    }

    /// Whether they are lost one by one, or hardly ever.
    pub(super) fn are_single(&self) -> bool {
        self.packets <= TOGETHER * self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_told_from_single_losses_and_forgotten() {
        let mut losses = Losses::default();
        assert!(losses.are_single(), "of nothing");
        (1..20).for_each(|time| losses.count(time, time));
        assert!(losses.are_single());
        (1..=5).for_each(|burst| losses.count(19 + 10 * burst, 19 + burst));
        assert!(!losses.are_single());
        let mut more = 0;
        while !losses.are_single() {
            more += 1;
            losses.count(69 + more, 24 + more);
        }
        assert!((5..20).contains(&more), "{more}");
    }
}
