//! `adit-agent pull`: a model from a hub into the folder of models, with a bar on a terminal and lines anywhere else.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use adit_agent::hub::{Access, Catalogue, Hub, Progress, Published, Pulled, Wanted, pull as fetch};
use adit_common::id::{ModelName, Version};
use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::table::table;

/// What may be said besides the name.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Pull {
    /// A name of the catalogue, or OWNER/REPOSITORY
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Show the catalogue
    #[arg(long, conflicts_with = "name")]
    list: bool,
    /// The version to write
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    version: Version,
    /// The branch, tag or commit of the repository
    #[arg(long, default_value = "main")]
    revision: String,
    /// Replace what is there: weights, model.toml and labels.txt
    #[arg(long)]
    force: bool,
    /// What to call the model; as in the catalogue, or as the repository, unless given
    #[arg(long = "as", value_name = "MODEL")]
    called: Option<ModelName>,
    /// The network's layers; needed for what is not in the catalogue
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// The file of weights in the repository [default: model.safetensors]
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// A file of names of the classes, one a line; the repository's unless given
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// A file with the section [preprocess], and [detect] for a detector; the repository's config.json unless given
    #[arg(long, value_name = "FILE")]
    preprocess: Option<PathBuf>,
}

/// Pulls into `models`. `environment` looks a variable up.
pub(crate) fn pull(
    asked: Pull,
    models: Option<&Path>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<ExitCode> {
    let catalogue = Catalogue::built_in()?;
    let Some(name) = &asked.name else {
        list(&catalogue);
        return Ok(ExitCode::SUCCESS);
    };
    let models =
        models.context("where to? Name the folder of models by --models, or by [serving] models in --config")?;
    let wanted = asked.wanted(name, &catalogue)?;
    let hub = Hub::connect(Access::from_environment(environment)?)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    eprintln!("{} from {}, {} at {}", wanted.name, hub.endpoint(), wanted.source.repository, wanted.source.revision);
    let pulled = runtime.block_on(fetch(&hub, &wanted, models, &mut Show::new()?))?;
    tell(&wanted, &pulled, models);
    Ok(ExitCode::SUCCESS)
}

impl Pull {
    fn wanted(&self, name: &str, catalogue: &Catalogue) -> anyhow::Result<Wanted> {
        let mut wanted = match (name.contains('/'), &self.architecture) {
            (false, None) => Wanted::known(catalogue.find(name)?),
            (true, Some(architecture)) => Wanted::from_repository(name, architecture.parse()?)?,
            (true, None) => bail!("{name} is not in the catalogue: say with --architecture what it is"),
            (false, Some(_)) => bail!("--architecture is for OWNER/REPOSITORY: the catalogue knows {name}'s"),
        };
        wanted.version = self.version;
        wanted.force = self.force;
        wanted.source.revision.clone_from(&self.revision);
        wanted.name = self.called.clone().unwrap_or(wanted.name);
        wanted.source.file = self.file.clone().unwrap_or(wanted.source.file);
        let read =
            |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        if let Some(path) = &self.labels {
            wanted.labels = Some(read(path)?);
        }
        if let Some(path) = &self.preprocess {
            wanted.take_sections(&path.display().to_string(), &read(path)?)?;
        }
        Ok(wanted)
    }
}

fn list(catalogue: &Catalogue) {
    let mut rows = vec![["name", "architecture", "repository", "licence"].map(str::to_owned)];
    rows.extend(catalogue.all().iter().map(|published| {
        let Published { name, architecture, repository, licence, .. } = published;
        [name.to_string(), architecture.to_string(), repository.clone(), licence.clone()]
    }));
    print!("{}", table(&rows, &[]));
}

fn tell(wanted: &Wanted, pulled: &Pulled, models: &Path) {
    let (kind, hash) = &pulled.hash;
    println!("{}", pulled.path.display());
    println!("  {} bytes, {kind} {hash}, as the hub states it", pulled.size);
    println!(
        "  commit {}, licence of the weights: {}",
        pulled.commit,
        pulled.licence.as_deref().unwrap_or("not stated")
    );
    if pulled.kept {
        println!("  model.toml and labels.txt are the ones that were there");
    } else if pulled.numbered {
        println!(
            "  its {} classes have no names there, so they are numbered: put names into labels.txt, one a line",
            pulled.classes
        );
    }
    println!("  adit-agent infer --models {} --model {} photo.jpg", models.display(), wanted.name);
}

/// A bar on a terminal; anywhere else a line at each tenth.
struct Show {
    bar: Option<ProgressBar>,
    style: ProgressStyle,
    file: String,
    size: u64,
    tenth: u64,
}

impl Show {
    fn new() -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
        let style = style.progress_chars("=> ");
        Ok(Self { bar: None, style, file: String::new(), size: 0, tenth: 0 })
    }
}

impl Progress for Show {
    fn begin(&mut self, file: &str, have: u64, size: u64) {
        (self.file, self.size, self.tenth) = (file.to_owned(), size, 10 * have / size.max(1));
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(size).with_style(self.style.clone()).with_message(file.to_owned());
            // What was there before was not fetched at any speed.
            self.bar = Some(bar.with_position(have));
            if let Some(bar) = &self.bar {
                bar.reset_eta();
            }
        } else if have > 0 {
            eprintln!("{file}: {have} of {size} bytes are there already");
        } else {
            eprintln!("{file}: {size} bytes");
        }
    }

    fn at(&mut self, have: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(have),
            None => {
                let tenth = 10 * have / self.size.max(1);
                if tenth > self.tenth {
                    eprintln!("{}: {} %", self.file, 10 * tenth);
                }
                self.tenth = tenth;
            }
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}
