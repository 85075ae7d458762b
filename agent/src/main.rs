//! `adit-agent`: runs models behind a firewall and answers through the tunnels it dials.

use std::path::PathBuf;
use std::process::ExitCode;

use adit_agent::config::Config;
use clap::{Args, Parser, Subcommand};

mod command;

/// Runs models behind a firewall and answers through the tunnels it dials.
#[derive(Debug, Parser)]
#[command(name = "adit-agent", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Dial the relays and serve the models until SIGTERM
    Run(Settings),
    /// Read the configuration, the certificates and every model, and say what is wrong
    Check(Settings),
    /// Ask a model about images, without any relay
    Infer {
        #[command(flatten)]
        settings: Settings,
        /// The model to ask; the only or first one unless given
        #[arg(long)]
        model: Option<String>,
        /// How many classes a classifier prints for each image
        #[arg(long, default_value_t = 5)]
        top: usize,
        /// Image files
        #[arg(required = true)]
        images: Vec<PathBuf>,
    },
    /// Draw a digit as a hand would, as a PNG on standard output: a picture to ask the built-in model about
    Draw {
        /// Which one
        #[arg(value_parser = clap::value_parser!(u8).range(0..=9))]
        digit: u8,
    },
    /// Train a model of our own
    #[command(subcommand)]
    Train(Train),
}

#[derive(Debug, Subcommand)]
enum Train {
    /// A network that reads handwritten digits, from the MNIST files
    Digits(Digits),
}

#[derive(Debug, Args)]
struct Digits {
    /// The folder with the four MNIST files
    #[arg(long)]
    data: PathBuf,
    /// The model's folder: VERSION/model.safetensors is written into it
    #[arg(long)]
    model_path: PathBuf,
    /// Walks over the training set
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// The version to write
    #[arg(long, default_value = "1")]
    version: adit_common::id::Version,
    /// The same seed on the same machine trains the same network
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Settings {
    /// The configuration; every key has a default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder with agent.pem, agent.key and ca.pem
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// The folder of models
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
}

impl Settings {
    fn load(self) -> anyhow::Result<Config> {
        let mut config: Config = adit_common::daemon::load(self.config.as_deref())?;
        config.tls_dir = self.tls_dir.or(config.tls_dir);
        config.serving.models = self.models.or(config.serving.models);
        Ok(config)
    }
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Run(settings) => with(settings, |config| {
            // systemd hands over its socket by these.
            #[allow(clippy::disallowed_methods, reason = "main.rs is where the environment is read")]
            command::run(config, |name| std::env::var_os(name))
        }),
        Command::Check(settings) => with(settings, command::check),
        Command::Infer { settings, model, top, images } => {
            with(settings, |config| command::infer(config, model.as_deref(), top, &images))
        }
        Command::Draw { digit } => command::draw(digit),
        Command::Train(Train::Digits(digits)) => {
            let Digits { data, model_path, epochs, version, seed } = digits;
            command::train_digits(data, &model_path, epochs, version, seed)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("adit-agent: {error:#}");
        ExitCode::FAILURE
    })
}

fn with(settings: Settings, run: impl FnOnce(Config) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match settings.load() {
        Ok(config) => run(config),
        Err(error) => {
            eprintln!("adit-agent: {error:#}");
            Ok(command::misconfigured())
        }
    }
}
