//! The command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::course::{PlaceArgs, RunArgs, list_peers};
use crate::flow::{FlowArgs, SinkArgs, send, serve as sink};
use crate::link::{LinkArgs, emulate, tell};
use crate::load::{LoadArgs, ProbeArgs, measure, probe};
use crate::record;
use crate::scenario;
use crate::stand_in::{StandInArgs, serve};
use crate::table::markdown;

/// What the program knows of the process that it runs in.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where programs are looked for.
    pub path: Vec<PathBuf>,
    /// This program's own file.
    pub program: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  adit-lab peers                                   which are there, and how to get the others
  adit-lab run --peers direct,adit --scenarios smoke
  adit-lab run --peers direct,adit,rathole --scenarios wan,slow --rounds 3 --out results.jsonl
  adit-lab table results.jsonl                     medians over the rounds, as Markdown

While a scenario runs, its links can be looked at and changed:
  adit-lab tell /tmp/adit-lab/link-b.socket stats
  adit-lab tell /tmp/adit-lab/link-b.socket both delay=40ms loss=1 burst=1:5 rate=20mbit queue=250k

e2e/lab/README.md says what each scenario is.";

const RUN_EXAMPLES: &str = "\
Examples:
  adit-lab run --peers direct,direct+bbr,adit --scenarios wan,ladder --rounds 3
  adit-lab run --peers adit,adit:cubic.toml --scenarios wan/loss1,fair,deep --seconds 10
  adit-lab run --peers direct,adit,rathole --scenarios lan --programs target/release --programs peers/bin";

/// A network in namespaces, in which tunnels are measured side by side.
#[derive(Debug, Parser)]
#[command(name = "adit-lab", version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Walks through scenarios with one peer after another, and keeps what it measured
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Makes tables in Markdown of what was measured: medians over rounds, with ratios to `direct`
    Table {
        /// What `adit-lab run` wrote
        #[arg(required = true, value_name = "JSONL")]
        results: Vec<PathBuf>,
    },
    /// Lists the peers, and what is missing of them
    Peers(PlaceArgs),
    /// Lists the scenarios and their parts
    Scenarios,
    /// Emulates a link between two network namespaces
    Link(LinkArgs),
    /// Says one line to a link that runs, such as `both delay=20ms loss=1`, and prints its answer
    Tell {
        /// The link's control socket
        socket: PathBuf,
        /// ab, ba or both, and settings; or stats
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Asks an HTTP server by a plan, and prints how it went as JSON
    Load(LoadArgs),
    /// Asks several hosts until each has answered, and prints when each did as JSON
    Probe(ProbeArgs),
    /// Fills a link with flows of plain TCP, and prints how fast each was as JSON
    Flow(FlowArgs),
    /// Listens for the flows of `flow`
    Sink(SinkArgs),
    /// Serves in the place of an inference server, with set times
    StandIn(StandInArgs),
}

/// Does what was asked.
pub fn run(cli: Cli, surroundings: &Surroundings) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(args) => on_one_core(crate::course::run(&args, surroundings)),
        Command::Table { results } => {
            let records = results.iter().map(|path| record::read(path)).collect::<anyhow::Result<Vec<_>>>()?.concat();
            print!("{}", markdown(records));
            Ok(())
        }
        Command::Peers(args) => list_peers(&args, surroundings),
        Command::Scenarios => list_scenarios(),
        Command::Link(args) => emulate(&args),
        Command::Tell { socket, words } => {
            println!("{}", tell(&socket, &words.join(" "))?);
            Ok(())
        }
        Command::Load(args) => {
            let report = on_one_core(measure(&args))?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        Command::Probe(args) => {
            println!("{}", serde_json::to_string(&on_one_core(probe(&args))?)?);
            Ok(())
        }
        Command::Flow(args) => {
            println!("{}", serde_json::to_string(&on_one_core(send(&args))?)?);
            Ok(())
        }
        Command::Sink(args) => on_one_core(sink(&args)),
        Command::StandIn(args) => on_one_core(serve(&args)),
    }
}

fn list_scenarios() -> anyhow::Result<()> {
    for (name, about) in scenario::NAMES {
        println!("{name:12} {about}");
        for part in scenario::parts(&[name.into()], 20)? {
            println!("    {}", part.full_name());
        }
    }
    Ok(())
}

/// The lab's own programs leave the other cores to what is measured.
fn on_one_core<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(work)
}
