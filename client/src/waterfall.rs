//! The path of one request as a picture: a line a stage, each bar where the one above ended.

use std::fmt::Write as _;
use std::time::Duration;

use adit_common::timing::{Hop, Stage, Timing};

/// Columns of the bars: with the numbers before them, a line fits a terminal of 80.
const WIDTH: usize = 40;

/// Ends of bars, in eighths of a column.
const EIGHTHS: [&str; 9] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];

/// Draws where the time of a request went, of which `elapsed` passed on this machine. Lines end with a line break.
pub fn waterfall(elapsed: Duration, timing: Option<&Timing>) -> String {
    let mut out = String::new();
    let Some(timing) = timing else {
        let _ = writeln!(out, "  {} ms in all; the answer does not say where they went", millis(elapsed));
        return out;
    };
    let network = elapsed.saturating_sub(timing.total());
    // A relay's total beyond our own, by clocks that run apart, must not push the bars off the picture.
    let whole = network + timing.total();
    let _ = writeln!(out, "  stage      owner          ms   share");
    let mut start = Duration::ZERO;
    let rows = std::iter::once(("network", "client", network))
        .chain(timing.stages().map(|(stage, time)| (stage.name(), owner(stage), time)));
    for (name, owner, time) in rows {
        let line = format!(
            "  {name:<10} {owner:<6} {:>10} {:>5.1} %  {}",
            millis(time),
            share(time, whole),
            bar(start, time, whole)
        );
        let _ = writeln!(out, "{}", line.trim_end());
        start += time;
    }
    let _ = writeln!(out, "  {:<10} {:<6} {:>10} {:>5.1} %", "total", "", millis(whole), 100.0);
    if let Some(note) = timing.note() {
        let _ = writeln!(out, "  forward ran on {}", note.chars().filter(|c| !c.is_control()).collect::<String>());
    }
    if let Some(receive) = timing.receive() {
        let _ = writeln!(out, "  the agent received the request over {} ms, while it was uploaded", millis(receive));
    }
    out
}

/// Whose time a stage is, in reports.
pub(crate) const fn owner(stage: Stage) -> &'static str {
    match stage.hop() {
        Hop::Unattributed => "-",
        hop => hop.name(),
    }
}

/// Milliseconds with three decimals: a digit is a microsecond.
pub(crate) fn millis(time: Duration) -> String {
    let micros = (time.as_nanos() + 500) / 1000;
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

/// `part` of `whole`, in percent.
pub(crate) fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { 100.0 * part.as_secs_f64() / whole.as_secs_f64() }
}

/// A bar of `length` eighths of a column.
pub(crate) fn blocks(eighths: usize) -> String {
    format!("{}{}", EIGHTHS[8].repeat(eighths / 8), EIGHTHS[eighths % 8])
}

fn bar(start: Duration, time: Duration, whole: Duration) -> String {
    if time.is_zero() || whole.is_zero() {
        return String::new();
    }
    let eighths = |time: Duration| (time.as_secs_f64() / whole.as_secs_f64() * (WIDTH * 8) as f64).round() as usize;
    // Blocks fill their column from the left, so a bar begins where its column does, but its length is its own; the
    // shortest is still seen.
    let column = (eighths(start) / 8).min(WIDTH - 1);
    let length = eighths(time).clamp(1, (WIDTH - column) * 8);
    format!("{}{}", " ".repeat(column), blocks(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "admit;dur=0.031, pick;dur=0.012, upload;dur=11.200, transit;dur=22.600, decode;dur=3.900, \
        prepare;dur=0.610, queue;dur=0.800, forward;dur=9.840;desc=\"cuda:0 b=4\", interpret;dur=0.220, \
        encode;dur=0.020, other;dur=0.067, receive;dur=11.000, total;dur=49.300";

    #[test]
    fn a_path_is_drawn_stage_by_stage() {
        let timing = Timing::parse(HEADER).unwrap();
        let picture = waterfall(Duration::from_micros(56_300), Some(&timing));
        let expected = "  stage      owner          ms   share
  network    client      7.000  12.4 %  █████
  admit      relay       0.031   0.1 %       ▏
  pick       relay       0.012   0.0 %       ▏
  upload     relay      11.200  19.9 %       ████████
  transit    tunnel     22.600  40.1 %               ████████████████
  decode     agent       3.900   6.9 %                               ██▊
  prepare    agent       0.610   1.1 %                                 ▍
  queue      agent       0.800   1.4 %                                  ▋
  forward    agent       9.840  17.5 %                                  ███████
  interpret  agent       0.220   0.4 %                                         ▏
  encode     agent       0.020   0.0 %                                         ▏
  other      -           0.067   0.1 %                                         ▏
  total                 56.300 100.0 %
  forward ran on cuda:0 b=4
  the agent received the request over 11.000 ms, while it was uploaded
";
        assert_eq!(picture, expected, "\n{picture}");
        assert!(picture.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_total_beyond_our_own_clock_keeps_the_bars_in_the_picture() {
        let timing = Timing::parse("forward;dur=20, total;dur=20").unwrap();
        let picture = waterfall(Duration::from_millis(10), Some(&timing));
        assert!(picture.contains("network    client      0.000   0.0 %\n"), "{picture}");
        assert!(picture.contains(&format!("100.0 %  {}\n", "█".repeat(WIDTH))), "{picture}");
    }

    #[test]
    fn an_answer_that_says_nothing_is_told_as_such() {
        let picture = waterfall(Duration::from_millis(5), None);
        assert_eq!(picture, "  5.000 ms in all; the answer does not say where they went\n");
    }
}
