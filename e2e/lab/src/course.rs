//! The walk through scenarios, parts and peers, in rounds.
//!
//! In each round every part is done with one peer after another, so that whatever the machine was busy with meanwhile
//! befalls all of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::command::Surroundings;
use crate::house::{Lab, Network, Plan, Site, refuse_without};
use crate::peer::{NAMES as PEERS, Wanted, find};
use crate::record::{Book, Turn};
use crate::scenario::{Cases, Part, parts};

/// Arguments of `adit-lab run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Which peers take turns; see `adit-lab peers`
    #[arg(long, value_delimiter = ',', default_value = "direct,adit")]
    peers: Vec<String>,
    /// Which scenarios, or parts of scenarios; see `adit-lab scenarios`
    #[arg(long, value_delimiter = ',', default_value = "wan")]
    scenarios: Vec<String>,
    /// How often
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Where records go, a line each; what is there already is not done again
    #[arg(long, value_name = "JSONL", default_value = "results.jsonl")]
    out: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
    /// How long each load over a link that stays as it is takes
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// What chance begins with on the links; the same for every peer
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Where a lab finds things and puts things.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// A folder of programs, before those on PATH; may be given several times
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    programs: Vec<PathBuf>,
    /// A folder for configurations and logs, which is emptied first
    #[arg(long, value_name = "DIR", default_value = "/tmp/adit-lab")]
    work: PathBuf,
    /// Of labs with different names several can stand side by side
    #[arg(long, value_name = "NAME", default_value = "")]
    lab: String,
}

impl PlaceArgs {
    fn site(&self, surroundings: &Surroundings) -> anyhow::Result<Site> {
        let mut search = Vec::new();
        for folder in &self.programs {
            // Programs are started from elsewhere; a folder that is not there holds none.
            search.extend(folder.canonicalize());
        }
        search.extend(surroundings.path.clone());
        // Where some systems keep what only root starts.
        search.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        let folder = std::path::absolute(&self.work).context("no folder to work in")?;
        let folder = if self.lab.is_empty() { folder } else { folder.with_extension(&self.lab) };
        Ok(Site { program: surroundings.program.clone(), search, folder, network: Network::new(&self.lab) })
    }
}

/// Does all that was asked for. Begun labs are torn down however it ends.
pub(crate) async fn run(args: &RunArgs, surroundings: &Surroundings) -> anyhow::Result<()> {
    refuse_without()?;
    let parts = parts(&args.scenarios, args.seconds)?;
    let site = args.place.site(surroundings)?;
    let peers = present(&args.peers, &site)?;
    let mut book = Book::open(&args.out)?;
    raise_file_limit();
    site.clear()?;
    let walk = walk(args, &site, &parts, &peers, &mut book);
    let ended = tokio::select! {
        ended = walk => ended,
        stopped = stopped() => {
            stopped.context("cannot wait for signals")?;
            Err(anyhow::anyhow!("stopped; what was measured is in {}, and the same command goes on", args.out.display()))
        }
    };
    site.network.tear_down();
    ended
}

/// Until somebody wants an end.
async fn stopped() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

async fn walk(args: &RunArgs, site: &Site, parts: &[Part], peers: &[Wanted], book: &mut Book) -> anyhow::Result<()> {
    let (begun, turns) = (Instant::now(), args.rounds * parts.len() * peers.len());
    let (mut number, mut failed) = (0, 0);
    for round in 1..=args.rounds {
        for part in parts {
            for wanted in peers {
                number += 1;
                let (peer, scenario) = (wanted.name.clone(), part.scenario);
                let turn = Turn { round, peer, scenario, part: part.name.clone() };
                let title = format!("{}  {}", part.full_name(), wanted.name);
                if book.has(&turn) {
                    eprintln!("[{number}/{turns}] {title}: done before");
                    continue;
                }
                let passed = minutes(begun.elapsed());
                eprintln!("[{number}/{turns}, round {round}, {passed}] {title}");
                if let Err(error) = take(args, site, part, wanted, &turn, book).await {
                    failed += 1;
                    eprintln!("    failed: {error:#}");
                    book.add(&turn.failed(&error))?;
                }
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {turns} failed; the same command tries them again");
    }
    Ok(())
}

/// One part with one peer.
async fn take(
    args: &RunArgs,
    site: &Site,
    part: &Part,
    wanted: &Wanted,
    turn: &Turn,
    book: &mut Book,
) -> anyhow::Result<()> {
    site.forget_logs()?;
    let congestion = wanted.congestion.clone().unwrap_or_else(|| part.plan.congestion.clone());
    let plan = Plan { congestion, seed: args.seed, ..part.plan.clone() };
    let mut lab = Lab::build(site, wanted.peer.clone(), &plan).await?;
    let mut add = |case: &str, figures| {
        let record = turn.record(case, &figures)?;
        eprintln!("    {case}: {}", summary(&record.figures));
        book.add(&record)
    };
    let performed = part.perform(&mut lab, &mut Cases::new(&mut add)).await;
    lab.tear_down().await;
    performed?;
    book.add(&turn.done())
}

/// What one wants to see while it runs.
fn summary(figures: &serde_json::Map<String, serde_json::Value>) -> String {
    let wanted = [
        "ok",
        "failed",
        "p50_ms",
        "p99_ms",
        "max_ms",
        "per_second",
        "up_mbps",
        "down_mbps",
        "recovered_s",
        "recovered",
        "slow",
        "after",
        "last_s",
        "ratio",
        "tunnel_mbps",
        "flows_mbps",
        "queue_p50_ms",
        "queue_p95_ms",
        "recovered_after_s",
    ];
    let shown = wanted.iter().filter_map(|name| Some((name, figures.get(*name)?)));
    let shown = shown.map(|(name, value)| match value.as_f64() {
        Some(number) if value.is_f64() => format!("{name} {number:.2}"),
        _ => format!("{name} {value}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn minutes(passed: Duration) -> String {
    format!("{}:{:02}", passed.as_secs() / 60, passed.as_secs() % 60)
}

/// The peers whose programs are there; what is missing is said.
fn present(names: &[String], site: &Site) -> anyhow::Result<Vec<Wanted>> {
    let mut present = Vec::new();
    for name in names {
        let wanted = find(name)?;
        match missing(&wanted, site) {
            missing if missing.is_empty() => present.push(wanted),
            missing => eprintln!("{name}: missing {}: {}", missing.join(", "), wanted.peer.install()),
        }
    }
    if present.is_empty() {
        bail!("of none of these peers the programs are there");
    }
    Ok(present)
}

fn missing(wanted: &Wanted, site: &Site) -> Vec<&'static str> {
    wanted.peer.programs().into_iter().filter(|program| !site.has(program)).collect()
}

/// Lists peers, with what is missing of them.
pub(crate) fn list_peers(args: &PlaceArgs, surroundings: &Surroundings) -> anyhow::Result<()> {
    let site = args.site(surroundings)?;
    for name in PEERS {
        let wanted = find(name)?;
        match missing(&wanted, &site) {
            missing if missing.is_empty() => println!("{name:14} there"),
            missing => println!("{name:14} missing {}: {}", missing.join(", "), wanted.peer.install()),
        }
    }
    Ok(())
}

/// A thousand requests at a time take some thousands of files.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, what needs more will say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
