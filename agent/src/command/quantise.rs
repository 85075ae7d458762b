//! `adit-agent quantise`: a model made ready to compute in bytes, over the user's own pictures.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use adit_agent::config::ServingConfig;
use adit_agent::workbench::{Agreement, Quantised, locate, quantise as make};
use adit_common::id::{ModelName, Version};
use anyhow::anyhow;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

/// What may be said.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Quantise {
    /// The model to make ready
    #[arg(long)]
    model: ModelName,
    /// Its version; the newest that is served unless given
    #[arg(long, value_name = "NUMBER")]
    version: Option<Version>,
    /// Pictures of the kind that it is going to see: some dozens, as different as they come
    #[arg(required = true)]
    images: Vec<PathBuf>,
}

/// Calibrates a model and prints how far bytes and f32 agree.
pub(crate) fn quantise(asked: &Quantise, serving: &ServingConfig) -> anyhow::Result<ExitCode> {
    let located = locate(serving.models.as_deref(), &asked.model, asked.version).map_err(|reason| anyhow!(reason))?;
    let bar = std::io::stderr().is_terminal().then(bar).transpose()?;
    let made = make(&located.spec, located.version, &asked.images, |part| {
        if let Some(bar) = &bar {
            bar.set_position((part * 1000.0) as u64);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let made = made.map_err(|reason| anyhow!(reason))?;
    for (path, reason) in &made.unread {
        eprintln!("{}: left out: {reason}", path.display());
    }
    println!("{} version {}, {} pictures\n{}", asked.model, located.version, made.images, told(&made));
    Ok(ExitCode::SUCCESS)
}

fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("quantising [{wide_bar}] {percent} % {eta}")?;
    Ok(ProgressBar::new(1000).with_style(style.progress_chars("=> ")))
}

fn told(made: &Quantised) -> String {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let [plain, bytes] = made.times.map(milliseconds);
    let agreement = match made.agreement {
        Agreement::Classes { same, largest, mean } => format!(
            "  likeliest class as in f32    {same} of {}\n  \
             its probability moved by     {:.2} % in the mean\n  \
             any probability moved by     {:.2} % at most",
            made.images,
            mean * 100.0,
            largest * 100.0
        ),
        Agreement::Boxes { plain, bytes, same, overlap, largest, mean } => format!(
            "  boxes in f32, int8, both     {plain}, {bytes}, {same}\n  \
             overlap of those in both     {:.1} % in the mean\n  \
             their scores moved by        {:.2} % in the mean, {:.2} % at most",
            overlap * 100.0,
            mean * 100.0,
            largest * 100.0
        ),
    };
    format!(
        "{agreement}\n  a pass of one picture        {plain:.1} ms in f32, {bytes:.1} ms in int8\n\n\
         {} is written. It counts where model.toml says: precision = \"int8\"",
        made.file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_has_all_figures() {
        let made = |agreement| Quantised {
            file: "m/1/int8.json".into(),
            images: 12,
            unread: Vec::new(),
            agreement,
            times: [Duration::from_micros(14_250), Duration::from_micros(7_100)],
        };
        let classes = told(&made(Agreement::Classes { same: 11, largest: 0.0512, mean: 0.01 }));
        for part in
            ["11 of 12", "1.00 % in the mean", "5.12 % at most", "14.2 ms in f32, 7.1 ms in int8", "m/1/int8.json"]
        {
            assert!(classes.contains(part), "{part}: {classes}");
        }
        let agreement = Agreement::Boxes { plain: 5, bytes: 4, same: 3, overlap: 0.9, largest: 0.1, mean: 0.05 };
        assert!(told(&made(agreement)).contains("5, 4, 3\n  overlap of those in both     90.0 % in the mean"));
    }
}
