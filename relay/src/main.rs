//! `adit-relay`: runs the relay, checks its configuration, keeps its API keys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use adit_common::daemon::{self, ConfigError, Notifier};
use adit_common::manifest::Scope;
use adit_relay::{Config, KeyFile, Relay, RelayError};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Heads and bodies are allocated by one thread and freed by another, which glibc's allocator pays for: an exchange of 1 KiB
/// over the tunnel costs a sixth less processor time with this one (`docs/benchmarks.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The kernel's part of the work is about as large as the relay's.
const CORES_A_THREAD: usize = 2;

/// The public relay: terminates HTTPS and sends requests down the agents' tunnels.
#[derive(Debug, Parser)]
#[command(name = "adit-relay", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT, then drain.
    Run(Settings),
    /// Say whether the configuration, the certificates and the keys can be used.
    Check(Settings),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Args)]
struct Settings {
    /// The configuration file; without one every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of certificates, in place of the configuration's `tls`.
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// The folder of keys file and reset key, in place of the configuration's `state`.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key and print it, once.
    New {
        /// Whose it is: 1 to 40 of a-z, 0-9 and '-'.
        name: String,
        /// What it may be used for; may be given more than once.
        #[arg(long, value_enum, default_values = ["infer"])]
        scope: Vec<ScopeName>,
        #[command(flatten)]
        file: KeysPath,
    },
    /// List names, scopes and dates.
    List {
        #[command(flatten)]
        file: KeysPath,
    },
    /// Take a key out of use; a running relay follows within two seconds.
    Revoke {
        /// Whose it is.
        name: String,
        #[command(flatten)]
        file: KeysPath,
    },
}

#[derive(Debug, Args)]
struct KeysPath {
    /// The keys file.
    #[arg(long, value_name = "FILE", default_value = "/var/lib/adit-relay/keys.toml")]
    keys: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeName {
    /// Ask models and read about them.
    Infer,
    /// Change an agent: load, unload, settings.
    Control,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Infer => Self::Infer,
            ScopeName::Control => Self::Control,
        }
    }
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Run(settings) => {
            with_small_pages();
            run(&settings)
        }
        Command::Check(settings) => check(&settings),
        Command::Key(command) => key(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-relay: {error:#}");
            // sysexits' EX_CONFIG: the unit does not start again what would fail again.
            let configured_wrongly = error.downcast_ref::<ConfigError>().is_some()
                || matches!(error.downcast_ref(), Some(RelayError::Config(_)));
            if configured_wrongly { ExitCode::from(78) } else { ExitCode::FAILURE }
        }
    }
}

impl Settings {
    fn load(&self) -> Result<Config> {
        let mut config: Config = daemon::load(self.config.as_deref())?;
        // What a file says is relative to the file, what a command line says to the caller.
        if let Some(folder) = self.config.as_deref().and_then(Path::parent) {
            config.relative_to(folder);
        }
        if let Some(folder) = &self.tls_dir {
            config.tls.clone_from(folder);
        }
        if let Some(folder) = &self.state_dir {
            config.state.clone_from(folder);
        }
        Ok(config)
    }
}

/// Begins anew with an allocator that asks for no huge pages, of which one byte in use makes 2 MiB resident: they double the memory of a
/// relay with one tunnel (`docs/benchmarks.md`). The allocator reads its settings from the environment,
/// before `main`; whoever set this one meant it.
#[cfg(target_os = "linux")]
#[allow(clippy::disallowed_methods, reason = "main.rs hands the environment to who needs it")]
fn with_small_pages() {
    use std::os::unix::process::CommandExt as _;
    const SETTING: &str = "MIMALLOC_ALLOW_THP";
    if std::env::var_os(SETTING).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_else(|| program.clone().into_os_string());
        // It returns only if it fails, and then all goes on with more memory.
        let _ = std::process::Command::new(program).arg0(name).args(arguments).env(SETTING, "0").exec();
    }
}

#[cfg(not(target_os = "linux"))]
fn with_small_pages() {}

fn run(settings: &Settings) -> Result<()> {
    let config = settings.load()?;
    daemon::init(config.log.format, &config.log.filter)?;
    #[allow(clippy::disallowed_methods, reason = "main.rs hands the environment to who needs it")]
    let notifier = Notifier::from_environment(|name| std::env::var_os(name))?;
    let runtime = daemon::runtime(config.io_threads, CORES_A_THREAD).context("cannot start the runtime")?;
    runtime.block_on(serve(&config, &notifier))
}

async fn serve(config: &Config, notifier: &Notifier) -> Result<()> {
    let relay = Relay::start(config)?;
    let addresses = relay.addresses();
    notifier.status(&format!("https on {}, tunnels on {}", addresses.https, addresses.tunnel));
    notifier.ready();
    // Without a watchdog it is still worth a line in the log that something hangs.
    let mut look = tokio::time::interval(notifier.watchdog_interval().unwrap_or(Duration::from_secs(10)));
    let mut stop = std::pin::pin!(daemon::signal());
    let signal = loop {
        tokio::select! {
            signal = stop.as_mut() => break signal.context("cannot wait for signals")?,
            _ = look.tick() => match relay.stuck() {
                None => notifier.alive(),
                Some(name) => tracing::error!(name, "a loop is stuck, so the watchdog is told nothing"),
            },
        }
    };
    tracing::info!(signal, "draining");
    notifier.stopping();
    notifier.status("draining");
    let mut drain = std::pin::pin!(relay.drain());
    loop {
        tokio::select! {
            _ = drain.as_mut() => return Ok(()),
            // That the runtime turns is all there is to show by now; systemd's own time-out for stopping bounds the rest.
            _ = look.tick() => notifier.alive(),
        }
    }
}

fn check(settings: &Settings) -> Result<()> {
    let config = settings.load()?;
    if let Err(reason) = config.check() {
        bail!(reason);
    }
    let (certificate, key) = config.https_files();
    adit_certs::https_server(&certificate, &key).context("the certificate of the https front")?;
    adit_certs::relay_tunnel(&adit_certs::Bundle::relay(&config.tls)).context("the certificates of the tunnel")?;
    let keys = KeyFile::new(config.keys_file()).list()?;
    println!("ok: https on {}, tunnels on {}, {} API keys", config.front.listen, config.tunnel.listen, keys.len());
    Ok(())
}

fn key(command: &KeyCommand) -> Result<()> {
    match command {
        KeyCommand::New { name, scope, file } => {
            let scopes: Vec<Scope> = scope.iter().copied().map(Scope::from).collect();
            let token = KeyFile::new(&file.keys).create(name, &scopes)?;
            // The key alone on standard output, so that a script can take it.
            println!("{token}");
            eprintln!("This key is shown once; {} keeps its hash.", file.keys.display());
        }
        KeyCommand::List { file } => {
            for key in KeyFile::new(&file.keys).list()? {
                let scopes: Vec<_> = key.scopes.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
                println!("{:<40}  {:<14}  {}", key.name, scopes.join(","), key.created);
            }
        }
        KeyCommand::Revoke { name, file } => {
            KeyFile::new(&file.keys).revoke(name)?;
            eprintln!("{name} is revoked.");
        }
    }
    Ok(())
}
