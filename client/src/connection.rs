//! One connection to a relay, and the exchanges on it.
//!
//! Every exchange notes when it was put on the connection, when the answer's head was there and when its last byte was:
//! what the connection itself cost stands apart, in its [`Setup`].

use std::time::{Duration, Instant};

use adit_common::id::RequestId;
use adit_common::oip::{Encoded, HEADER_LENGTH};
use adit_common::trace::TraceContext;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::{http1, http2};

use crate::connect::Options;
use crate::error::ClientError;

/// The longest answer that is read: far beyond any list of models or classes.
const MAX_ANSWER: usize = 16 << 20;

/// What a connection cost before the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setup {
    /// Finding the host's addresses.
    pub resolve: Duration,
    /// The TCP handshake.
    pub tcp: Duration,
    /// The TLS handshake; `None` without TLS.
    pub tls: Option<Duration>,
    /// Whether TLS took up an earlier session, which is cheaper.
    pub resumed: bool,
}

impl Setup {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.resolve + self.tcp + self.tls.unwrap_or_default()
    }
}

/// The version of HTTP that both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One exchange at a time.
    Http1,
    /// Many exchanges at a time.
    Http2,
}

impl Protocol {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

#[derive(Debug)]
pub(crate) enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection to a relay or an agent's local listener.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    options: std::sync::Arc<Options>,
    setup: Setup,
    spoilt: bool,
}

/// A request and its answer, as they went over a connection.
#[derive(Debug)]
pub struct Exchange {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The answer's body.
    pub body: Bytes,
    /// When the request was put on the connection.
    pub sent: Instant,
    /// From then to the answer's head.
    pub head: Duration,
    /// From then to the answer's last byte.
    pub whole: Duration,
    /// The request's id: as the relay says, else as it was sent.
    pub id: String,
    /// The request's trace.
    pub trace: TraceContext,
}

impl Connection {
    pub(crate) const fn new(sender: Sender, options: std::sync::Arc<Options>, setup: Setup) -> Self {
        Self { sender, options, setup, spoilt: false }
    }

    /// What it cost to open.
    pub const fn setup(&self) -> Setup {
        self.setup
    }

    /// The version of HTTP that it speaks.
    pub const fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::Http2,
        }
    }

    /// Whether the other side, or a time-out in the middle of an exchange, has ended it.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => self.spoilt || sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// The same connection once more, for exchanges beside those of this handle; `None` over HTTP/1.1, which has one at a time.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => {
                let sender = Sender::Http2(sender.clone());
                Some(Self { sender, options: self.options.clone(), setup: self.setup, spoilt: false })
            }
        }
    }

    /// Until when an exchange must be over, from its start.
    pub fn limit(&self) -> Duration {
        self.options.timeout
    }

    /// Whether requests carry a key.
    pub fn has_key(&self) -> bool {
        self.options.key.is_some()
    }

    /// Sends a request and reads the answer whole, whatever its status. [`ClientError::NotSent`] says that the connection was
    /// gone before: the request may be sent on another.
    pub async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Encoded>,
    ) -> Result<Exchange, ClientError> {
        let (id, trace) = (RequestId::random(), TraceContext::random());
        let request = self.request(method, path, body, &id, trace);
        let limit = self.options.timeout;
        let answer = tokio::time::timeout(limit, self.send(request)).await;
        // Over HTTP/1.1 the late answer would still come, and be taken for the next one's.
        self.spoilt = answer.is_err();
        let (answer, sent, head) = answer.map_err(|_| ClientError::Timeout { limit })??;
        let whole = sent.elapsed();
        let (parts, body) = answer.into_parts();
        let said = parts.headers.get(RequestId::HEADER).and_then(|id| id.to_str().ok());
        let id = said.map_or_else(|| id.to_string(), str::to_owned);
        Ok(Exchange { status: parts.status, headers: parts.headers, body, sent, head, whole, id, trace })
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(http::Response<Bytes>, Instant, Duration), ClientError> {
        // A connection that is still busy with the end of the last exchange is not the next one's time.
        let ready = match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        };
        ready.map_err(ClientError::NotSent)?;
        let sent = Instant::now();
        let answer = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        };
        let answer = answer.map_err(|mut failed| match failed.take_message() {
            Some(_) => ClientError::NotSent(failed.into_error()),
            None => ClientError::Closed(failed.into_error()),
        });
        let (parts, body) = answer?.into_parts();
        let head = sent.elapsed();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return ClientError::TooLarge { limit: MAX_ANSWER };
            }
            error.downcast().map_or(ClientError::TooLarge { limit: MAX_ANSWER }, |error| ClientError::Closed(*error))
        })?;
        Ok((http::Response::from_parts(parts, body.to_bytes()), sent, head))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Encoded>,
        id: &RequestId,
        trace: TraceContext,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.map(|body| body.body.clone()).unwrap_or_default()));
        *request.method_mut() = method;
        let target = &self.options.target;
        let authority = target.authority();
        // Names in paths are parsed (letters, digits, '.', '_' and '-'), and an authority comes from a URI.
        let whole = match self.protocol() {
            Protocol::Http1 => path.parse::<Uri>(),
            Protocol::Http2 => format!("{}://{authority}{path}", target.scheme()).parse(),
        };
        *request.uri_mut() = whole.unwrap_or_default();
        let headers = request.headers_mut();
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        if self.protocol() == Protocol::Http1 {
            set(HOST, &authority);
        }
        set(USER_AGENT, concat!("adit/", env!("CARGO_PKG_VERSION")));
        set(http::HeaderName::from_static(RequestId::HEADER), id.as_str());
        set(http::HeaderName::from_static(TraceContext::HEADER), &trace.to_string());
        if let Some(body) = body {
            set(CONTENT_TYPE, body.content_type());
            if let Some(length) = body.header_length {
                set(http::HeaderName::from_static(HEADER_LENGTH), &length.to_string());
            }
        }
        if let Some(key) = &self.options.key {
            headers.insert(AUTHORIZATION, key.bearer());
        }
        request
    }
}
