//! The command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::flow::{FlowArgs, SinkArgs, send, serve as sink};
use crate::link::{LinkArgs, emulate, tell};
use crate::load::{LoadArgs, ProbeArgs, measure, probe};
use crate::stand_in::{StandInArgs, serve};

/// A network in namespaces, in which tunnels are measured side by side.
#[derive(Debug, Parser)]
#[command(name = "adit-lab", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
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

/// The lab's own programs leave the other cores to what is measured.
fn on_one_core<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(work)
}
