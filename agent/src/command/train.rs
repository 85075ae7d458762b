//! `adit-agent train`: the bar that shows how training goes; the training itself is the vision crate's.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use adit_common::id::Version;
use adit_vision::train::{Batch, DigitsOptions, Epoch, Progress, digits};
use indicatif::{ProgressBar, ProgressStyle};

/// Trains on the MNIST files in `data` and writes `model_path/version/model.safetensors`.
pub(crate) fn train_digits(
    data: PathBuf,
    model_path: &Path,
    epochs: usize,
    version: Version,
    seed: u64,
) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let options = DigitsOptions { epochs, seed, ..DigitsOptions::new(data) };
    let mut show = Show { bar: std::io::stderr().is_terminal().then(bar).transpose()?, begun };
    let trained = digits(&options, &mut show)?;
    let path = trained.save(model_path, version.0)?;
    let percent = |part: f32| f64::from(part) * 100.0;
    println!(
        "{}: weights of epoch {}, {:.2} % of 5000 held-out images, {:.2} % of {} test images, {:.0} s",
        path.display(),
        trained.epoch,
        percent(trained.held_out_accuracy),
        percent(trained.test_accuracy),
        trained.test_images,
        begun.elapsed().as_secs_f64(),
    );
    Ok(ExitCode::SUCCESS)
}

fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("epoch {prefix} [{wide_bar}] {pos}/{len} {msg} {eta}")?;
    Ok(ProgressBar::new(1).with_style(style.progress_chars("=> ")))
}

/// A bar on a terminal, a line an epoch anywhere else.
struct Show {
    bar: Option<ProgressBar>,
    begun: Instant,
}

impl Show {
    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}

impl Progress for Show {
    fn batch(&mut self, batch: &Batch) {
        let Some(bar) = &self.bar else { return };
        if batch.step == 1 {
            bar.reset();
            bar.set_length(batch.steps as u64);
            bar.set_prefix(format!("{}/{}", batch.epoch, batch.epochs));
        }
        bar.set_position(batch.step as u64);
        bar.set_message(format!("loss {:.4} accuracy {:.2} %", batch.loss, batch.accuracy * 100.0));
    }

    fn epoch(&mut self, epoch: &Epoch) {
        self.line(&format!(
            "epoch {}/{}: loss {:.4}, {:.2} % of the held-out images{}, {:.0} s",
            epoch.epoch,
            epoch.epochs,
            epoch.loss,
            epoch.held_out_accuracy * 100.0,
            if epoch.best { ", the best so far" } else { "" },
            self.begun.elapsed().as_secs_f64(),
        ));
    }
}
