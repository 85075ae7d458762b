//! The window of CUBIC (RFC 9438) as a function of time: how we grow beside flows that fill the queue.

use std::time::{Duration, Instant};

/// RFC 9438, 5.1.
const C: f64 = 0.4;

/// What is left of the window after a loss (RFC 9438, 4.6).
pub(super) const BETA: f64 = 0.7;

/// An epoch: from one reduction to the next. Windows are in packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cubic {
    began: Instant,
    start: f64,
    most: f64,
    reno: f64,
}

impl Cubic {
    /// Begins at `window` after a reduction from `most`.
    pub(super) fn new(now: Instant, window: f64, most: f64) -> Self {
        Self { began: now, start: window, most: most.max(window), reno: window }
    }

    /// What the window should be a round trip from now, `acknowledged` windows after the last call. Never less than Reno's
    /// (RFC 9438, 4.3).
    pub(super) fn window(&mut self, now: Instant, rtt: Duration, acknowledged: f64) -> f64 {
        let alpha = if self.reno < self.most { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        self.reno += alpha * acknowledged;
        let k = ((self.most - self.start) / C).cbrt();
        let t = (now.saturating_duration_since(self.began) + rtt).as_secs_f64();
        (C * (t - k).powi(3) + self.most).max(self.reno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_back_at_its_old_window_after_k_seconds_and_flat_there() {
        let start = Instant::now();
        let mut cubic = Cubic::new(start, 700.0, 1000.0);
        let k = (300.0_f64 / 0.4).cbrt();
        let window =
            |cubic: &mut Cubic, seconds| cubic.window(start + Duration::from_secs_f64(seconds), Duration::ZERO, 0.0);
        assert!((window(&mut cubic, 0.0) - 700.0).abs() < 1e-6);
        assert!((window(&mut cubic, k) - 1000.0).abs() < 1e-6);
        let before = window(&mut cubic, k - 1.0);
        assert!(before > 999.0 && before < 1000.0);
        assert!(window(&mut cubic, k + 5.0) > 1045.0);
    }

    #[test]
    fn on_short_paths_it_is_reno() {
        let start = Instant::now();
        let mut cubic = Cubic::new(start, 10.0, 10.0);
        let mut window = 10.0;
        for round in 1..=100 {
            window = cubic.window(start + Duration::from_millis(round), Duration::from_millis(1), 1.0);
        }
        assert!((window - 110.0).abs() < 1.0, "{window}");
    }
}
