//! The listening end. What a flow wants is one line: `give CONGESTION` has it sent bytes until it hangs up, `take` has it told
//! how many of its own arrived.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How often a sender hears how much arrived.
const TOLD: Duration = Duration::from_millis(50);

/// What is written or read at a time.
pub(super) const PIECE: usize = 1 << 16;

/// Arguments of `adit-lab sink`.
#[derive(Debug, Args)]
pub(crate) struct SinkArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

/// Serves flows until the process ends.
pub(crate) async fn serve(args: &SinkArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let mut flows = JoinSet::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("cannot take a flow")?,
            Some(_) = flows.join_next() => continue,
        };
        // Flows end by hanging up.
        flows.spawn(async move { drop(flow(stream).await) });
    }
}

async fn flow(stream: TcpStream) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(64).read_line(&mut line).await?;
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["give", congestion] => {
            use_congestion(stream.get_ref(), congestion)?;
            let piece = vec![0; PIECE];
            loop {
                stream.get_mut().write_all(&piece).await?;
            }
        }
        ["take"] => count(stream).await,
        _ => bail!("a flow that wants {line:?}"),
    }
}

async fn count(stream: BufReader<TcpStream>) -> anyhow::Result<()> {
    let early = stream.buffer().len() as u64;
    let (mut reader, mut writer) = stream.into_inner().into_split();
    let (mut piece, mut taken, mut tell) = (vec![0; PIECE], early, interval(TOLD));
    tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            read = reader.read(&mut piece) => match read? {
                0 => return Ok(()),
                read => taken += read as u64,
            },
            _ = tell.tick() => writer.write_u64(taken).await?,
        }
    }
}

/// Has a socket send by this congestion control.
pub(super) fn use_congestion(stream: &TcpStream, name: &str) -> anyhow::Result<()> {
    SockRef::from(stream).set_tcp_congestion(name.as_bytes()).with_context(|| format!("this kernel knows no {name}"))
}
