//! Why a server behind the agent gave no answer. The text is for the caller, the source for the log.

use std::error::Error;
use std::io;

use adit_common::id::UpstreamName;
use http::StatusCode;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// As many requests as may be are under way there.
    #[error("the server `{0}` behind the agent is at its limit: try again later")]
    Full(UpstreamName),
    /// It cannot be connected to.
    #[error("the server `{name}` behind the agent cannot be reached: {}", source.kind())]
    Unreachable {
        /// Which.
        name: UpstreamName,
        /// What the operating system said.
        source: io::Error,
    },
    /// Neither connected to nor answered within its time or the request's.
    #[error("the server `{0}` behind the agent did not answer in time")]
    Late(UpstreamName),
    /// It closed the connection, or said what is no HTTP.
    #[error("the server `{name}` behind the agent failed before it answered")]
    Broken {
        /// Which.
        name: UpstreamName,
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It speaks HTTP/2 without what WebSockets need of it (RFC 8441).
    #[error("the server `{0}` behind the agent takes no WebSockets over HTTP/2")]
    NoSockets(UpstreamName),
    /// The request cannot be handed on.
    #[error("{0}")]
    Invalid(&'static str),
}

impl Fault {
    /// As a status of HTTP.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable { .. } | Self::Broken { .. } => StatusCode::BAD_GATEWAY,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::NoSockets(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The outcome's name in metrics.
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Full(_) => "full",
            Self::Unreachable { .. } => "unreachable",
            Self::Late(_) => "late",
            Self::Broken { .. } => "broken",
            Self::NoSockets(_) => "no_sockets",
            Self::Invalid(_) => "invalid",
        }
    }
}
