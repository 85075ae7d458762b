//! Asks several hosts again and again until each has answered once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, header};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Dialler, Failure};
use super::upload::upload;

/// How long one attempt may take, and the pause behind it: so a host that is back is found within a fifth of a second.
const ATTEMPT: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(50);

/// Arguments of `adit-lab probe`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProbeArgs {
    /// The server
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Trust who this file of certificates vouches for
    #[arg(long, value_name = "PEM")]
    ca: PathBuf,
    /// The name in the server's certificate
    #[arg(long, value_name = "NAME", default_value = "relay.test")]
    server_name: String,
    /// A host to ask for; as many as there are
    #[arg(long, required = true)]
    host: Vec<String>,
    /// The path that is asked
    #[arg(long, default_value = "/infer")]
    path: String,
    /// When to give up
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// When hosts answered first, in seconds from the start on, in order; those that never did are missing.
pub(crate) async fn probe(args: &ProbeArgs) -> anyhow::Result<Vec<f64>> {
    let dialler = Dialler::new(args.to, Some(&args.ca), &args.server_name, false)?;
    let (start, limit) = (Instant::now(), Duration::from_secs(args.seconds));
    let mut probes = JoinSet::new();
    for host in &args.host {
        let host: HeaderValue = host.parse().context("no host")?;
        let (dialler, path) = (dialler.clone(), args.path.clone());
        probes.spawn(async move {
            while start.elapsed() < limit {
                if let Ok(Ok(StatusCode::OK)) = timeout(ATTEMPT, once(&dialler, &host, &path)).await {
                    return Some(start.elapsed().as_secs_f64());
                }
                sleep(PAUSE).await;
            }
            None
        });
    }
    let mut answered: Vec<f64> = probes.join_all().await.into_iter().flatten().collect();
    answered.sort_by(f64::total_cmp);
    Ok(answered)
}

async fn once(dialler: &Dialler, host: &HeaderValue, path: &str) -> Result<StatusCode, Failure> {
    let mut request = Request::new(upload(Bytes::from_static(b"hello"), None));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|_| "no path")?;
    request.headers_mut().insert(header::HOST, host.clone());
    Ok(dialler.http().await?.ask(request).await?.status())
}
