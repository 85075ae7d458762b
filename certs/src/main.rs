//! `adit-certs`: makes the authority of a house, issues its certificates, and shows what is there.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use adit_certs::{RelayName, Store, Summary, Validity};
use adit_common::id::AgentId;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  adit-certs init --dir certs --name relay.example.org 203.0.113.7
  adit-certs issue agent shop-7 --dir certs        then copy certs/agents/shop-7 to that machine
  adit-certs issue relay --dir certs --name relay.example.org
  adit-certs show --dir certs

Copy DIR/relay to the relay and DIR/agents/NAME to that agent. DIR/authority stays on this machine, and its
root.key may be moved to a safe place: only a new issuing certificate needs it.";

/// The certificates of an Adit house: one private authority, its relays, its agents.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the authority and the relay's certificates
    Init {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        relay: RelayOptions,
        /// Make a new authority although there is one; the old one is moved aside, and every agent must be issued again
        #[arg(long)]
        force: bool,
    },
    /// Issues a certificate with a new key, in the place of an earlier one
    Issue {
        #[command(subcommand)]
        holder: Holder,
    },
    /// Shows certificates: whose, under which names, by whom, until when; exits with 1 when one has expired
    Show {
        /// The folder of an authority: shows all that is in it
        #[arg(long, value_name = "DIR", required_unless_present = "files", conflicts_with = "files")]
        dir: Option<PathBuf>,
        /// Certificate files, PEM
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Holder {
    /// For an agent, which the relay will know by this name
    Agent {
        /// The agent's name: 1 to 63 of a-z, 0-9 and '-'
        name: AgentId,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        leaf: LeafOptions,
    },
    /// For a relay: its end of the tunnels, and its HTTPS front
    Relay {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        relay: RelayOptions,
        /// Write to this folder instead of DIR/relay
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Place {
    /// The folder of the authority
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
struct RelayOptions {
    /// DNS names and IP addresses by which agents and clients reach the relay
    #[arg(long = "name", value_name = "HOST", required = true, num_args = 1..)]
    names: Vec<RelayName>,
    /// How long the certificates are valid; browsers of Apple accept no more than 825
    #[arg(long, value_name = "N", default_value_t = 825, value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
}

#[derive(Args)]
struct LeafOptions {
    /// Write to this folder instead of DIR/agents/NAME
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// How long the certificate is valid
    #[arg(long, value_name = "N", default_value_t = 825, value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        // `adit-certs show | head` is no failure.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("adit-certs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match command {
        Command::Init { place, relay, force } => {
            let store = Store::new(&place.dir);
            let aside = store.init(&relay.names, Validity::days(relay.days), force)?;
            if let Some(aside) = aside {
                writeln!(out, "the former authority is now in {}", aside.display())?;
            }
            writeln!(out, "made an authority in {}, and in {}:", place.dir.display(), store.relay_folder().display())?;
            writeln!(out, "  tunnel.pem, tunnel.key   the relay's end of the tunnels")?;
            writeln!(out, "  https.pem, https.key     its HTTPS front, where it has no public certificate")?;
            writeln!(out, "  ca.pem                   what clients of that front trust (curl --cacert)")?;
            writeln!(out, "next: adit-certs issue agent NAME --dir {}", place.dir.display())?;
        }
        Command::Issue { holder: Holder::Agent { name, place, leaf } } => {
            let store = Store::new(place.dir);
            let folder = leaf.out.unwrap_or_else(|| store.agent_folder(&name));
            store.issue_agent(&name, Validity::days(leaf.days), &folder)?;
            writeln!(
                out,
                "issued agent {name}: copy {} (agent.pem, agent.key, ca.pem) to its machine",
                folder.display()
            )?;
        }
        Command::Issue { holder: Holder::Relay { place, relay, out: folder } } => {
            let store = Store::new(place.dir);
            let folder = folder.unwrap_or_else(|| store.relay_folder());
            store.issue_relay(&relay.names, Validity::days(relay.days), &folder)?;
            let names: Vec<_> = relay.names.iter().map(ToString::to_string).collect();
            writeln!(out, "issued a relay at {}: copy {} to its machine", names.join(", "), folder.display())?;
        }
        Command::Show { dir, files } => {
            let files = match dir {
                Some(dir) => Store::new(dir).certificates()?,
                None => files,
            };
            let mut expired = false;
            for file in files {
                let summary = Summary::load(&file)?;
                expired |= summary.is_expired();
                writeln!(out, "{summary}")?;
            }
            return Ok(if expired { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    }
    Ok(ExitCode::SUCCESS)
}
