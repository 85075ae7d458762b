//! `adit-agent train`: what was asked for, the bar that shows how it goes, and the version that comes out; the training itself
//! is the vision crate's.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use adit_agent::serving::{Kind, Spec, describe};
use adit_common::id::Version;
use adit_vision::train::{
    ClassifierOptions, DigitsOptions, ModelFolder, Origin, TrainedClassifier, class_names, classifier, digits,
    learning_curve,
};
use adit_vision::{Architecture, Stop, VisionError, Weights};
use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};

use super::interrupt::interrupts;
use super::publishing::Publishing;
use super::show::{Show, percent};

/// How many lines of one kind are enough.
const SHOWN: usize = 20;

/// The digits model's description, which is part of the program.
const DIGITS: &str = include_str!("../../models/digits/model.toml");

#[derive(Debug, Subcommand)]
pub(crate) enum Train {
    /// A network that reads handwritten digits, from the MNIST files
    #[command(after_help = "Examples:\n  \
        adit-agent train digits --data mnist --model-path models/digits\n  \
        adit-agent train digits --data mnist --model-path models/digits --resume   # after Ctrl-C, or worse\n\n\
        An agent that serves the folder sees the new version when it is complete, and not before.")]
    Digits(Digits),
    /// A classifier for your own pictures: the last layer of a network that is already trained, trained anew
    #[command(after_help = "Examples:\n  \
        adit-agent train classifier --data pets --base models/mobilenet_v2 --model-path models/pets\n  \
        adit-agent train classifier --data pets --base models/mobilenet_v2 --model-path models/pets --flip --patience 10\n  \
        adit-agent infer --models models --model pets photo.jpg\n\n\
        `pets` holds a folder for each class (pets/cat, pets/dog, ...) with at least five pictures in it. The network may be \
        any classifier of this program with weights: SqueezeNet, MobileNetV2, ResNet, GoogLeNet with batch normalisation, \
        LeNet. Detectors cannot be trained, nor any layer but the last.")]
    Classifier(Classifier),
}

#[derive(Debug, Args)]
pub(crate) struct Digits {
    /// The folder with the four MNIST files
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    publishing: Publishing,
    /// Walks over the training set
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// The same seed on the same machine trains the same network
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Classifier {
    /// A folder of folders: one for each class, with its pictures
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The model to start from: a folder with a model.toml and weights
    #[arg(long, value_name = "DIR")]
    base: PathBuf,
    /// Which version of it; the newest unless given
    #[arg(long, value_name = "VERSION")]
    base_version: Option<Version>,
    #[command(flatten)]
    publishing: Publishing,
    /// Walks over the pictures, at most
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// Part of each class's pictures that is held out, to see how well others are read
    #[arg(long, value_name = "PART", default_value_t = 0.2)]
    holdout: f64,
    /// Epochs without improvement on the held-out pictures after which to stop
    #[arg(long, value_name = "EPOCHS", default_value_t = 5)]
    patience: usize,
    /// The highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    learning_rate: f64,
    /// Pictures a step
    #[arg(long, value_name = "PICTURES", default_value_t = 32)]
    batch: usize,
    /// Learn from mirror images too: where left and right do not matter
    #[arg(long)]
    flip: bool,
    /// Decides what is held out, first weights and order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much memory features may take; more of them go into a file
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u64,
}

/// Trains, publishes, and says what came out.
pub(crate) fn train(what: Train) -> anyhow::Result<ExitCode> {
    match what {
        Train::Digits(asked) => train_digits(asked),
        Train::Classifier(asked) => train_classifier(&asked),
    }
}

fn train_digits(asked: Digits) -> anyhow::Result<ExitCode> {
    let Digits { data, publishing, epochs, seed } = asked;
    let labels: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    // Its classes may have other names, as long as there are ten.
    publishing.fits(Architecture::Lenet, None, |known| known.check(labels.len()))?;
    let job = publishing.begin()?;
    let options = DigitsOptions { epochs, seed, keep: Some(job.keep.clone()), ..DigitsOptions::new(data) };
    let mut show = Show::new()?;
    let stop = interrupts()?;
    let stopped = || stop.load(Ordering::Relaxed);
    let trained = match digits(&options, &Stop::when(&stopped), &mut show) {
        Err(VisionError::Stopped) => return Ok(job.interrupted()),
        trained => trained?,
    };
    let title = format!("digits: {} of the test images", percent(trained.test_accuracy));
    let curve = learning_curve(&title, &trained.curve);
    let path = job.publish(&trained.weights, &curve, &labels, DIGITS)?;
    println!(
        "{}: weights of epoch {}, {} of 5000 held-out images, {} of {} test images, {:.0} s",
        path.display(),
        trained.best.epoch,
        percent(trained.best.held_out_accuracy),
        percent(trained.test_accuracy),
        trained.test_images,
        show.seconds(),
    );
    Ok(ExitCode::SUCCESS)
}

fn train_classifier(asked: &Classifier) -> anyhow::Result<ExitCode> {
    let file = asked.base.join("model.toml");
    let spec = Spec::read(&file).map_err(|reason| anyhow::anyhow!("{}: {reason}", file.display()))?;
    let Kind::Network { architecture, versions, preprocess, .. } = spec.kind else {
        bail!("{} is a stand-in: there is nothing in it to train", asked.base.display());
    };
    ensure!(!architecture.is_detector(), "{architecture} is a detector, and only classifiers can be trained");
    let versions = ModelFolder::new(versions);
    let newest = || versions.newest()?.with_context(|| format!("{} has no version with weights", asked.base.display()));
    let version = asked.base_version.map_or_else(newest, |version| Ok(version.0))?;
    let weights = Weights::read(&versions.weights(version))?;
    let names = class_names(&asked.data)?;
    asked.publishing.fits(architecture, Some(&preprocess), |known| {
        let known: Vec<&str> = known.all().iter().map(|label| &**label).collect();
        if known == names {
            return Ok(());
        }
        let (known, names) = (known.len(), names.len());
        Err(VisionError::Labels(format!("the {known} of the model are not those of the {names} folders of pictures")))
    })?;
    let job = asked.publishing.begin()?;
    let options = ClassifierOptions {
        epochs: asked.epochs,
        batch: asked.batch,
        learning_rate: asked.learning_rate,
        held_out: asked.holdout,
        patience: asked.patience,
        flip: asked.flip,
        seed: asked.seed,
        memory: asked.memory.saturating_mul(1 << 20),
        keep: Some(job.keep.clone()),
        ..ClassifierOptions::new(&asked.data, job.workplace.path())
    };
    let origin = Origin { architecture, weights: &weights, preprocess: &preprocess };
    let mut show = Show::new()?;
    let stop = interrupts()?;
    let stopped = || stop.load(Ordering::Relaxed);
    let trained = match classifier(&options, &origin, &Stop::when(&stopped), &mut show) {
        Err(VisionError::Stopped) => return Ok(job.interrupted()),
        trained => trained?,
    };
    let name = asked.publishing.model_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let title = format!("{name}: {} of the held-out pictures", percent(trained.best.held_out_accuracy));
    let curve = learning_curve(&title, &trained.curve);
    let description = describe(architecture, &preprocess).map_err(anyhow::Error::msg)?;
    let path = job.publish(&trained.weights, &curve, &trained.labels, &description)?;
    let held_out: usize = trained.scores.iter().map(|score| score.pictures).sum();
    println!(
        "{}: weights of epoch {} of {}, {} of {held_out} held-out pictures, trained on {}, {:.0} s",
        path.display(),
        trained.best.epoch,
        trained.curve.len(),
        percent(trained.best.held_out_accuracy),
        trained.trained_on,
        show.seconds(),
    );
    account(&trained);
    Ok(ExitCode::SUCCESS)
}

/// What a person wants to know of the classes: how each is read, what is taken for what, and what was left out.
fn account(trained: &TrainedClassifier) {
    let TrainedClassifier { labels, scores, confusions, broken, .. } = trained;
    // The worst first; of many classes the worst are enough.
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let part = |class: usize| scores[class].right as f32 / scores[class].pictures.max(1) as f32;
    order.sort_by(|one, other| part(*one).total_cmp(&part(*other)));
    for class in order.iter().take(SHOWN) {
        let (score, share) = (scores[*class], percent(part(*class)));
        println!("  {share:>9}  {} of {}  {}", score.right, score.pictures, labels[*class]);
    }
    if let Some(more) = order.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        println!("             and {more} classes that are read no worse");
    }
    for one in confusions.iter().take(5) {
        println!("  {} of {} taken for {}", one.pictures, labels[one.shown], labels[one.taken_for]);
    }
    if !broken.is_empty() {
        eprintln!("{} files were left out:", broken.len());
    }
    for one in broken.iter().take(SHOWN) {
        eprintln!("  {}: {}", one.path.display(), one.reason);
    }
    if let Some(more) = broken.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        eprintln!("  and {more} more");
    }
}
