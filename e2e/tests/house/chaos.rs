//! Deaths and departures under load, of real processes.
//!
//! What was promised: a request that was accepted is answered, unless what works on it dies; then it is told so in good time.

use std::time::{Duration, Instant};

use adit_e2e::{Caller, DRAIN, Executables, Fate, Load, Sample, Site, Version};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};

pub(crate) const EXECUTABLES: Executables =
    Executables { relay: env!("CARGO_BIN_EXE_house-relay"), agent: env!("CARGO_BIN_EXE_house-agent") };

/// Twenty requests a second.
const PACE: Duration = Duration::from_millis(50);

/// Above every promise here; what takes longer hangs.
const HANGS: Duration = Duration::from_secs(15);

/// Prints the samples that are not as they should be, and fails if there are any.
#[track_caller]
fn none(what: &str, from: Instant, samples: &[Sample], wrong: impl Fn(&Sample) -> bool) {
    let wrong: Vec<_> = samples.iter().filter(|sample| wrong(sample)).collect();
    let since = |at: Instant| at.saturating_duration_since(from);
    for sample in &wrong {
        let (sent, done) = (since(sample.sent), since(sample.done));
        println!("wrong: {:?} sent at {sent:.3?}, done at {done:.3?}: {:?}", sample.version, sample.fate);
    }
    assert!(wrong.is_empty(), "{}: {} of {}", what, wrong.len(), samples.len());
}

fn count(samples: &[Sample], such: impl Fn(&Sample) -> bool) -> usize {
    samples.iter().filter(|sample| such(sample)).count()
}

fn is_unsent(sample: &Sample) -> bool {
    matches!(sample.fate, Fate::Unsent(_))
}

fn is_broken(sample: &Sample) -> bool {
    matches!(sample.fate, Fate::Broken(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_relay_is_started_anew_and_serves_within_two_seconds() {
    let mut site = Site::open(EXECUTABLES, &["shop"], "40ms").await;
    // At once, as a service manager does it, and after a time in which the agent has found out and dials in vain.
    for missed in [0, 60] {
        let load = Load::start(&site, PACE);
        load.until(20, Sample::is_good).await;
        site.in_flight(1).await;
        let killed = Instant::now();
        site.relay.kill();
        load.until(missed, is_unsent).await;
        site.relay.start();
        let listening = site.listening().await;
        load.until(20, |sample| sample.sent > listening && sample.is_good()).await;
        let samples = load.stop(HANGS).await;

        let first = samples.iter().filter(|sample| sample.sent > killed && sample.is_good()).map(|sample| sample.done);
        let served = first.min().unwrap();
        none("failed, though a relay listened", killed, &samples, |sample| {
            (is_unsent(sample) || is_broken(sample)) && (sample.done < killed || sample.sent > listening)
        });
        none("wrong answer", killed, &samples, |sample| {
            let between = sample.done > killed && sample.sent < served;
            sample.status().is_some() && !sample.is_good() && !(between && sample.is_put_off())
        });
        let gap = served.saturating_duration_since(listening);
        println!(
            "relay killed, down for {:.2?}: served again {gap:.2?} after it listened; of {} requests {} were lost at the kill, \
             {} met nobody, {} were put off with Retry-After",
            listening - killed,
            samples.len(),
            count(&samples, is_broken),
            count(&samples, is_unsent),
            count(&samples, Sample::is_put_off),
        );
        assert!(gap < Duration::from_secs(2), "{gap:?}");
    }

    // Without load there is nothing in flight whose silence would tell the agent.
    let caller = Caller::new(&site);
    site.relay.kill();
    site.relay.start();
    let listening = site.listening().await;
    let served = site.serving(1).await;
    assert!(caller.ask(Version::Http2).await.is_good());
    let gap = served - listening;
    println!("relay killed without any load: served again {gap:.2?} after it listened");
    assert!(gap < Duration::from_secs(2), "{gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agents_requests_are_told_within_eleven_seconds() {
    let promised = Duration::from_secs(11);
    let mut site = Site::open(EXECUTABLES, &["shop"], "500ms").await;
    let caller = Caller::new(&site);
    let versions = [Version::Http1, Version::Http2].into_iter().cycle().take(6);
    let asks = join_all(versions.map(|version| caller.ask(version)));
    let kill = async {
        site.in_flight(6).await;
        let killed = Instant::now();
        site.agents[0].kill();
        let load = Load::start(&site, PACE * 5);
        // The relay has noticed, and goes on to say so.
        load.until(8, Sample::is_put_off).await;
        (killed, load.stop(HANGS).await)
    };
    let (lost, (killed, later)) = tokio::join!(asks, kill);

    let noticed = later.iter().filter(|sample| sample.is_put_off()).map(|sample| sample.done).min().unwrap();
    let last = lost.iter().chain(&later).filter(|sample| sample.status() == Some(502)).map(|sample| sample.done).max();
    println!(
        "agent killed with 6 requests in flight: answered 502 after {:.2?} at the latest; of {} requests that came later {} were \
         answered 502 with them, {} 503 with Retry-After, the first after {:.2?}",
        last.unwrap() - killed,
        later.len(),
        count(&later, |sample| sample.status() == Some(502)),
        count(&later, Sample::is_put_off),
        noticed - killed,
    );
    none("not 502, in flight at the kill", killed, &lost, |sample| sample.status() != Some(502));
    none("neither 502 nor 503 with Retry-After", killed, &later, |sample| {
        sample.status() != Some(502) && !sample.is_put_off()
    });
    none("sent to a dead agent that is known to be dead", killed, &later, |sample| {
        sample.status() == Some(502) && sample.sent > noticed
    });
    let all: Vec<_> = lost.into_iter().chain(later).collect();
    none("late", killed, &all, |sample| {
        sample.done > killed + promised && sample.done > sample.sent + Duration::from_millis(500)
    });

    let started = Instant::now();
    site.agents[0].start();
    let served = site.serving(1).await;
    assert!(caller.ask(Version::Http1).await.is_good());
    println!("agent started anew: served {:.2?} after its start", served - started);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leaves_hands_over_without_a_failed_request() {
    let mut site = Site::open(EXECUTABLES, &["shop", "yard"], "40ms").await;
    let began = Instant::now();
    let load = Load::start(&site, PACE);
    for leaver in [0, 1, 0, 1] {
        let known = load.samples().len();
        load.until(known + 15, |_| true).await;
        site.in_flight(1).await;
        let asked = Instant::now();
        site.agents[leaver].terminate();
        let status = site.agents[leaver].ended().await;
        let took = asked.elapsed();
        assert!(status.success() && took < DRAIN, "{status} after {took:?}");
        let known = load.samples().len();
        load.until(known + 15, |_| true).await;
        site.agents[leaver].start();
        site.serving(2).await;
        println!("agent left under load: exit 0 after {took:.2?}");
    }
    let samples = load.stop(HANGS).await;
    none("failed", began, &samples, |sample| !sample.is_good());
    println!("two agents, four departures and returns: {} requests, all answered", samples.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_agent_answers_what_it_has_and_leaves() {
    let mut site = Site::open(EXECUTABLES, &["shop"], "300ms").await;
    let caller = Caller::new(&site);
    let versions = [Version::Http1, Version::Http2].into_iter().cycle().take(6);
    let asks = join_all(versions.map(|version| caller.ask(version)));
    let leave = async {
        site.in_flight(6).await;
        let asked = Instant::now();
        site.agents[0].terminate();
        let load = Load::start(&site, PACE);
        let status = site.agents[0].ended().await;
        let took = asked.elapsed();
        load.until(10, Sample::is_put_off).await;
        (asked, took, status, load.stop(HANGS).await)
    };
    let (accepted, (asked, took, status, later)) = tokio::join!(asks, leave);
    let served = count(&later, Sample::is_good);
    none("accepted and not answered", asked, &accepted, |sample| !sample.is_good());
    none("neither answered nor put off", asked, &later, |sample| !sample.is_good() && !sample.is_put_off());
    assert!(status.success() && took < DRAIN, "{status} after {took:?}");
    assert!(took > Duration::from_millis(1200), "it waited for its own: {took:?}");
    println!(
        "the only agent left with 6 requests in flight: all answered, exit 0 after {took:.2?}; of {} later requests {served} \
         were answered yet and {} put off with Retry-After",
        later.len(),
        count(&later, Sample::is_put_off),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_leaves_answers_what_it_has_accepted() {
    let mut site = Site::open(EXECUTABLES, &["shop"], "40ms").await;
    for missed in [0, 40] {
        let load = Load::start(&site, PACE);
        load.until(30, Sample::is_good).await;
        site.in_flight(1).await;
        let asked = Instant::now();
        site.relay.terminate();
        let status = site.relay.ended().await;
        let took = asked.elapsed();
        load.until(missed, is_unsent).await;
        site.relay.start();
        let listening = site.listening().await;
        load.until(20, |sample| sample.sent > listening && sample.is_good()).await;
        let samples = load.stop(HANGS).await;
        let late = |sample: &&Sample| sample.sent > asked + took && sample.is_good();
        let served = samples.iter().filter(late).map(|sample| sample.done).min().unwrap();
        let gap = served.saturating_duration_since(listening);
        none("accepted and lost", asked, &samples, is_broken);
        none("not sent, though a relay listened", asked, &samples, |sample| {
            is_unsent(sample) && (sample.done < asked || sample.sent > listening)
        });
        none("wrong answer", asked, &samples, |sample| {
            let starting = sample.done > asked + took && sample.sent < served;
            sample.status().is_some() && !sample.is_good() && !(starting && sample.is_put_off())
        });
        assert!(status.success() && took < DRAIN, "{status} after {took:?}");
        assert!(gap < Duration::from_millis(1500), "{gap:?}");
        println!(
            "relay left under load: exit 0 after {took:.2?}; of {} requests {} met nobody and {} were put off while it \
             started, all others were answered; served again {gap:.2?} after it listened",
            samples.len(),
            count(&samples, is_unsent),
            count(&samples, Sample::is_put_off),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_bounded() {
    let site = Site::open(EXECUTABLES, &["shop"], "0ms").await;
    let caller = Caller::new(&site);
    let asks = |requests: usize| {
        let versions = [Version::Http1, Version::Http2].into_iter().cycle().take(requests);
        stream::iter(versions).map(|version| caller.ask(version)).buffer_unordered(8).collect::<Vec<_>>()
    };
    let began = Instant::now();
    none("failed", began, &asks(100).await, |sample| !sample.is_good());
    let before = site.relay.memory();
    none("failed", began, &asks(2000).await, |sample| !sample.is_good());
    let after = site.relay.memory();

    // Noise on both ports: not TLS, a handshake that goes no further, and packets that no QUIC is.
    let mut held = Vec::new();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..50_u8 {
        let mut stream = TcpStream::connect(site.ports.https).await.unwrap();
        let noise: Vec<u8> = (0..64_000_u32).map(|at| (at * 31 + u32::from(number) * 7) as u8).collect();
        // A head of TLS that promises a record of 16 KiB, or none at all.
        let head: &[u8] = if number % 2 == 0 { &[22, 3, 1, 0x40, 0] } else { b"\x00\xff" };
        // The relay may have hung up before all is written.
        let _ = stream.write_all(&[head, &noise[..if number % 2 == 0 { 8000 } else { noise.len() }]].concat()).await;
        held.push(stream);
        for size in [1200, 60, 1] {
            socket
                .send_to(&[&[0xc0 | number, 0, 0, 0, 1, 8], &noise[..size]].concat(), site.ports.tunnel)
                .await
                .unwrap();
        }
    }
    none("failed beside the noise", began, &asks(100).await, |sample| !sample.is_good());
    let beside = site.relay.memory();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "memory of the relay: {:.1} MiB, after 2,000 requests {:.1} MiB, with 50 connections of garbage {:.1} MiB",
        mib(before),
        mib(after),
        mib(beside),
    );
    for bytes in [after, beside] {
        assert!(bytes < before + (60 << 20), "{:.1} MiB", mib(bytes));
    }
    drop(held);
}
