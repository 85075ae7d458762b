//! What a measurement has shown, for people and for machines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::histogram::Distribution;
use crate::load::{Arrivals, Pacing, Plan};
use crate::tally::Tally;
use crate::waterfall::{owner, share};

/// What was asked.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// The relay's URL.
    pub target: String,
    /// The model's name.
    pub model: String,
    /// The version that was asked for; absent for the newest.
    pub version: Option<String>,
    /// The image's file.
    pub image: String,
    /// Its size in bytes.
    pub image_bytes: u64,
    /// The version of HTTP.
    pub protocol: &'static str,
    /// When it began, in seconds since 1970.
    pub began: f64,
}

/// A measurement's outcome. Written as JSON it is `adit-test/1`; its `Display` form is for people.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    client: &'static str,
    #[serde(flatten)]
    subject: Subject,
    pacing: &'static str,
    rate: Option<f64>,
    concurrency: usize,
    fresh_connections: bool,
    warmup: usize,
    requests: usize,
    ok: u64,
    failed: u64,
    failures: BTreeMap<String, Failed>,
    seconds: f64,
    requests_per_second: f64,
    megabytes_per_second: f64,
    delay_ms: Summary,
    service_ms: Summary,
    late_ms: Summary,
    jitter_ms: Option<JitterSummary>,
    setup: SetupSummary,
    timed: u64,
    stages: Vec<StageSummary>,
}

#[derive(Debug, Serialize)]
struct Failed {
    count: u64,
    example: String,
}

/// Milliseconds; absent where there is nothing to tell.
#[derive(Debug, Serialize)]
struct Summary {
    count: u64,
    min: Option<f64>,
    p50: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    deviation: Option<f64>,
    beyond_p99: u64,
}

#[derive(Debug, Serialize)]
struct JitterSummary {
    last: f64,
    max: f64,
    mean_difference: f64,
}

#[derive(Debug, Serialize)]
struct SetupSummary {
    connections: u64,
    resumed: u64,
    total_ms: Summary,
    resolve_ms: Summary,
    tcp_ms: Summary,
    tls_ms: Summary,
}

#[derive(Debug, Serialize)]
struct StageSummary {
    stage: &'static str,
    owner: &'static str,
    share: f64,
    #[serde(flatten)]
    summary: Summary,
}

fn milliseconds(time: Duration) -> f64 {
    // To the microsecond, as all times are told.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Summary {
    fn new(times: &Distribution) -> Self {
        let quantile = |quantile| times.quantile(quantile).map(milliseconds);
        Self {
            count: times.count(),
            min: times.min().map(milliseconds),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: times.max().map(milliseconds),
            mean: times.mean().map(milliseconds),
            deviation: times.deviation().map(milliseconds),
            beyond_p99: times.beyond_p99(),
        }
    }
}

impl Report {
    /// The report of a plan that was carried out, or broken off after some of its requests.
    pub fn new(subject: Subject, plan: &Plan, tally: &Tally) -> Self {
        let (pacing, rate) = match plan.pacing {
            Pacing::Closed => ("closed", None),
            Pacing::Open { rate, arrivals: Arrivals::Constant } => ("open, constant", Some(rate)),
            Pacing::Open { rate, arrivals: Arrivals::Poisson } => ("open, poisson", Some(rate)),
        };
        let seconds = tally.window().as_secs_f64();
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let jitter = tally.jitter.last().zip(tally.jitter.max()).zip(tally.jitter.mean_difference());
        let failed = tally.failures.iter().map(|(class, failures)| {
            (class.clone(), Failed { count: failures.count, example: failures.example.clone() })
        });
        Self {
            schema: "adit-test/1",
            client: env!("CARGO_PKG_VERSION"),
            subject,
            pacing,
            rate,
            concurrency: plan.concurrency,
            fresh_connections: plan.fresh,
            warmup: plan.warmup,
            requests: plan.requests,
            ok: tally.ok,
            failed: tally.failed(),
            failures: failed.collect(),
            seconds,
            requests_per_second: per_second(tally.ok as f64),
            megabytes_per_second: per_second(tally.uploaded as f64 / 1e6),
            delay_ms: Summary::new(&tally.delay),
            service_ms: Summary::new(&tally.service),
            late_ms: Summary::new(&tally.late),
            jitter_ms: jitter.map(|((last, max), mean)| JitterSummary {
                last: milliseconds(last),
                max: milliseconds(max),
                mean_difference: milliseconds(mean),
            }),
            setup: SetupSummary {
                connections: tally.setup.total.count(),
                resumed: tally.setup.resumed,
                total_ms: Summary::new(&tally.setup.total),
                resolve_ms: Summary::new(&tally.setup.resolve),
                tcp_ms: Summary::new(&tally.setup.tcp),
                tls_ms: Summary::new(&tally.setup.tls),
            },
            timed: tally.network.count(),
            stages: stages(tally),
        }
    }

    /// Whether every request was made and answered.
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.ok == self.requests as u64
    }
}

fn stages(tally: &Tally) -> Vec<StageSummary> {
    let told = tally.stages.iter().filter(|(_, times)| times.count() > 0);
    let rows = std::iter::once(("network", "client", &tally.network))
        .chain(told.map(|(stage, times)| (stage.name(), owner(*stage), times)));
    let rows: Vec<_> = rows.filter(|(_, _, times)| times.count() > 0).collect();
    let whole = rows.iter().map(|(_, _, times)| times.sum()).sum();
    rows.into_iter()
        .map(|(stage, owner, times)| StageSummary {
            stage,
            owner,
            share: (share(times.sum(), whole) * 100.0).round() / 100.0,
            summary: Summary::new(times),
        })
        .collect()
}

fn connections(count: u64) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

/// A time in a column of ten, or a dash.
fn column(time: Option<f64>) -> String {
    time.map_or_else(|| format!("{:>10}", "-"), |time| format!("{time:>10.3}"))
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, .. } = self;
        let version = subject.version.as_ref().map(|version| format!(" version {version}")).unwrap_or_default();
        writeln!(out, "{} at {}, {}", subject.model.clone() + &version, subject.target, subject.protocol)?;
        self.write_plan(out)?;
        writeln!(
            out,
            "\n  {} of {} answered in {:.2} s: {:.1} requests/s, {:.2} MB/s of questions",
            self.ok, self.requests, self.seconds, self.requests_per_second, self.megabytes_per_second
        )?;
        for (class, failed) in &self.failures {
            writeln!(out, "  failed: {} x {class} ({})", failed.count, failed.example)?;
        }
        self.write_delays(out)?;
        self.write_setup(out)?;
        self.write_stages(out)
    }
}

impl Report {
    fn write_plan(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            None => writeln!(
                out,
                "  closed loop, {} at a time: a delay counts from the actual send, so a stall of the system also stops\n  \
                 the questions that would have noticed it (--rate R measures in an open loop)",
                self.concurrency
            )?,
            Some(rate) => writeln!(
                out,
                "  {} loop, {rate} a second, at most {} at a time: a delay counts from the intended send",
                self.pacing, self.concurrency
            )?,
        }
        let way = if self.fresh_connections {
            "a fresh connection for each, which counts as part of its delay".to_owned()
        } else {
            format!("over {}, opened before", connections(self.setup.connections))
        };
        let image = (&self.subject.image, self.subject.image_bytes as f64 / 1e3);
        writeln!(out, "  {} ({:.1} kB) after {} to warm up, {way}", image.0, image.1, self.warmup)
    }

    fn write_delays(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\n  {:<8}", "ms")?;
        ["p50", "p90", "p95", "p99", "p99.9", "max", "mean", "sd"]
            .iter()
            .try_for_each(|name| write!(out, "{name:>10}"))?;
        writeln!(out)?;
        for (name, times) in [("delay", &self.delay_ms), ("service", &self.service_ms), ("late", &self.late_ms)] {
            // Only a schedule can be missed, and only a new connection keeps a question of a closed loop waiting.
            if name == "late" && self.rate.is_none() && !self.fresh_connections {
                continue;
            }
            write!(out, "  {name:<8}")?;
            let columns =
                [times.p50, times.p90, times.p95, times.p99, times.p999, times.max, times.mean, times.deviation];
            columns.into_iter().try_for_each(|time| out.write_str(&column(time)))?;
            writeln!(out)?;
        }
        if self.delay_ms.count > 0 && self.delay_ms.beyond_p99 < 10 {
            let slowest = self.delay_ms.beyond_p99.max(1);
            writeln!(
                out,
                "  p99 rests on the slowest {slowest} of {}; 1000 requests make it sound",
                self.delay_ms.count
            )?;
        }
        if self.delay_ms.count > 0 && self.delay_ms.p999.is_none() {
            writeln!(out, "  p99.9 is told from 10000 requests on")?;
        }
        let Some(jitter) = &self.jitter_ms else { return Ok(()) };
        let spread = self.delay_ms.p99.zip(self.delay_ms.p50).map_or(0.0, |(p99, p50)| p99 - p50);
        writeln!(
            out,
            "\n  jitter  {:.3} ms at the end, {:.3} ms at most (RFC 3550); mean |D| {:.3} ms; p99 - p50 {spread:.3} ms",
            jitter.last, jitter.max, jitter.mean_difference
        )
    }

    fn write_setup(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SetupSummary { connections, resumed, total_ms, resolve_ms, tcp_ms, tls_ms } = &self.setup;
        let Some((p50, max)) = total_ms.p50.zip(total_ms.max) else { return Ok(()) };
        let opened = self::connections(*connections);
        write!(out, "  set-up  {opened}: p50 {p50:.3} ms, max {max:.3} ms (mean: ")?;
        let parts = [("resolve", resolve_ms), ("tcp", tcp_ms), ("tls", tls_ms)];
        let parts = parts.iter().filter_map(|(name, times)| Some(format!("{name} {:.3}", times.mean?)));
        write!(out, "{})", parts.collect::<Vec<_>>().join(", "))?;
        let resumed = if *resumed > 0 { format!(", {resumed} of them resumed a TLS session") } else { String::new() };
        let counted = if self.fresh_connections { "part of the delay" } else { "not in the delays" };
        writeln!(out, "{resumed}; {counted}")
    }

    fn write_stages(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stages.is_empty() {
            return writeln!(out, "\n  the answers do not say where the time went");
        }
        writeln!(
            out,
            "\n  {:<10} {:<6}{:>10}{:>10}{:>10}{:>10}{:>9}",
            "stage", "owner", "p50", "p95", "p99", "mean", "share"
        )?;
        for row in &self.stages {
            let times = &row.summary;
            write!(out, "  {:<10} {:<6}", row.stage, row.owner)?;
            [times.p50, times.p95, times.p99, times.mean]
                .into_iter()
                .try_for_each(|time| out.write_str(&column(time)))?;
            writeln!(out, "{:>7.1} %", row.share)?;
        }
        if self.timed < self.ok {
            writeln!(out, "  {} of {} answers said where their time went", self.timed, self.ok)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use adit_common::timing::Timing;

    use super::*;
    use crate::connection::Setup;
    use crate::error::ClientError;
    use crate::load::Sample;

    fn report(pacing: Pacing, failed: bool) -> Report {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut tally = Tally::new(ms(1000));
        let setup = Setup { resolve: ms(1), tcp: ms(2), tls: Some(ms(3)), resumed: false };
        tally.add_setup(setup);
        for index in 0..100 {
            let sent = start + ms(index * 20);
            let timing = Timing::parse("upload;dur=2, transit;dur=3, forward;dur=4, other;dur=0, total;dur=9");
            let done = sent + ms(if index == 99 { 30 } else { 10 });
            let outcome = if failed && index < 2 { Err(ClientError::Timeout { limit: ms(1000) }) } else { Ok(timing) };
            tally.add(Sample { intended: sent, sent, done, setup: None, uploaded: 100_000, outcome });
        }
        let subject = Subject {
            target: "https://relay.example".into(),
            model: "digits".into(),
            version: Some("1".into()),
            image: "seven.png".into(),
            image_bytes: 99_800,
            protocol: "HTTP/2",
            began: 1.0,
        };
        let plan = Plan { requests: 100, concurrency: 1, connections: 1, pacing, warmup: 10, fresh: false };
        Report::new(subject, &plan, &tally)
    }

    #[test]
    fn a_closed_loop_says_what_it_hides() {
        let text = report(Pacing::Closed, false).to_string();
        let expected = "digits version 1 at https://relay.example, HTTP/2
  closed loop, 1 at a time: a delay counts from the actual send, so a stall of the system also stops
  the questions that would have noticed it (--rate R measures in an open loop)
  seven.png (99.8 kB) after 10 to warm up, over 1 connection, opened before

  100 of 100 answered in 2.01 s: 49.8 requests/s, 4.98 MB/s of questions

  ms             p50       p90       p95       p99     p99.9       max      mean        sd
  delay       10.007    10.007    10.007    10.007         -    30.000    10.200     2.000
  service     10.007    10.007    10.007    10.007         -    30.000    10.200     2.000
  p99 rests on the slowest 1 of 100; 1000 requests make it sound
  p99.9 is told from 10000 requests on

  jitter  1.250 ms at the end, 1.250 ms at most (RFC 3550); mean |D| 0.202 ms; p99 - p50 0.000 ms
  set-up  1 connection: p50 6.000 ms, max 6.000 ms (mean: resolve 1.000, tcp 2.000, tls 3.000); not in the delays

  stage      owner        p50       p95       p99      mean    share
  network    client     1.000     1.000     1.000     1.200   11.8 %
  upload     relay      2.000     2.000     2.000     2.000   19.6 %
  transit    tunnel     3.000     3.000     3.000     3.000   29.4 %
  forward    agent      4.000     4.000     4.000     4.000   39.2 %
  other      -          0.000     0.000     0.000     0.000    0.0 %
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn an_open_loop_counts_from_the_intended_send_and_failures_are_told() {
        let report = report(Pacing::Open { rate: 50.0, arrivals: Arrivals::Poisson }, true);
        let text = report.to_string();
        assert!(text.contains("open, poisson loop, 50 a second, at most 1 at a time"), "{text}");
        assert!(text.contains("a delay counts from the intended send"), "{text}");
        assert!(text.contains("  failed: 2 x time-out (no answer within 1s: allow more with --timeout)"), "{text}");
        assert!(text.contains("\n  late  "), "{text}");
        assert!(text.contains("1000.000"), "the deadline is the longest delay: {text}");
        assert!(!report.is_clean());
    }

    #[test]
    fn a_machine_reads_the_same_numbers() {
        let json = serde_json::to_value(report(Pacing::Closed, false)).unwrap();
        assert_eq!(json["schema"], "adit-test/1");
        assert_eq!((&json["model"], &json["ok"]), (&"digits".into(), &100.into()));
        // To three digits, from above.
        assert_eq!(json["delay_ms"]["p50"], 10.007);
        assert_eq!(json["delay_ms"]["p999"], serde_json::Value::Null);
        assert_eq!(json["stages"][3]["stage"], "forward");
        assert_eq!(json["stages"][3]["mean"], 4.0);
        let shares: f64 = json["stages"].as_array().unwrap().iter().map(|row| row["share"].as_f64().unwrap()).sum();
        assert!((shares - 100.0).abs() < 0.1, "{shares}");
    }
}
