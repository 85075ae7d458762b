//! adit: the command-line client.
//!
//! All that it can do is in the library; here the environment is read, the runtime started, and what came of it becomes
//! an exit code: 0 if all went well, 1 if anything failed, 2 if the command line is wrong.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use adit_client::{Cli, ClientError, Command, TestArgs, classify_images, detect_images, test_model};
use adit_common::daemon::{Shutdown, signal};
use anyhow::Context as _;
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[allow(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]
    let key = std::env::var("ADIT_KEY").ok();
    match run(cli, key.as_deref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Whoever reads along, such as `head`, had enough: that is no failure to talk about.
            if !matches!(error.downcast_ref(), Some(ClientError::Output(io)) if io.kind() == ErrorKind::BrokenPipe) {
                eprintln!("adit: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, key: Option<&str>) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let scope = Shutdown::new();
        let (mut out, mut errors) = (std::io::stdout(), std::io::stderr());
        let result = match cli.command {
            Command::Classify(args) => {
                Box::pin(classify_images(&args, key, &scope, &mut out, &mut errors)).await.map_err(Into::into)
            }
            Command::Detect(args) => {
                Box::pin(detect_images(&args, key, &scope, &mut out, &mut errors)).await.map_err(Into::into)
            }
            Command::Test(args) => measured(&args, key, &scope).await,
        };
        // Connections say goodbye; one that does not is not waited for.
        scope.finish(Duration::from_millis(500)).await;
        result
    })
}

/// The first Ctrl-C ends the measurement and leaves its report, the second ends the program.
async fn measured(args: &TestArgs, key: Option<&str>, scope: &Shutdown) -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    let mut measurement = Box::pin(test_model(args, key, scope, &mut out));
    tokio::select! {
        result = &mut measurement => return Ok(result?),
        came = signal() => came.context("cannot wait for signals")?,
    };
    eprintln!("adit: stopping; what was measured follows");
    scope.begin();
    tokio::select! {
        result = &mut measurement => Ok(result?),
        came = signal() => anyhow::bail!("ended by {}", came?),
    }
}
