//! The command line, as what it means.

use std::path::PathBuf;
use std::time::Duration;

use adit_common::daemon::parse_duration;
use adit_common::id::{ModelName, Version};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::connect::{Key, Options, Trust};
use crate::error::ClientError;
use crate::load::{Arrivals, Pacing, Plan};
use crate::target::Target;

/// Ask models behind an Adit relay, and see where the time goes.
#[derive(Debug, Parser)]
#[command(name = "adit", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  adit classify --url https://relay.example --model mobilenet photo.jpg
  adit detect --url https://relay.example --model yolox_nano --out annotated.jpg photo.jpg
  adit test --url https://relay.example --model mobilenet --image photo.jpg --requests 1000

The API key is taken from --key, --key-file or the variable ADIT_KEY, in this order.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send images to a model and print their classes and the path of each request
    Classify(ClassifyArgs),
    /// Send images to a model and print the objects that it finds
    Detect(DetectArgs),
    /// Measure delay, jitter and throughput of a model, stage by stage
    Test(TestArgs),
}

/// How to reach the relay.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// The relay: https://HOST or https://HOST:PORT (http:// for an agent's local listener)
    #[arg(long, value_name = "URL")]
    pub url: Target,
    /// Trust the authority whose certificate is in this PEM file, instead of those that this machine trusts
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The API key; others on this machine can see it in the list of processes, so prefer ADIT_KEY or --key-file
    #[arg(long, conflicts_with = "key_file")]
    pub key: Option<String>,
    /// Read the API key from this file
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// How long to wait for a connection, and then for each answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive_duration)]
    pub timeout: Duration,
    /// Speak HTTP/1.1 even where HTTP/2 is offered
    #[arg(long)]
    pub http1: bool,
}

impl ConnectionArgs {
    /// What was typed, with the key of the environment where none was.
    pub fn options(&self, environment_key: Option<&str>) -> Result<Options, ClientError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| ClientError::File { path: path.clone(), source })
        };
        let filed = self.key_file.as_ref().map(read).transpose()?;
        // An empty variable is how a shell says that there is none.
        let environment = environment_key.filter(|key| !key.trim().is_empty());
        let key = self.key.as_deref().or(filed.as_deref()).or(environment).map(Key::new).transpose()?;
        let trust = self.ca.clone().map_or(Trust::Platform, Trust::File);
        Ok(Options { trust, key, timeout: self.timeout, http1_only: self.http1, ..Options::new(self.url.clone()) })
    }
}

/// `adit classify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  adit classify --url https://relay.example --model mobilenet photo.jpg
  ADIT_KEY=... adit classify --url https://localhost:8443 --ca state/ca.pem --model digits --top 1 *.png
  adit classify --url https://relay.example --model mobilenet --json photo.jpg | jq .stages_ms

With --json each image is one line. The exit code is 1 if any image failed.")]
pub struct ClassifyArgs {
    /// How to reach the relay.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// The model to ask
    #[arg(long)]
    pub model: ModelName,
    /// Its version; the newest where absent
    #[arg(long)]
    pub version: Option<Version>,
    /// How many classes to print
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
    /// Print JSON, one line an image
    #[arg(long)]
    pub json: bool,
    /// Write the image with its classes on it: a file (.jpg, .png), or for several images a folder that is there
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// The images (JPEG, PNG, ...), as they are on disk
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
}

/// `adit detect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  adit detect --url https://relay.example --model yolox_nano photo.jpg
  adit detect --url https://relay.example --model yolox_nano --out annotated.jpg photo.jpg
  adit detect --url https://relay.example --model yolox_nano --out drawn *.jpg

With --json each image is one line. The exit code is 1 if any image failed.")]
pub struct DetectArgs {
    /// How to reach the relay.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// The model to ask
    #[arg(long)]
    pub model: ModelName,
    /// Its version; the newest where absent
    #[arg(long)]
    pub version: Option<Version>,
    /// Leave out what scores less, from 0 to 1; the model itself leaves out what it is unsure of
    #[arg(long, default_value_t = 0.0, value_parser = fraction)]
    pub confidence: f32,
    /// Print JSON, one line an image
    #[arg(long)]
    pub json: bool,
    /// Write the image with boxes on it: a file (.jpg, .png), or for several images a folder that is there
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// The images (JPEG, PNG, ...), as they are on disk
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
}

fn fraction(text: &str) -> Result<f32, String> {
    let read = text.parse::<f32>().ok().filter(|read| (0.0..=1.0).contains(read));
    read.ok_or_else(|| "it is a number from 0 to 1".to_owned())
}

/// How the sendings of an open loop are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArrivalsArg {
    /// At even distances
    Constant,
    /// At random, independent of each other
    Poisson,
}

/// `adit test`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  adit test --url https://relay.example --model mobilenet --image photo.jpg --requests 1000 --concurrency 8
  adit test --url https://relay.example --model mobilenet --image photo.jpg --rate 50 --concurrency 64
  adit test --url https://relay.example --model mobilenet --image photo.jpg --fresh-connections

Without --rate, each of --concurrency askers sends when it has its answer (closed loop): this shows what the system can
carry. With --rate, requests are sent by a schedule (open loop): this shows what its users would wait. The exit code is 1
if any request failed. Ctrl-C ends the measurement and prints what there is.")]
pub struct TestArgs {
    /// How to reach the relay.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// The model to ask
    #[arg(long)]
    pub model: ModelName,
    /// Its version; the newest where absent
    #[arg(long)]
    pub version: Option<Version>,
    /// The image to send
    #[arg(long)]
    pub image: PathBuf,
    /// How many requests to measure
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests: u32,
    /// How many requests may be under way at a time
    #[arg(long, short = 'c', default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Over how many connections; as many as may be under way where absent, and always so over HTTP/1.1
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: Option<u16>,
    /// Send this many requests a second, however the answers come (open loop)
    #[arg(long, value_parser = positive_number)]
    pub rate: Option<f64>,
    /// How the sendings are spread
    #[arg(long, value_enum, default_value = "poisson", requires = "rate")]
    pub arrivals: ArrivalsArg,
    /// How many requests to send before, which do not count
    #[arg(long, default_value_t = 10)]
    pub warmup: u32,
    /// Open a new connection for each request
    #[arg(long, conflicts_with = "connections")]
    pub fresh_connections: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl TestArgs {
    /// What to measure.
    pub fn plan(&self) -> Plan {
        let arrivals = match self.arrivals {
            ArrivalsArg::Constant => Arrivals::Constant,
            ArrivalsArg::Poisson => Arrivals::Poisson,
        };
        Plan {
            requests: self.requests as usize,
            concurrency: self.concurrency.into(),
            connections: self.connections.unwrap_or(self.concurrency).into(),
            pacing: self.rate.map_or(Pacing::Closed, |rate| Pacing::Open { rate, arrivals }),
            warmup: self.warmup as usize,
            fresh: self.fresh_connections,
        }
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("no time at all is not enough".to_owned()) } else { Ok(duration) }
}

fn positive_number(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "it must be a number above zero".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    fn test(line: &str) -> Result<TestArgs, String> {
        let whole = format!("adit test --url https://h --model m --image i.jpg{line}");
        parse(&whole).map(|command| match command {
            Command::Test(args) => args,
            other @ (Command::Classify(_) | Command::Detect(_)) => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_definitions_are_consistent_and_every_help_has_examples() {
        Cli::command().debug_assert();
        for name in ["classify", "detect", "test"] {
            let mut command = Cli::command();
            let help = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            assert!(help.contains("Examples:"), "{help}");
        }
    }

    #[test]
    fn classify_takes_several_images_and_has_its_defaults() {
        let Command::Classify(args) = parse("adit classify --url https://h:8443 --model m a.jpg b.png").unwrap() else {
            panic!("another command");
        };
        assert_eq!((args.images.len(), args.top, args.version), (2, 5, None));
        assert_eq!(args.connection.url.port(), 8443);
        assert_eq!(args.connection.timeout, Duration::from_secs(30));
    }

    #[test]
    fn a_plan_is_closed_unless_a_rate_is_given() {
        let plan = test("").unwrap().plan();
        assert_eq!((plan.pacing, plan.requests, plan.concurrency, plan.warmup), (Pacing::Closed, 100, 1, 10));
        let plan = test(" --rate 50 --concurrency 64 --connections 8").unwrap().plan();
        assert_eq!(plan.pacing, Pacing::Open { rate: 50.0, arrivals: Arrivals::Poisson });
        assert_eq!((plan.concurrency, plan.connections), (64, 8));
        let plan = test(" --rate 50 --arrivals constant").unwrap().plan();
        assert_eq!(plan.pacing, Pacing::Open { rate: 50.0, arrivals: Arrivals::Constant });
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (line, reason) in [
            (" --rate 0", "above zero"),
            (" --rate inf", "above zero"),
            (" --concurrency 0", "0 is not in"),
            (" --requests 0", "0 is not in"),
            (" --timeout 0s", "no time at all"),
            (" --timeout 5", "such as \"250ms\""),
            (" --arrivals constant", "--rate"),
            (" --fresh-connections --connections 2", "cannot be used with"),
            (" --key a --key-file b", "cannot be used with"),
            (" --version 0", "whole number from 1"),
        ] {
            let error = test(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
        assert!(parse("adit detect --url https://h --model m --confidence nan a").unwrap_err().contains("from 0 to 1"));
        assert!(parse("adit classify --url relay.example --model m a").unwrap_err().contains("scheme is missing"));
        assert!(parse("adit classify --url https://h --model ../x a").unwrap_err().contains("is not a model name"));
        assert!(parse("adit classify --url https://h --model m").unwrap_err().contains("<IMAGE>"));
    }

    #[test]
    fn keys_are_taken_in_their_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "filed\n").unwrap();
        let key = |line: &str, environment| {
            let options = test(line).unwrap().connection.options(environment).unwrap();
            options.key.map(|key| key.bearer().to_str().unwrap().to_owned())
        };
        assert_eq!(key("", None), None);
        assert_eq!(key("", Some(" ")), None);
        assert_eq!(key("", Some("environment")).as_deref(), Some("Bearer environment"));
        assert_eq!(key(" --key typed", Some("environment")).as_deref(), Some("Bearer typed"));
        let filed = format!(" --key-file {}", file.path().display());
        assert_eq!(key(&filed, Some("environment")).as_deref(), Some("Bearer filed"));
    }
}
