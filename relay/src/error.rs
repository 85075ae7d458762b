//! Why a request has no answer: whose fault, which status, may it be sent again.
//!
//! What the caller is told and what the log is told are two things: the first names what the caller can act on, the second
//! keeps the cause. [`Kind`] is total: every kind has a status and an origin, so no failure can fall through to a blank 500.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use adit_common::tunnel::Sent;
use http::StatusCode;

type BoxError = Box<dyn Error + Send + Sync>;

/// Whose doing a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Client,
    Relay,
    Agent,
}

impl Origin {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Relay => "relay",
            Self::Agent => "agent",
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Not HTTP as it should be.
    BadRequest,
    /// No key, or one that nobody knows.
    Unauthorised,
    /// A key that may not do this.
    Forbidden,
    /// No agent answers this path.
    UnknownPath,
    /// No agent has this model or version.
    UnknownModel,
    /// The path is answered, but not with this method.
    MethodNotAllowed,
    /// The client stopped sending within its body, or was too slow.
    BodyTimeout,
    /// More body than is taken.
    BodyTooLarge,
    /// More header than is taken.
    HeadTooLarge,
    /// The client went away; nobody reads this answer.
    ClientGone,
    /// The agent or its session was lost in the middle.
    AgentLost,
    /// The agent said that it did not work on the request.
    AgentRejected,
    /// The agent broke the protocol or gave up.
    AgentFailed,
    /// No live agent could answer.
    NoAgent,
    /// The model is known, but not ready anywhere.
    ModelNotReady,
    /// Everything that could answer is full.
    Overloaded,
    /// No answer within the request's budget.
    DeadlineExceeded,
}

impl Kind {
    pub(crate) const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::Unauthorised,
        Self::Forbidden,
        Self::UnknownPath,
        Self::UnknownModel,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::HeadTooLarge,
        Self::ClientGone,
        Self::AgentLost,
        Self::AgentRejected,
        Self::AgentFailed,
        Self::NoAgent,
        Self::ModelNotReady,
        Self::Overloaded,
        Self::DeadlineExceeded,
    ];

    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::UnknownPath | Self::UnknownModel => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::AgentLost | Self::AgentRejected | Self::AgentFailed => StatusCode::BAD_GATEWAY,
            Self::NoAgent | Self::ModelNotReady | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The status of a call of gRPC, as its specification numbers them.
    pub(crate) const fn grpc_code(self) -> u16 {
        match self {
            Self::ClientGone => 1,
            Self::BadRequest => 3,
            Self::BodyTimeout | Self::DeadlineExceeded => 4,
            Self::UnknownModel => 5,
            Self::Forbidden => 7,
            Self::BodyTooLarge | Self::HeadTooLarge => 8,
            Self::UnknownPath | Self::MethodNotAllowed => 12,
            Self::AgentLost | Self::AgentRejected | Self::AgentFailed => 14,
            Self::NoAgent | Self::ModelNotReady | Self::Overloaded => 14,
            Self::Unauthorised => 16,
        }
    }

    pub(crate) const fn origin(self) -> Origin {
        match self {
            Self::NoAgent | Self::ModelNotReady | Self::Overloaded => Origin::Relay,
            Self::AgentLost | Self::AgentRejected | Self::AgentFailed | Self::DeadlineExceeded => Origin::Agent,
            _ => Origin::Client,
        }
    }

    /// The kind's name in metrics and logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorised => "unauthorised",
            Self::Forbidden => "forbidden",
            Self::UnknownPath => "unknown_path",
            Self::UnknownModel => "unknown_model",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadTooLarge => "head_too_large",
            Self::ClientGone => "client_gone",
            Self::AgentLost => "agent_lost",
            Self::AgentRejected => "agent_rejected",
            Self::AgentFailed => "agent_failed",
            Self::NoAgent => "no_agent",
            Self::ModelNotReady => "model_not_ready",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) struct ProxyError {
    pub(crate) kind: Kind,
    /// How much of the request an agent may have seen.
    pub(crate) sent: Sent,
    /// What the caller is told.
    pub(crate) message: Cow<'static, str>,
    /// The methods that a 405 allows.
    pub(crate) allow: Option<String>,
    /// Whether there are agents that could answer, or may be, but none of them is connected.
    pub(crate) absent: bool,
    /// What the log is told.
    source: Option<BoxError>,
}

impl ProxyError {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, sent: Sent::Nothing, message: message.into(), allow: None, absent: false, source: None }
    }

    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub(crate) const fn after(mut self, sent: Sent) -> Self {
        self.sent = sent;
        self
    }

    #[must_use]
    pub(crate) const fn absent(mut self) -> Self {
        self.absent = true;
        self
    }

    #[must_use]
    pub(crate) fn allowing(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// When to try again, in seconds. Agents redial within a second, and a slot frees up sooner.
    pub(crate) const fn retry_after(&self) -> Option<&'static str> {
        match self.kind {
            Kind::NoAgent | Kind::ModelNotReady | Kind::Overloaded => Some("1"),
            _ => None,
        }
    }

    /// Whether it may be sent to another agent, given whether the request changes anything: never twice what may have had
    /// an effect.
    pub(crate) fn may_retry(&self, safe: bool) -> bool {
        match self.kind {
            Kind::AgentRejected => true,
            Kind::AgentLost | Kind::AgentFailed => safe || self.sent == Sent::Nothing,
            _ => false,
        }
    }

    /// The cause and its causes, for the log.
    pub(crate) fn detail(&self) -> String {
        let mut text = String::new();
        let mut next: Option<&(dyn Error + 'static)> = self.source.as_ref().map(|source| &**source as _);
        while let Some(error) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for ProxyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_error_status_of_its_origin() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "metrics index by it");
            let client = kind.origin() == Origin::Client;
            assert_eq!(kind.status().is_client_error(), client, "{kind:?}");
            assert_eq!(kind.status().is_server_error(), !client, "{kind:?}");
        }
    }

    #[test]
    fn only_what_cannot_have_had_an_effect_is_sent_again() {
        let lost = |sent| ProxyError::new(Kind::AgentLost, "lost").after(sent);
        assert!(lost(Sent::All).may_retry(true));
        assert!(!lost(Sent::All).may_retry(false));
        assert!(!lost(Sent::Part).may_retry(false));
        assert!(lost(Sent::Nothing).may_retry(false));
        assert!(ProxyError::new(Kind::AgentRejected, "").after(Sent::All).may_retry(false));
        assert!(!ProxyError::new(Kind::DeadlineExceeded, "").may_retry(true));
        assert!(!ProxyError::new(Kind::ClientGone, "").may_retry(true));
    }

    #[test]
    fn the_caller_and_the_log_are_told_different_things() {
        let cause = std::io::Error::other("10.0.0.7 refused");
        let error = ProxyError::new(Kind::AgentLost, "the agent was lost").because(cause);
        assert_eq!((error.to_string().as_str(), error.detail().as_str()), ("the agent was lost", "10.0.0.7 refused"));
    }
}
