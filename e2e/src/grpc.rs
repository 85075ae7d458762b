//! A channel for generated clients of gRPC: one connection, over TLS to a relay or plain to an agent.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use adit_common::daemon::Shutdown;
use anyhow::Result;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::body::Body;
use tower_service::Service;

use crate::https::{InScope, tls};

/// One connection; clones share it.
#[derive(Debug, Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    key: Option<HeaderValue>,
    origin: Uri,
}

impl Channel {
    /// To a relay, with a key.
    pub async fn secure(relay: SocketAddr, ca: &Path, key: Option<&str>, scope: Shutdown) -> Result<Self> {
        let io = TokioIo::new(tls(relay, ca, "h2").await?);
        let key = key.map(|key| HeaderValue::from_str(&format!("Bearer {key}"))).transpose()?;
        Self::open(io, key, format!("https://{relay}").parse()?, scope).await
    }

    /// To an agent's local listener.
    pub async fn plain(agent: SocketAddr, scope: Shutdown) -> Result<Self> {
        let stream = TcpStream::connect(agent).await?;
        stream.set_nodelay(true)?;
        Self::open(TokioIo::new(stream), None, format!("http://{agent}").parse()?, scope).await
    }

    async fn open<I>(io: I, key: Option<HeaderValue>, origin: Uri, scope: Shutdown) -> Result<Self>
    where
        I: Read + Write + Send + Unpin + 'static,
    {
        let (sender, driver) = http2::Builder::new(InScope(scope.clone())).handshake(io).await?;
        scope.spawn("channel", driver);
        Ok(Self { sender, key, origin })
    }

    /// What stands before the paths of its calls.
    pub fn origin(&self) -> Uri {
        self.origin.clone()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(key) = &self.key {
            request.headers_mut().insert(http::header::AUTHORIZATION, key.clone());
        }
        Box::pin(self.sender.send_request(request))
    }
}
