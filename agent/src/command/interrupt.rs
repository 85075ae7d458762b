//! Ctrl-C and SIGTERM for a command that computes without a runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use adit_common::daemon::signal;
use anyhow::Context as _;

/// Becomes true when somebody asks the program to end. From then on it is the command's to do so.
pub(crate) fn interrupts() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let tell = asked.clone();
    let wait = move || {
        if let Ok(name) = runtime.block_on(signal()) {
            eprintln!("{name}: stopping");
            tell.store(true, Ordering::Relaxed);
        }
    };
    // Its end is the program's: there is nothing to wait for.
    thread::Builder::new().name("signals".to_owned()).spawn(wait).context("cannot start a thread")?;
    Ok(asked)
}
