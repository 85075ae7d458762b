//! `adit-agent`: runs models behind a firewall and answers through the tunnels it dials.

use std::path::PathBuf;
use std::process::ExitCode;

use adit_agent::config::Config;
use adit_vision::DeviceChoice;
use clap::{Args, Parser, Subcommand};

mod command;

/// Weights and intermediate results of tens of megabytes come and go, allocated by one thread and freed by another. glibc's
/// allocator keeps most of that in the arenas of threads: after some reloads an agent held twice what it held at first.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    #[command(after_help = "\
Examples:
  adit-agent run --config /etc/adit/agent.toml
  adit-agent run --config agent.toml --tls-dir certs/shop-7 --models models")]
    Run(Settings),
    /// Read the configuration, the certificates and every model, and say what is wrong
    #[command(after_help = "\
Example:
  adit-agent check --config /etc/adit/agent.toml")]
    Check(Settings),
    /// Fetch a model's weights from a hub into the folder of models
    #[command(after_help = "\
Examples:
  adit-agent pull --list
  adit-agent pull resnet18 --models models
  adit-agent pull resnet18 --models models --version 2 --revision v1.0
  adit-agent pull owner/repository --architecture resnet50 --models models --labels names.txt

The hub is https://huggingface.co, or the one that HF_ENDPOINT names. HF_TOKEN says who asks, for what is private or
gated; without it, the token counts that was stored in HF_HOME by logging in. An interrupted download goes on where it
broke off when the same command is given again.")]
    Pull {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        asked: command::Pull,
    },
    /// Try every model, and list versions, sizes and what is wrong
    #[command(after_help = "\
Examples:
  adit-agent list --models models
  adit-agent list --models models --json")]
    List {
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure a model on this machine: images a second, the time of each stage, memory
    #[command(after_help = "\
Examples:
  adit-agent bench
  adit-agent bench --models models --model resnet18 --image photo.jpg
  adit-agent bench --models models --model resnet18 --batch 1,8,32 --seconds 10 --json")]
    Bench {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        asked: command::Bench,
    },
    /// Make a model ready to compute in int8: calibrate it over pictures of yours, and compare with f32
    #[command(after_help = "\
Examples:
  adit-agent quantise --models models --model resnet50 pictures/*.jpg
  adit-agent quantise --models models --model resnet50 --version 2 pictures/*.jpg

The calibration is written beside the weights, as int8.json, and counts where model.toml says: precision = \"int8\".
Pictures are not kept. A calibration of other weights is refused: after new weights, give the command again.")]
    Quantise {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        asked: command::Quantise,
    },
    /// Ask a model about images, without any relay
    #[command(after_help = "\
Examples:
  adit-agent infer digit.png
  adit-agent infer --models models --model resnet18 --top 3 photo.jpg another.jpg")]
    Infer {
        #[command(flatten)]
        settings: Settings,
        /// The model to ask; the only or first one unless given
        #[arg(long)]
        model: Option<String>,
        /// How many classes a classifier prints for each image
        #[arg(long, default_value_t = 5)]
        top: usize,
        /// What models compute on whose model.toml does not say: auto, cpu or cuda:N
        #[arg(long)]
        device: Option<DeviceChoice>,
        /// Image files
        #[arg(required = true)]
        images: Vec<PathBuf>,
    },
    /// Draw a digit as a hand would, as a PNG on standard output: a picture to ask the built-in model about
    #[command(after_help = "\
Example:
  adit-agent draw 7 > digit.png")]
    Draw {
        /// Which one
        #[arg(value_parser = clap::value_parser!(u8).range(0..=9))]
        digit: u8,
    },
    /// Train a model of our own
    #[command(subcommand)]
    Train(command::Train),
}

#[derive(Debug, Args)]
struct Place {
    /// The configuration, for its [serving] section
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of models
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
}

impl Place {
    fn settings(self) -> Settings {
        Settings { config: self.config, tls_dir: None, models: self.models }
    }
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
        Command::Pull { place, asked } => with(place.settings(), |config| {
            // The hub and the token.
            #[allow(clippy::disallowed_methods, reason = "main.rs is where the environment is read")]
            command::pull(asked, config.serving.models.as_deref(), |name| std::env::var_os(name))
        }),
        Command::List { place, json } => with(place.settings(), |mut config| {
            config.serving.embedded = Some(config.serves_embedded());
            command::list(&config.serving, json)
        }),
        Command::Bench { place, asked } => with(place.settings(), |config| command::bench(&asked, &config.serving)),
        Command::Quantise { place, asked } => {
            with(place.settings(), |config| command::quantise(&asked, &config.serving))
        }
        Command::Infer { settings, model, top, device, images } => with(settings, |mut config| {
            config.serving.device = device.unwrap_or(config.serving.device);
            command::infer(config, model.as_deref(), top, &images)
        }),
        Command::Draw { digit } => command::draw(digit),
        Command::Train(what) => command::train(what),
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
