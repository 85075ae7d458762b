//! A steady load on a relay, and what became of each request.
//!
//! The load is open: a request is sent when it is due, whatever the others do, so an outage is seen at its full length. The
//! clients behave as good ones do: connections are kept and used again, one that the relay has ended is replaced, and a request
//! that has not left the client goes over the next one. A request of which anything has left is never sent again: what becomes
//! of it is the relay's word.

#![allow(clippy::unwrap_used, reason = "what cannot be set up here is a failed test")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_common::daemon::Shutdown;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{MissedTickBehavior, interval};

use crate::https::{Body, Version, full, tls};
use crate::process::{MODEL, Site, until};

/// Connections that may turn out to be ended before a request is given up as not sent: all that a load keeps, and a fresh one.
const CONNECTIONS: usize = 8;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// An answer, read to its end.
    Answered {
        /// Its status.
        status: u16,
        /// Whether it says when to come again.
        retry_after: bool,
    },
    /// Nothing of it has left the client: nobody was there to connect to. Not a request that a relay has accepted.
    Unsent(String),
    /// It was sent, and no answer came. If it was accepted, it is lost.
    Broken(String),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The version of HTTP it was sent over.
    pub version: Version,
    /// When it was due.
    pub sent: Instant,
    /// When its fate was known.
    pub done: Instant,
    /// What became of it.
    pub fate: Fate,
}

impl Sample {
    /// Whether it was answered with what was asked for.
    pub fn is_good(&self) -> bool {
        self.status() == Some(200)
    }

    /// The status of its answer.
    pub const fn status(&self) -> Option<u16> {
        match self.fate {
            Fate::Answered { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Whether it was refused for the moment, and told when to come again.
    pub fn is_put_off(&self) -> bool {
        self.fate == Fate::Answered { status: 503, retry_after: true }
    }
}

/// A client of a relay: keeps its connections, one version of HTTP each.
#[derive(Debug, Clone)]
pub struct Caller {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    relay: SocketAddr,
    authority: PathBuf,
    key: String,
    scope: Shutdown,
    idle: Mutex<Vec<http1::SendRequest<Body>>>,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Body>>>,
}

impl Caller {
    /// A client with a site's key; it connects when it has something to send.
    pub fn new(site: &Site) -> Self {
        let (relay, authority, key) = (site.ports.https, site.authority(), site.key.clone());
        let (scope, idle, shared) = (Shutdown::new(), Mutex::default(), tokio::sync::Mutex::default());
        Self { inner: Arc::new(Inner { relay, authority, key, scope, idle, shared }) }
    }

    /// Asks the site's model once.
    pub async fn ask(&self, version: Version) -> Sample {
        let sent = Instant::now();
        let fate = self.inner.walk(version).await;
        Sample { version, sent, done: Instant::now(), fate }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.scope.kill();
    }
}

/// An attempt that came to nothing.
enum Miss {
    /// The request is still here.
    Unsent(String),
    Broken(String),
}

impl From<TrySendError<Request<Body>>> for Miss {
    fn from(mut error: TrySendError<Request<Body>>) -> Self {
        match error.take_message() {
            Some(_) => Self::Unsent(chain(&error.into_error())),
            None => Self::Broken(chain(&error.into_error())),
        }
    }
}

impl Inner {
    async fn walk(&self, version: Version) -> Fate {
        let mut last = String::new();
        for _ in 0..CONNECTIONS {
            let result = match version {
                Version::Http1 => self.http1().await,
                Version::Http2 => self.http2().await,
            };
            match result {
                Ok(fate) => return fate,
                Err(Miss::Broken(reason)) => return Fate::Broken(reason),
                Err(Miss::Unsent(reason)) => last = reason,
            }
        }
        Fate::Unsent(last)
    }

    async fn http1(&self) -> Result<Fate, Miss> {
        let kept = self.idle().pop();
        let mut sender = match kept {
            Some(sender) => sender,
            None => {
                let io = tls(self.relay, &self.authority, "http/1.1").await.map_err(unconnected)?;
                let (sender, driver) = http1::handshake(TokioIo::new(io)).await.map_err(unready)?;
                self.scope.spawn("client", driver);
                sender
            }
        };
        sender.ready().await.map_err(unready)?;
        let fate = read(sender.try_send_request(self.request(Version::Http1)).await?).await?;
        // A connection that ends with this answer is not kept.
        if sender.ready().await.is_ok() {
            self.idle().push(sender);
        }
        Ok(fate)
    }

    async fn http2(&self) -> Result<Fate, Miss> {
        let mut sender = {
            let mut shared = self.shared.lock().await;
            match shared.as_ref().filter(|sender| !sender.is_closed()) {
                Some(sender) => sender.clone(),
                None => {
                    let io = tls(self.relay, &self.authority, "h2").await.map_err(unconnected)?;
                    let (sender, driver) =
                        http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.map_err(unready)?;
                    self.scope.spawn("client", driver);
                    shared.insert(sender).clone()
                }
            }
        };
        sender.ready().await.map_err(unready)?;
        read(sender.try_send_request(self.request(Version::Http2)).await?).await
    }

    fn request(&self, version: Version) -> Request<Body> {
        let path = format!("/v2/models/{MODEL}/infer");
        let uri = match version {
            Version::Http1 => path,
            Version::Http2 => format!("https://{}{path}", self.relay),
        };
        let mut request = Request::post(uri).header(header::CONTENT_TYPE, "image/bmp").header("x-api-key", &self.key);
        if version == Version::Http1 {
            request = request.header(header::HOST, self.relay.to_string());
        }
        request.body(full(Bytes::from_static(b"BM: a model that only waits looks at nothing"))).unwrap()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<http1::SendRequest<Body>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(response: Response<Incoming>) -> Result<Fate, Miss> {
    let (head, body) = response.into_parts();
    body.collect().await.map_err(|error| Miss::Broken(chain(&error)))?;
    let retry_after = head.headers.contains_key(header::RETRY_AFTER);
    Ok(Fate::Answered { status: head.status.as_u16(), retry_after })
}

fn unconnected(error: anyhow::Error) -> Miss {
    Miss::Unsent(format!("{error:#}"))
}

fn unready(error: hyper::Error) -> Miss {
    Miss::Unsent(chain(&error))
}

fn chain(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Requests at a steady pace, over HTTP/1.1 and HTTP/2 in turn.
#[derive(Debug)]
pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    begun: Arc<AtomicUsize>,
    scope: Shutdown,
}

impl Load {
    /// Starts to ask a site's model, once every `pace`.
    pub fn start(site: &Site, pace: Duration) -> Self {
        let (samples, begun, scope) = (Arc::default(), Arc::<AtomicUsize>::default(), Shutdown::new());
        let load = Self { samples, begun, scope };
        let (caller, samples) = (Caller::new(site), load.samples.clone());
        let (begun, scope) = (load.begun.clone(), load.scope.clone());
        load.scope.spawn("load", async move {
            let mut due = interval(pace);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !scope.is_draining() {
                due.tick().await;
                let number = begun.fetch_add(1, Ordering::Relaxed);
                let version = if number % 2 == 0 { Version::Http1 } else { Version::Http2 };
                let (caller, samples) = (caller.clone(), samples.clone());
                scope.spawn("request", async move {
                    let sample = caller.ask(version).await;
                    samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                });
            }
        });
        load
    }

    /// Waits until so many of the samples with a known fate are such.
    pub async fn until(&self, count: usize, such: impl Fn(&Sample) -> bool) {
        until("the load's requests", async || {
            (self.samples().iter().filter(|one| such(one)).count() >= count).then_some(())
        })
        .await;
    }

    /// What is known by now, in the order of the ends.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends no more, and waits for the fate of every request that was sent. Fails if one has none within `limit`: it hangs.
    pub async fn stop(self, limit: Duration) -> Vec<Sample> {
        assert!(self.scope.finish(limit).await, "a request hangs: no answer within {limit:?}");
        let mut samples = self.samples();
        assert_eq!(samples.len(), self.begun.load(Ordering::Relaxed), "every request has a fate");
        samples.sort_by_key(|sample| sample.sent);
        samples
    }
}
