//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::link::{LinkArgs, emulate, tell};

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
}

/// Does what was asked.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Link(args) => emulate(&args),
        Command::Tell { socket, words } => {
            println!("{}", tell(&socket, &words.join(" "))?);
            Ok(())
        }
    }
}
