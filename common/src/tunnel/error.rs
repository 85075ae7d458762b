//! What can go wrong in a tunnel, and the codes that say so to the other end.

use std::error::Error;
use std::fmt;

use super::tcp::Loss;

/// Why a stream or a session was ended: an HTTP/3 error code (RFC 9114, section 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResetCode(pub u64);

impl ResetCode {
    /// Nothing is wrong: the session ends, or the rest of a request is not needed.
    pub const NO_ERROR: Self = Self(0x100);
    /// The peer broke the protocol.
    pub const GENERAL_PROTOCOL_ERROR: Self = Self(0x101);
    /// This end failed.
    pub const INTERNAL_ERROR: Self = Self(0x102);
    /// A stream of a kind that is not taken here.
    pub const STREAM_CREATION_ERROR: Self = Self(0x103);
    /// A stream was closed that must stay open.
    pub const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    /// A frame where it may not be.
    pub const FRAME_UNEXPECTED: Self = Self(0x105);
    /// A frame that is not laid out as its kind must be.
    pub const FRAME_ERROR: Self = Self(0x106);
    /// More than this end takes.
    pub const EXCESSIVE_LOAD: Self = Self(0x107);
    /// The control stream does not begin with SETTINGS.
    pub const MISSING_SETTINGS: Self = Self(0x10a);
    /// The request was not worked on and may be sent again.
    pub const REQUEST_REJECTED: Self = Self(0x10b);
    /// The exchange is no longer wanted.
    pub const REQUEST_CANCELLED: Self = Self(0x10c);
    /// The stream ended within a request.
    pub const REQUEST_INCOMPLETE: Self = Self(0x10d);
    /// A request or response that is not well-formed HTTP.
    pub const MESSAGE_ERROR: Self = Self(0x10e);
    /// A field section that cannot be read.
    pub const QPACK_DECOMPRESSION_FAILED: Self = Self(0x200);

    /// As QUIC carries it; codes above 62 bits cannot be received, and we send none.
    pub(super) fn to_wire(self) -> quinn::VarInt {
        quinn::VarInt::from_u64(self.0).unwrap_or(quinn::VarInt::MAX)
    }
}

impl From<quinn::VarInt> for ResetCode {
    fn from(code: quinn::VarInt) -> Self {
        Self(code.into_inner())
    }
}

impl fmt::Display for ResetCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::NO_ERROR => "no error",
            Self::GENERAL_PROTOCOL_ERROR => "general protocol error",
            Self::INTERNAL_ERROR => "internal error",
            Self::STREAM_CREATION_ERROR => "stream creation error",
            Self::CLOSED_CRITICAL_STREAM => "closed critical stream",
            Self::FRAME_UNEXPECTED => "frame unexpected",
            Self::FRAME_ERROR => "frame error",
            Self::EXCESSIVE_LOAD => "excessive load",
            Self::MISSING_SETTINGS => "missing settings",
            Self::REQUEST_REJECTED => "request rejected",
            Self::REQUEST_CANCELLED => "request cancelled",
            Self::REQUEST_INCOMPLETE => "request incomplete",
            Self::MESSAGE_ERROR => "message error",
            Self::QPACK_DECOMPRESSION_FAILED => "field section unreadable",
            Self(code) => return write!(out, "code {code:#x}"),
        };
        out.write_str(name)
    }
}

/// What went wrong in a tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The peer allows no further stream just now.
    #[error("the peer allows no further stream")]
    NoCredit,
    /// The peer said that it takes no further requests.
    #[error("the peer is going away")]
    GoingAway,
    /// The session is over.
    #[error("the session is closed")]
    Closed(#[source] quinn::ConnectionError),
    /// The session over TCP is over.
    #[error("the session is closed")]
    Lost(#[source] Loss),
    /// The peer gave up what it was sending on this stream.
    #[error("the peer reset the stream: {0}")]
    Reset(ResetCode),
    /// The peer does not want what this end was sending on this stream.
    #[error("the peer stopped the stream: {0}")]
    Stopped(ResetCode),
    /// The peer sent what the protocol does not allow.
    #[error("the peer broke the protocol: {what}")]
    Protocol {
        /// The code that the peer is told.
        code: ResetCode,
        /// What it did.
        what: &'static str,
    },
    /// The body that was to be sent failed at its own source.
    #[error("the body failed at its source")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    /// An endpoint could not be set up.
    #[error("cannot set up the tunnel's endpoint: {0}")]
    Setup(String),
    /// The local UDP socket failed.
    #[error("the tunnel's socket failed")]
    Socket(#[from] std::io::Error),
}

impl TunnelError {
    pub(super) const fn protocol(code: ResetCode, what: &'static str) -> Self {
        Self::Protocol { code, what }
    }

    /// Whether the session ended in order: either end closed it with no error.
    pub fn is_orderly_close(&self) -> bool {
        match self {
            Self::Closed(quinn::ConnectionError::ApplicationClosed(close)) => {
                ResetCode::from(close.error_code) == ResetCode::NO_ERROR
            }
            Self::Lost(Loss::Peer { code, .. }) => *code == ResetCode::NO_ERROR,
            Self::Closed(quinn::ConnectionError::LocallyClosed) | Self::Lost(Loss::Local) => true,
            _ => false,
        }
    }

    /// Whether the session is over, so that another one is needed.
    pub const fn is_loss(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Lost(_))
    }

    /// What TLS found wrong, where that ended a session over TCP.
    pub fn tls(&self) -> Option<&rustls::Error> {
        match self {
            Self::Lost(Loss::Broken(error)) => error.get_io()?.get_ref()?.downcast_ref(),
            Self::Socket(error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    /// The code that tells the peer of this error.
    pub(super) const fn code(&self) -> ResetCode {
        match self {
            Self::Protocol { code, .. } => *code,
            Self::Body(_) => ResetCode::REQUEST_CANCELLED,
            _ => ResetCode::INTERNAL_ERROR,
        }
    }
}

impl From<quinn::ConnectionError> for TunnelError {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Closed(error)
    }
}

impl From<quinn::ReadError> for TunnelError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(code.into()),
            quinn::ReadError::ConnectionLost(error) => Self::Closed(error),
            // What is left cannot happen here (0-RTT, unordered reads, reads after the end), yet must not panic.
            _ => Self::Reset(ResetCode::INTERNAL_ERROR),
        }
    }
}

impl From<quinn::WriteError> for TunnelError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::Stopped(code.into()),
            quinn::WriteError::ConnectionLost(error) => Self::Closed(error),
            _ => Self::Stopped(ResetCode::INTERNAL_ERROR),
        }
    }
}
