//! The whole of a link: two devices, two pumps, one control socket.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::Context as _;
use clap::Args;
use rustix::process::Signal;

use super::control::{answer, obey};
use super::device::End;
use super::pump::{Controls, pump};

/// Arguments of `adit-lab link`.
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// The first end
    #[arg(long, value_name = "NAMESPACE,DEVICE,ADDRESS/PREFIX")]
    a: End,
    /// The second end
    #[arg(long, value_name = "NAMESPACE,DEVICE,ADDRESS/PREFIX")]
    b: End,
    /// The Unix socket on which the link is controlled
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    /// What chance begins with; the same seed loses the same packets
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The longest packet
    #[arg(long, default_value_t = 1500)]
    mtu: u16,
    /// What to begin with, as on the control socket
    #[arg(long, value_name = "LINE", default_value = "both up")]
    set: String,
    /// End when who started it ends
    #[arg(long)]
    attached: bool,
}

/// Emulates a link until the process ends. Says `ready` on standard output once packets go through.
pub(crate) fn emulate(args: &LinkArgs) -> anyhow::Result<()> {
    if args.attached {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot follow its parent")?;
    }
    let a = Arc::new(args.a.open(args.mtu)?);
    let b = Arc::new(args.b.open(args.mtu)?);
    let (ab, ba) = (Arc::new(Controls::default()), Arc::new(Controls::default()));
    obey(&args.set, &ab, &ba)?;
    let _ = std::fs::remove_file(&args.control);
    let listener = UnixListener::bind(&args.control)
        .with_context(|| format!("cannot make the control socket {}", args.control.display()))?;
    let (ended, end) = sync_channel(3);
    let threads = [
        ("ab", a.clone(), b.clone(), ab.clone(), args.seed),
        // Another pattern than the way there, and still the same for the same seed.
        ("ba", b, a, ba.clone(), args.seed ^ 0x9E37_79B9_7F4A_7C15),
    ];
    for (name, from, to, controls, seed) in threads {
        let ended = ended.clone();
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || ended.send(pump(&from, &to, &controls, seed)))
            .context("cannot start a thread")?;
    }
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || ended.send(answer(&listener, &ab, &ba)))
        .context("cannot start a thread")?;
    println!("ready");
    end.recv().context("all threads have gone")?
}
