//! The end that dials, and measures.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::meter::{Flows, Meter, flows};
use super::serve::{PIECE, use_congestion};

/// Arguments of `adit-lab flow`.
#[derive(Debug, Clone, Args)]
pub(crate) struct FlowArgs {
    /// Where an `adit-lab sink` listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// How many flows
    #[arg(long, default_value_t = 1)]
    flows: usize,
    /// The congestion control of whoever sends
    #[arg(long, default_value = "cubic")]
    congestion: String,
    /// Send, instead of having the other end send
    #[arg(long)]
    up: bool,
    /// How long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds at the start that do not count in the means
    #[arg(long, default_value_t = 0)]
    skip: u64,
}

/// Lets the flows flow, and says how fast they were.
pub(crate) async fn send(args: &FlowArgs) -> anyhow::Result<Flows> {
    ensure!(args.skip < args.seconds, "nothing is left of the time to measure");
    let mut running = JoinSet::new();
    let start = Instant::now();
    for _ in 0..args.flows {
        running.spawn(one(args.clone(), start));
    }
    let meters: Vec<Meter> = running.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(flows(&meters, args.skip, args.seconds))
}

async fn one(args: FlowArgs, start: Instant) -> anyhow::Result<Meter> {
    let end = start + Duration::from_secs(args.seconds);
    let mut stream = TcpStream::connect(args.to).await.with_context(|| format!("no sink at {}", args.to))?;
    let mut meter = Meter::default();
    if !args.up {
        stream.write_all(format!("give {}\n", args.congestion).as_bytes()).await?;
        let (mut piece, mut arrived) = (vec![0; PIECE], 0);
        while let Ok(read) = timeout_at(end, stream.read(&mut piece)).await {
            let read = read.context("a flow was cut off")?;
            ensure!(read > 0, "the sink hung up");
            arrived += read as u64;
            meter.note(start.elapsed(), arrived);
        }
        return Ok(meter);
    }
    use_congestion(&stream, &args.congestion)?;
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(b"take\n").await?;
    let push = async {
        let piece = vec![0; PIECE];
        while let Ok(wrote) = timeout_at(end, writer.write_all(&piece)).await {
            wrote.context("a flow was cut off")?;
        }
        Ok(())
    };
    let hear = async {
        while let Ok(arrived) = timeout_at(end, reader.read_u64()).await {
            meter.note(start.elapsed(), arrived.context("the sink hung up")?);
        }
        Ok(())
    };
    let (pushed, heard): (anyhow::Result<()>, anyhow::Result<()>) = tokio::join!(push, hear);
    pushed.and(heard)?;
    Ok(meter)
}
