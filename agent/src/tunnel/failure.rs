//! Why there is no session, in words that tell an operator what to do.
//!
//! A tunnel that "simply does not connect" is the complaint about tunnels. QUIC's and TLS's errors are precise, but say
//! `unexpected error: crypto 48`; this file knows what each means at this end of this tunnel.

use std::io;
use std::net::SocketAddr;

use adit_common::tunnel::TunnelError;
use quinn::{ConnectError, ConnectionError, TransportErrorCode};

/// TLS alerts (RFC 8446, section 6.2) ride in QUIC error codes 0x100 to 0x1ff (RFC 9001, section 4.8).
const ALERTS: u64 = 0x100;

/// Of a port that something else listens on.
const NO_TUNNEL: &str = "what answers there is no relay's tunnel port: it does not speak the tunnel's protocol";

/// A dial that failed, or a session that was refused right after it.
#[derive(Debug, thiserror::Error)]
#[error("{advice}")]
pub(super) struct Failure {
    /// The outcome's name in metrics.
    pub(super) name: &'static str,
    /// What happened and what to do about it.
    pub(super) advice: String,
    /// Whether another address or a repetition could fare better soon.
    pub(super) passing: bool,
}

impl Failure {
    fn new(name: &'static str, passing: bool, advice: impl Into<String>) -> Self {
        Self { name, advice: advice.into(), passing }
    }

    pub(super) fn unresolved(address: &str, error: &dyn std::fmt::Display) -> Self {
        Self::new(
            "unresolved",
            true,
            format!("`{address}` cannot be resolved to an address ({error}): check the name and DNS"),
        )
    }

    pub(super) fn timed_out(tried: &[SocketAddr]) -> Self {
        let tried: Vec<_> = tried.iter().map(ToString::to_string).collect();
        let advice = format!(
            "no answer from {} over UDP: is the relay running, and does every firewall on the way let UDP out to that port?",
            tried.join(", ")
        );
        Self::new("timed_out", true, advice)
    }

    pub(super) fn identity(error: &dyn std::fmt::Display) -> Self {
        Self::new("identity", true, format!("the agent's certificate files cannot be used: {error}"))
    }

    pub(super) fn name(name: &str) -> Self {
        Self::new(
            "name",
            false,
            format!("`{name}` is not a name that a certificate can carry: see `name` of the relay"),
        )
    }

    /// No connection over TCP.
    pub(super) fn tcp(address: SocketAddr, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::new(
                "tcp_refused",
                true,
                format!(
                    "TCP to {address} is refused: is the relay running, and does it take tunnels over TCP (`[tunnel] tcp`)?"
                ),
            ),
            io::ErrorKind::TimedOut => Self::new(
                "tcp_timed_out",
                true,
                format!("no answer from {address} over TCP: does every firewall on the way let TCP out to that port?"),
            ),
            _ => Self::new("tcp_failed", true, format!("TCP to {address} fails: {error}")),
        }
    }

    /// A connection over TCP stood, and TLS or what follows it failed.
    pub(super) fn tls(address: SocketAddr, error: &TunnelError, name: &str) -> Self {
        let mut failure = match error.tls() {
            // What the relay finds wrong with this end, and what this end finds wrong with the relay.
            Some(rustls::Error::AlertReceived(alert)) => Self::rejected(u8::from(*alert)),
            Some(found @ rustls::Error::InvalidCertificate(_)) => Self::untrusted(&found.to_string(), name),
            Some(other) => {
                Self::new("protocol", true, format!("what answers there does not speak TLS as a relay does: {other}"))
            }
            None => {
                let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
                Self::new("tcp_failed", true, format!("the connection broke off in the handshake: {cause}"))
            }
        };
        if failure.name == "protocol" || failure.advice == NO_TUNNEL {
            failure.name = "protocol";
            failure.advice =
                format!("{}; a relay before tunnels over TCP, or with `[tunnel] tcp` off, answers so", failure.advice);
        }
        failure.advice = format!("over TCP at {address}: {}", failure.advice);
        failure
    }

    /// Several addresses, each of which failed; the first is the likeliest.
    pub(super) fn all(failures: Vec<Self>) -> Self {
        let name = failures.first().map_or("tcp_failed", |first| first.name);
        let passing = failures.iter().any(|failure| failure.passing);
        let advice: Vec<_> = failures.into_iter().map(|failure| failure.advice).collect();
        Self::new(name, passing, advice.join("; "))
    }

    /// Over UDP this, and over TCP another.
    pub(super) fn and_over_tcp(self, tcp: Option<Self>) -> Self {
        match tcp {
            Some(tcp) => Self { advice: format!("{}; {}", self.advice, tcp.advice), ..self },
            None => self,
        }
    }

    /// Whether TLS found something wrong with either end, which no other way to the relay mends.
    pub(super) fn is_of_trust(&self) -> bool {
        matches!(self.name, "untrusted" | "name" | "rejected" | "identity")
    }

    pub(super) fn connect(error: &ConnectError) -> Self {
        match error {
            ConnectError::InvalidServerName(name) => Self::name(name),
            other => Self::new("refused", true, format!("the connection cannot be started: {other}")),
        }
    }

    /// Reads the end of a connection; `name` is what the relay's certificate was to carry.
    pub(super) fn of(error: &ConnectionError, name: &str) -> Self {
        match error {
            // What this end finds wrong with the relay.
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(_) => Self::untrusted(&error.reason, name),
                None => Self::new("protocol", true, format!("QUIC failed: {error}")),
            },
            // What the relay finds wrong with this end.
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                Some(alert) => Self::rejected(alert),
                None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => Self::new(
                    "refused",
                    true,
                    "the relay takes no new tunnels just now: it is starting, stopping, or full",
                ),
                None => Self::new("closed", true, format!("the relay closed the connection: {close}")),
            },
            ConnectionError::ApplicationClosed(close) => {
                Self::new("closed", true, format!("the relay closed the session: {close}"))
            }
            ConnectionError::VersionMismatch => Self::new(
                "protocol",
                false,
                "what answers there does not speak QUIC version 1: is the port the relay's tunnel port?",
            ),
            ConnectionError::TimedOut => Self::new("timed_out", true, "the relay was not heard of any more"),
            ConnectionError::Reset => {
                Self::new("reset", true, "the relay was restarted and does not know this session")
            }
            other => Self::new("closed", true, other.to_string()),
        }
    }

    fn untrusted(reason: &str, name: &str) -> Self {
        if reason.contains("UnknownIssuer") || reason.contains("BadSignature") {
            let advice = "the relay's certificate is of another authority than the agent's ca.pem: were both issued from the same \
                          adit-certs folder?";
            Self::new("untrusted", false, advice)
        } else if reason.contains("NotValidForName") || reason.contains("not valid for name") {
            let advice = format!(
                "the relay's certificate does not carry the name `{name}`: set `name` of the relay, or issue it anew"
            );
            Self::new("name", false, advice)
        } else if reason.contains("Expired") || reason.contains("expired") || reason.contains("NotValidYet") {
            Self::new(
                "untrusted",
                false,
                format!("the relay's certificate is not valid now ({reason}): check both clocks, or renew it"),
            )
        } else if reason.contains("application protocol") || reason.contains("NoApplicationProtocol") {
            Self::new(
                "protocol",
                false,
                "what answers there is no relay's tunnel port: it does not speak the tunnel's protocol",
            )
        } else {
            Self::new("untrusted", false, format!("the relay is not trusted: {reason}"))
        }
    }

    /// RFC 8446, section 6.2: the alerts by number.
    fn rejected(alert: u8) -> Self {
        let why = match alert {
            42 | 43 | 46 | 49 => {
                "the relay does not accept this agent's certificate: was it issued with `adit-certs issue agent`?"
            }
            44 => "the relay says that this agent's certificate is revoked",
            45 => "the relay says that this agent's certificate has expired: renew it, or check the relay's clock",
            48 | 51 => {
                "the relay does not know the authority of this agent's certificate: were both issued from the same adit-certs folder?"
            }
            116 => "the relay got no certificate from this agent",
            120 => NO_TUNNEL,
            _ => {
                return Self::new("rejected", false, format!("the relay refused the TLS handshake with alert {alert}"));
            }
        };
        Self::new("rejected", false, why)
    }
}

fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(ALERTS).and_then(|alert| u8::try_from(alert).ok())
}

#[cfg(test)]
mod tests {
    use quinn::ConnectionClose;

    use super::*;

    fn closed(code: TransportErrorCode) -> Failure {
        let close = ConnectionClose { error_code: code, frame_type: None, reason: Default::default() };
        Failure::of(&ConnectionError::ConnectionClosed(close), "relay")
    }

    #[test]
    fn the_relays_alerts_are_told_apart_from_its_refusal() {
        let unknown = closed(TransportErrorCode::crypto(48));
        assert_eq!((unknown.name, unknown.passing), ("rejected", false));
        assert!(unknown.to_string().contains("same adit-certs folder"), "{unknown}");
        let full = closed(TransportErrorCode::CONNECTION_REFUSED);
        assert_eq!((full.name, full.passing), ("refused", true));
        assert!(closed(TransportErrorCode::crypto(80)).to_string().contains("alert 80"));
    }

    #[test]
    fn over_tcp_the_blocked_hop_is_named() {
        let address = "192.0.2.7:4433".parse().unwrap();
        let refused = Failure::tcp(address, &io::ErrorKind::ConnectionRefused.into());
        assert_eq!((refused.name, refused.passing, refused.is_of_trust()), ("tcp_refused", true, false));
        assert!(refused.to_string().contains("TCP to 192.0.2.7:4433 is refused"), "{refused}");
        let silent = Failure::tcp(address, &io::ErrorKind::TimedOut.into());
        assert!(silent.to_string().contains("let TCP out"), "{silent}");
        let both = Failure::timed_out(&[address]).and_over_tcp(Some(Failure::all(vec![refused, silent])));
        assert_eq!(both.name, "timed_out");
        for told in ["over UDP", "is refused", "over TCP"] {
            assert!(both.to_string().contains(told), "{both}");
        }
    }

    #[test]
    fn tls_over_tcp_says_the_same_as_over_quic_and_an_old_relay_is_known() {
        let address = "192.0.2.7:443".parse().unwrap();
        let tls = |error: rustls::Error| Failure::tls(address, &io::Error::other(error).into(), "relay");
        let old = tls(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol));
        assert_eq!((old.name, old.is_of_trust()), ("protocol", false));
        assert!(old.to_string().contains("before tunnels over TCP"), "{old}");
        let unknown = tls(rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA));
        assert_eq!((unknown.name, unknown.is_of_trust()), ("rejected", true));
        let foreign = tls(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
        assert_eq!((foreign.name, foreign.is_of_trust()), ("untrusted", true));
        assert!(foreign.to_string().contains("another authority"), "{foreign}");
    }

    #[test]
    fn what_this_end_distrusts_names_the_remedy() {
        let untrusted = |reason: &str| Failure::untrusted(reason, "relay.example").to_string();
        assert!(untrusted("invalid peer certificate: UnknownIssuer").contains("another authority"));
        assert!(untrusted("invalid peer certificate: NotValidForName").contains("`relay.example`"));
        assert!(untrusted("invalid peer certificate: certificate expired").contains("clocks"));
        assert!(untrusted("peer is odd").contains("peer is odd"));
    }
}
