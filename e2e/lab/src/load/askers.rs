//! The connections, each asking one thing at a time, until all that was planned is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::{Dialler, Failure, Http, Socket};
use super::plan::{LoadArgs, Pacing};
use super::report::{Report, Sample, write_timeline};
use super::upload::{at_rate, upload};

/// Whoever was refused in a closed loop takes a breath, or it would ask a dead server thousands of times a second.
const BREATH: Duration = Duration::from_millis(5);

/// Asks as planned, and reports.
pub(crate) async fn measure(args: &LoadArgs) -> anyhow::Result<Report> {
    let pacing = args.pacing()?;
    let dialler = Dialler::new(args.to, args.ca.as_deref(), &args.server_name, args.h2)?;
    let asked = Asked::new(args)?;
    let shared = Arc::new(Shared {
        args: args.clone(),
        asked,
        dialler,
        pacing,
        next: AtomicUsize::new(0),
        down: AtomicU64::new(0),
        start: Instant::now(),
    });
    let mut askers = JoinSet::new();
    for number in 0..args.connections {
        askers.spawn(ask(number, shared.clone()));
    }
    let mut samples = Vec::new();
    while let Some(asked) = askers.join_next().await {
        samples.extend(asked.context("an asker failed")?);
    }
    let elapsed = shared.start.elapsed();
    if let Some(path) = &args.timeline {
        write_timeline(path, &samples)?;
    }
    let warmup = Duration::from_secs_f64(args.warmup);
    Ok(Report::new(&samples, warmup, elapsed, args.body, shared.down.load(Relaxed)))
}

struct Shared {
    args: LoadArgs,
    asked: Asked,
    dialler: Dialler,
    pacing: Pacing,
    next: AtomicUsize,
    /// Bytes of answers' bodies after the warm-up.
    down: AtomicU64,
    start: Instant,
}

/// What every request says.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    content: Bytes,
}

impl Asked {
    fn new(args: &LoadArgs) -> anyhow::Result<Self> {
        let host = args.host.as_deref().unwrap_or(&args.server_name);
        let mut headers = HeaderMap::new();
        // HTTP/2 says in the URI who is asked, HTTP/1.1 in a field.
        let uri = if args.h2 { format!("https://{host}{}", args.path) } else { args.path.clone() };
        if !args.h2 {
            headers.insert(header::HOST, host.parse().context("no host")?);
            if args.fresh {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
        let content = if args.get { Bytes::new() } else { args.content().into() };
        if !args.get {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
        }
        for field in &args.header {
            let (name, value) = field.split_once(':').with_context(|| format!("{field:?} is not NAME:VALUE"))?;
            headers.insert(name.parse::<HeaderName>()?, value.trim().parse()?);
        }
        let method = if args.get { Method::GET } else { Method::POST };
        Ok(Self { method, uri: uri.parse().context("no path")?, headers, content })
    }
}

/// When to send the next, or that there is no more; or that it comes so late that it is not sent at all.
enum Turn {
    /// Nobody has to wait: it counts from when it is sent.
    Now,
    /// It counts from then, or from when it is sent if that is in the future.
    At(Duration),
    Unsent(Duration),
    Over,
}

impl Shared {
    fn turn(&self) -> Turn {
        let turn = self.next.fetch_add(1, Relaxed);
        let now = self.start.elapsed();
        match &self.pacing {
            Pacing::Requests(requests) if turn < *requests => Turn::Now,
            Pacing::Until(end) if now < *end => Turn::Now,
            Pacing::Requests(_) | Pacing::Until(_) => Turn::Over,
            Pacing::Schedule(times) => {
                let end = Duration::from_secs_f64(self.args.seconds + self.args.warmup + self.args.grace);
                match times.get(turn) {
                    None => Turn::Over,
                    Some(at) if now > end => Turn::Unsent(*at),
                    Some(at) => Turn::At(*at),
                }
            }
        }
    }
}

/// What an asker keeps from one request to the next.
#[derive(Default)]
struct Open {
    http: Option<Http>,
    socket: Option<Socket>,
}

async fn ask(number: usize, shared: Arc<Shared>) -> Vec<Sample> {
    let (mut open, mut samples) = (Open::default(), Vec::new());
    let limit = Duration::from_secs_f64(shared.args.timeout);
    if !matches!(shared.pacing, Pacing::Schedule(_)) {
        // Not all handshakes in the same instant.
        sleep(Duration::from_micros(200 * number.min(500) as u64)).await;
    }
    loop {
        let at = match shared.turn() {
            Turn::Over => return samples,
            Turn::Now => shared.start.elapsed(),
            Turn::Unsent(at) => {
                let took = shared.start.elapsed().saturating_sub(at);
                samples.push(Sample { at, took, failure: Some("unsent".into()) });
                continue;
            }
            Turn::At(at) if shared.start.elapsed() < at => {
                sleep_until(shared.start + at).await;
                // The timer's own lateness is not the server's.
                shared.start.elapsed()
            }
            Turn::At(at) => at,
        };
        let asked = timeout(limit, once(&shared, &mut open)).await.unwrap_or_else(|_| Err("timeout".into()));
        let took = shared.start.elapsed().saturating_sub(at);
        if let Ok(bytes) = asked
            && at.as_secs_f64() >= shared.args.warmup
        {
            shared.down.fetch_add(bytes, Relaxed);
        }
        let failure = asked.err();
        if failure.is_some() {
            open = Open::default();
            if !matches!(shared.pacing, Pacing::Schedule(_)) {
                sleep(BREATH).await;
            }
        }
        samples.push(Sample { at, took, failure });
    }
}

/// One request, from an open connection or a new one, to the last byte of its answer: how many those were.
async fn once(shared: &Shared, open: &mut Open) -> Result<u64, Failure> {
    let (args, asked) = (&shared.args, &shared.asked);
    if args.websocket {
        let socket = match &mut open.socket {
            Some(socket) => socket,
            empty => {
                let host = args.host.as_deref().unwrap_or(&args.server_name);
                empty.insert(shared.dialler.socket(host, &args.path).await?)
            }
        };
        return socket.echo(asked.content.clone()).await;
    }
    if args.fresh {
        open.http = None;
    }
    if let Some(http) = &mut open.http
        && !http.is_open().await
    {
        open.http = None;
    }
    let http = match &mut open.http {
        Some(http) => http,
        empty => empty.insert(shared.dialler.http().await?),
    };
    let mut request = Request::new(upload(asked.content.clone(), args.slow_write));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = asked.uri.clone();
    *request.headers_mut() = asked.headers.clone();
    let answer = http.ask(request).await?;
    let status = answer.status();
    let (mut body, mut read, start) = (answer.into_body(), 0, Instant::now());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "answer cut off")?;
        read += frame.data_ref().map_or(0, |data| data.remaining() as u64);
        if let Some(rate) = args.slow_read {
            sleep_until(start + at_rate(read, rate)).await;
        }
    }
    if status == http::StatusCode::OK { Ok(read) } else { Err(format!("status {}", status.as_u16())) }
}
