//! Prometheus' text format.

use std::fmt::Write as _;

/// What stands above the lines of a metric.
pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

/// One line.
pub(super) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // invariant: writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

/// Microseconds as seconds.
pub(super) fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let short = text.trim_end_matches('0');
    short.strip_suffix('.').unwrap_or(short).to_owned()
}

/// A label's value as the text format wants it.
pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
