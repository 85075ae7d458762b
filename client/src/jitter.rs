//! Jitter: how unevenly answers arrive, given how their questions were sent.
//!
//! RFC 3550, 6.4.1: D is by how much the distance of two arrivals differs from the distance of their sendings, and the
//! jitter J moves by a sixteenth of the way to |D| with each arrival. Clocks need not agree: only differences enter.

use std::time::Duration;

/// Running jitter over arrivals, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Jitter {
    last: Option<(f64, f64)>,
    value: f64,
    max: f64,
    sum: f64,
    count: u64,
}

impl Jitter {
    /// Adds the next arrival: when it was sent and when it was received, each by any clock that keeps its pace.
    pub fn add(&mut self, sent: Duration, received: Duration) {
        let (sent, received) = (sent.as_secs_f64(), received.as_secs_f64());
        if let Some((last_sent, last_received)) = self.last {
            let difference = ((received - last_received) - (sent - last_sent)).abs();
            self.value += (difference - self.value) / 16.0;
            self.max = self.max.max(self.value);
            self.sum += difference;
            self.count += 1;
        }
        self.last = Some((sent, received));
    }

    /// J after the last arrival; `None` before the second.
    pub fn last(&self) -> Option<Duration> {
        self.of(self.value)
    }

    /// The largest J on the way.
    pub fn max(&self) -> Option<Duration> {
        self.of(self.max)
    }

    /// The mean of |D|, which forgets nothing.
    pub fn mean_difference(&self) -> Option<Duration> {
        self.of(self.sum / self.count.max(1) as f64)
    }

    fn of(&self, seconds: f64) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets sent every 20 ms that arrive after 50, 54, 46, 50 ms, by a clock that is a second ahead:
    /// |D| = 4, 8, 4; J = 4/16 = 0.25, 0.25 + (8 - 0.25)/16 = 0.734375, 0.734375 + (4 - 0.734375)/16 = 0.9384765625.
    #[test]
    fn jitter_is_that_of_rfc_3550_worked_by_hand() {
        let ms = Duration::from_millis;
        let mut jitter = Jitter::default();
        jitter.add(ms(0), ms(1050));
        assert_eq!(jitter.last(), None);
        let mut steps = Vec::new();
        for (sent, received) in [(20, 1074), (40, 1086), (60, 1110)] {
            jitter.add(ms(sent), ms(received));
            steps.push(jitter.last().unwrap().as_secs_f64() * 1e3);
        }
        for (step, expected) in steps.into_iter().zip([0.25, 0.734_375, 0.938_476_562_5]) {
            assert!((step - expected).abs() < 1e-5, "{step} {expected}");
        }
        let mean = jitter.mean_difference().unwrap().as_secs_f64() * 1e3;
        assert!((mean - 16.0 / 3.0).abs() < 1e-5, "{mean}");
    }

    #[test]
    fn an_even_delay_has_no_jitter_and_the_largest_is_kept() {
        let ms = Duration::from_millis;
        let mut jitter = Jitter::default();
        (0..100).for_each(|i| jitter.add(ms(i * 20), ms(i * 20 + 35)));
        assert!(jitter.last().unwrap() < Duration::from_nanos(10));
        jitter.add(ms(2000), ms(2195));
        (101..400).for_each(|i| jitter.add(ms(i * 20), ms(i * 20 + 195)));
        assert!(jitter.max().unwrap() > ms(9) && jitter.last().unwrap() < ms(1), "{jitter:?}");
    }
}
