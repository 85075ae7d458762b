//! How training goes, for a person: a bar on a terminal, a line an epoch anywhere else.

use std::io::IsTerminal as _;
use std::time::Instant;

use adit_vision::train::{Batch, Epoch, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows progress on standard error.
pub(crate) struct Show {
    bar: Option<ProgressBar>,
    begun: Instant,
}

impl Show {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { bar: std::io::stderr().is_terminal().then(bar).transpose()?, begun: Instant::now() })
    }

    /// Since it began.
    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn begin(&self, what: String, length: usize) {
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_length(length as u64);
            bar.set_prefix(what);
            bar.set_message("");
        }
    }
}

fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {pos}/{len} {msg} {eta}")?;
    Ok(ProgressBar::new(1).with_style(style.progress_chars("=> ")))
}

impl Progress for Show {
    fn features(&mut self, done: usize, of: usize) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(of as u64) || bar.prefix() != "features" {
                self.begin("features".to_owned(), of);
            }
            bar.set_position(done as u64);
        } else if done == of {
            eprintln!("features of {of} files, {:.0} s", self.seconds());
        }
    }

    fn batch(&mut self, batch: &Batch) {
        let Some(bar) = &self.bar else { return };
        let what = format!("epoch {}/{}", batch.epoch, batch.epochs);
        if bar.prefix() != what {
            self.begin(what, batch.steps);
        }
        bar.set_position(batch.step as u64);
        bar.set_message(format!("loss {:.4} accuracy {}", batch.loss, percent(batch.accuracy)));
    }

    fn epoch(&mut self, epoch: &Epoch) {
        self.line(&format!(
            "epoch {}/{}: loss {:.4}, accuracy {}, held out {:.4}, {}{}, {:.0} s",
            epoch.epoch,
            epoch.epochs,
            epoch.loss,
            percent(epoch.accuracy),
            epoch.held_out_loss,
            percent(epoch.held_out_accuracy),
            if epoch.best { ", the best so far" } else { "" },
            self.seconds(),
        ));
    }
}

/// A part of one, as people read it.
pub(crate) fn percent(part: f32) -> String {
    format!("{:.2} %", f64::from(part) * 100.0)
}
