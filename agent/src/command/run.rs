//! `adit-agent run`: the agent under a service manager, or by hand.

use std::convert::Infallible;
use std::ffi::OsString;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use adit_agent::agent::Agent;
use adit_agent::config::Config;
use adit_agent::error::AgentError;
use adit_common::daemon::{Notifier, init, runtime, signal};
use anyhow::Context as _;
use tokio::time::Interval;

use super::status::misconfigured;

/// The others are for decoding and for networks.
const CORES_A_THREAD: usize = 4;

/// Runs until SIGTERM or SIGINT, then drains. `environment` looks a variable up.
pub(crate) fn run(config: Config, environment: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<ExitCode> {
    if let Err(error) = init(config.log.format, &config.log.filter) {
        eprintln!("adit-agent: {error}");
        return Ok(misconfigured());
    }
    let notifier = Notifier::from_environment(environment)?;
    let runtime = runtime(config.io_threads, CORES_A_THREAD).context("cannot start the runtime")?;
    runtime.block_on(serve(config, &notifier))
}

async fn serve(config: Config, notifier: &Notifier) -> anyhow::Result<ExitCode> {
    let agent = match Agent::start(config).await {
        Ok(agent) => agent,
        Err(error @ AgentError::Config(_)) => {
            eprintln!("adit-agent: {error}");
            return Ok(misconfigured());
        }
        Err(error) => return Err(error.into()),
    };
    // Asked once for all: between two listeners a signal would be lost.
    let mut signal = pin!(signal());
    // The dialers run already: a relay that is away is no failure of the agent.
    let name = tokio::select! {
        name = &mut signal => name?,
        () = agent.settled() => {
            notifier.ready();
            tokio::select! {
                name = &mut signal => name?,
                never = watch(&agent, notifier) => match never {},
            }
        }
    };
    notifier.stopping();
    tracing::info!(signal = name, "stopping");
    let mut drain = pin!(agent.drain());
    let mut tick = interval(notifier);
    loop {
        tokio::select! {
            in_time = drain.as_mut() => return Ok(if in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            // That the runtime turns is all there is to show by now; the drain time-out bounds the rest.
            _ = tick.tick() => notifier.alive(),
        }
    }
}

/// Tells the service manager how the agent is, for ever.
async fn watch(agent: &Agent, notifier: &Notifier) -> Infallible {
    let mut tick = interval(notifier);
    loop {
        tick.tick().await;
        let ready = agent.serving().catalogue().entries().filter(|(_, _, entry)| entry.card().is_some()).count();
        let sessions = agent.metrics().sessions();
        notifier.status(&format!("{}: {sessions} tunnels, {ready} models ready", agent.id()));
        // Said only while it is so: a worker that hangs is mended by a restart.
        if agent.is_alive() {
            notifier.alive();
        } else {
            tracing::error!("a model shows no progress: no longer telling the service manager that all is well");
        }
    }
}

/// As often as the watchdog wants to hear; without one, often enough for the status line.
fn interval(notifier: &Notifier) -> Interval {
    tokio::time::interval(notifier.watchdog_interval().unwrap_or(Duration::from_secs(10)))
}
