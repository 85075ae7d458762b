//! `adit-agent bench`: how fast a model is on this machine, without any relay, queue or neighbour.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use adit_agent::config::ServingConfig;
use adit_agent::serving::{Devices, embedded};
use adit_agent::workbench::{Found, Measurement, Memory, Stages, find};
use adit_common::id::{ModelName, Version};
use adit_vision::DeviceChoice;
use adit_vision::image::digit_picture;
use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::table::{megabytes, table};

/// More would only fill the memory.
const LARGEST: usize = 1024;

/// What may be said.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Bench {
    /// The model to measure; the built-in digits unless given
    #[arg(long)]
    model: Option<ModelName>,
    /// Its version; the newest that is served unless given
    #[arg(long, value_name = "NUMBER")]
    version: Option<Version>,
    /// Images in a batch, one or several sizes
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "1,2,4,8")]
    batch: Vec<usize>,
    /// How long each size is measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The picture to ask about; a drawn digit unless given
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// What it computes on, unless its model.toml says: auto, cpu or cuda:N
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Measures a model and prints a table, or JSON.
pub(crate) fn bench(asked: &Bench, serving: &ServingConfig) -> anyhow::Result<ExitCode> {
    if asked.batch.is_empty() || asked.batch.iter().any(|size| !(1..=LARGEST).contains(size)) {
        bail!("--batch takes numbers from 1 to {LARGEST}, such as 1,2,4,8");
    }
    // Also keeps what is not a number out.
    if !(0.01..=3600.0).contains(&asked.seconds) {
        bail!("--seconds takes a number from 0.01 to 3600");
    }
    let image = match &asked.image {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => digit_picture(8)?,
    };
    let before = Memory::now();
    let models = serving.models.as_deref();
    let name = match &asked.model {
        Some(name) => name.clone(),
        None => ModelName::new(embedded::NAME)?,
    };
    let devices = Devices::open(asked.device.unwrap_or(serving.device))?;
    // The built-in one is there to be measured even where a folder of models takes its place in serving.
    let found = find(models, true, &name, asked.version, &devices).map_err(|reason| anyhow!(reason))?;
    let time = Duration::from_secs_f64(asked.seconds);
    let bar = std::io::stderr().is_terminal().then(bar).transpose()?;
    let taken = Measurement::take(&found.opened, &image, &asked.batch, time, |part| {
        if let Some(bar) = &bar {
            bar.set_position((part * 1000.0) as u64);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let taken = taken.map_err(|reason| anyhow!(reason))?;
    let report = Report { found: &found, before, after: Memory::now(), asked, bytes: image.len() };
    if asked.json {
        println!("{}", serde_json::to_string_pretty(&report.object(&taken))?);
    } else {
        print!("{}", report.text(&taken));
    }
    Ok(ExitCode::SUCCESS)
}

fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("measuring [{wide_bar}] {percent} % {eta}")?;
    Ok(ProgressBar::new(1000).with_style(style.progress_chars("=> ")))
}

struct Report<'a> {
    found: &'a Found,
    before: Option<Memory>,
    after: Option<Memory>,
    asked: &'a Bench,
    bytes: usize,
}

type Stage = (&'static str, fn(&Stages) -> Duration);

/// In the order of a request's walk.
const STAGES: [Stage; 4] = [
    ("decode", |stages| stages.decode),
    ("prepare", |stages| stages.prepare),
    ("forward", |stages| stages.forward),
    ("interpret", |stages| stages.interpret),
];

impl Report<'_> {
    fn cores() -> usize {
        available_parallelism().map_or(1, usize::from)
    }

    fn text(&self, taken: &[Measurement]) -> String {
        let Found { name, version, size, opened } = self.found;
        let (input, classes) = (opened.network.input(), opened.network.classes());
        let mut text = format!(
            "{name} version {version}: {}, {input} in, {classes} classes, on {} with {} cores, by {}\n",
            opened.architecture,
            opened.device,
            Self::cores(),
            opened.network.kernels().map_or_else(|| "candle".to_owned(), |isa| format!("kernels for {isa}")),
        );
        text.push_str(&match &self.asked.image {
            Some(path) => format!("{}, {} bytes\n", path.display(), self.bytes),
            None => {
                "a drawn digit: give a photograph of your own by --image for times of decoding and preparing\n".into()
            }
        });
        let head = ["batch", "images/s", "pass ms", "p90", "decode", "prepare", "forward", "interpret", "passes"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(taken.iter().map(|size| {
            let each =
                |(_, stage): Stage| format!("{:.3}", milliseconds(size.quantile(0.5, stage)) / size.batch as f64);
            let [decode, prepare, forward, interpret] = STAGES.map(each);
            let pass = |part| format!("{:.2}", milliseconds(size.quantile(part, Stages::total)));
            let rate = format!("{:.1}", size.images_per_second());
            let (batch, passes) = (size.batch.to_string(), size.passes.len().to_string());
            [batch, rate, pass(0.5), pass(0.9), decode, prepare, forward, interpret, passes]
        }));
        text.push_str(&table(&rows, &[0, 1, 2, 3, 4, 5, 6, 7, 8]));
        text.push_str(
            "pass: a whole batch, one after the other on one thread, median and p90; stages: median ms an image\n",
        );
        text.push_str(&format!("memory: weights {}", megabytes(*size)));
        if let (Some(before), Some(after)) = (self.before, self.after) {
            let (before, now, peak) = (megabytes(before.resident), megabytes(after.resident), megabytes(after.peak));
            text.push_str(&format!(", process {before} before, {now} now, {peak} at its peak"));
        }
        text.push('\n');
        text
    }

    fn object(&self, taken: &[Measurement]) -> Value {
        let Found { name, version, size, opened } = self.found;
        let input = opened.network.input();
        let both = |size: &Measurement, stage: fn(&Stages) -> Duration| {
            let at = |part| milliseconds(size.quantile(part, stage));
            json!({ "p50": at(0.5), "p90": at(0.9) })
        };
        let batches: Vec<_> = taken
            .iter()
            .map(|size| {
                let stages: serde_json::Map<_, _> =
                    STAGES.into_iter().map(|(name, stage)| (name.to_owned(), both(size, stage))).collect();
                json!({
                    "batch": size.batch,
                    "passes": size.passes.len(),
                    "images_per_second": size.images_per_second(),
                    "pass_ms": both(size, Stages::total),
                    "stages_ms": stages,
                })
            })
            .collect();
        json!({
            "model": name.as_str(),
            "version": version.0,
            "architecture": opened.architecture.name(),
            "input": [input.channels, input.height, input.width],
            "classes": opened.network.classes(),
            "device": &*opened.device,
            "cores": Self::cores(),
            "kernels": opened.network.kernels().map(|isa| isa.to_string()),
            "image_bytes": self.bytes,
            "seconds": self.asked.seconds,
            "memory": {
                "weights_bytes": size,
                "resident_before_bytes": self.before.map(|memory| memory.resident),
                "resident_bytes": self.after.map(|memory| memory.resident),
                "peak_bytes": self.after.map(|memory| memory.peak),
            },
            "batches": batches,
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
