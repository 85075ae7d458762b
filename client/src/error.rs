//! What can go wrong on the way to a model, each with what its reader can do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use adit_common::oip::OipError;
use http::StatusCode;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL is none that can be used.
    #[error("{url:?} is no URL of a relay: {why}, write https://HOST or https://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A key that cannot stand in a header.
    #[error(
        "the key has characters that no key has: pass the line that `adit-relay key new` printed, and nothing else"
    )]
    Key,
    /// A file that was named cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file of `--ca` holds no certificate.
    #[error("{} holds no certificate: --ca takes the authority's certificate as PEM", .0.display())]
    NoCertificate(PathBuf),
    /// This machine's own authorities cannot be used.
    #[error("cannot use the certificates that this machine trusts: pass --ca FILE instead")]
    Platform(#[source] rustls::Error),
    /// The host's name is unknown.
    #[error("cannot find the host {host}: check its name in --url")]
    Resolve {
        /// Which host.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody listens there.
    #[error("{authority} refuses connections: is a relay running there, and is this its port?")]
    Refused {
        /// Where.
        authority: String,
    },
    /// The connection cannot be made.
    #[error("cannot connect to {authority}")]
    Connect {
        /// Where to.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing came back while connecting.
    #[error("{authority} did not take the connection within {limit:?}: is a firewall in between?")]
    ConnectTimeout {
        /// Where to.
        authority: String,
        /// How long it was tried.
        limit: Duration,
    },
    /// The certificate is of an authority that is not trusted here.
    #[error(
        "the certificate of {host} is of an authority that is not trusted here: pass its certificate with --ca FILE"
    )]
    UnknownAuthority {
        /// Whose certificate.
        host: String,
    },
    /// The certificate is for other names.
    #[error("the certificate of {host} is made out to {names}: use such a name in --url")]
    WrongName {
        /// Who was asked for.
        host: String,
        /// Who the certificate says it is.
        names: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS with {authority}")]
    Tls {
        /// With whom.
        authority: String,
        /// What failed.
        source: io::Error,
    },
    /// The other side does not speak TLS.
    #[error("{authority} does not speak TLS: if it is an agent's local listener, write http:// in --url")]
    NotTls {
        /// Who.
        authority: String,
    },
    /// The connection ended before the answer.
    #[error("the connection was closed before the answer was there")]
    Closed(#[source] hyper::Error),
    /// The connection ended while it was idle: nothing of the request was sent, so it may be sent on another.
    #[error("the connection was closed before the request was sent")]
    NotSent(#[source] hyper::Error),
    /// The answer did not come in time.
    #[error("no answer within {limit:?}: allow more with --timeout")]
    Timeout {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The answer is larger than any answer of the protocol.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// What is accepted.
        limit: usize,
    },
    /// No key, or a wrong one.
    #[error("{}", unauthorized(.had_key, message))]
    Unauthorized {
        /// Whether one was sent.
        had_key: bool,
        /// What the relay said.
        message: String,
    },
    /// The key is not allowed that.
    #[error("the key is not allowed to ask this: {message}")]
    Forbidden {
        /// What the relay said.
        message: String,
    },
    /// There is no such model, or not in this version.
    #[error("{}", no_such_model(model, there))]
    NoSuchModel {
        /// What was asked for.
        model: String,
        /// What there is, if the relay told.
        there: Vec<String>,
    },
    /// Nobody can answer at the moment.
    #[error("{}", unavailable(message, .retry_after.as_deref()))]
    Unavailable {
        /// What the relay said.
        message: String,
        /// When to come again, in seconds or as a date.
        retry_after: Option<String>,
    },
    /// Any other answer that is no success.
    #[error("the answer was {status}: {message}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// The model does not take an encoded image.
    #[error("model {model} takes no encoded image, but {inputs}")]
    NoImage {
        /// Which model.
        model: String,
        /// What it takes.
        inputs: String,
    },
    /// The model tells classes, and objects were asked for; or the other way round.
    #[error("model {model} {}", if *.detects { "finds objects: use `adit detect`" } else { "tells classes and finds no objects: use `adit classify`" })]
    OtherKind {
        /// Which model.
        model: String,
        /// Whether it finds objects.
        detects: bool,
    },
    /// A picture cannot be drawn on.
    #[error("cannot draw on {}", path.display())]
    Draw {
        /// Which picture.
        path: PathBuf,
        /// Why not.
        source: adit_picture::ImageError,
    },
    /// A drawn picture cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is not of the Open Inference Protocol.
    #[error("the answer is not one of the Open Inference Protocol")]
    Oip(#[from] OipError),
    /// The report cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// A plan that cannot be carried out.
    #[error("{0}")]
    Plan(&'static str),
}

impl ClientError {
    /// The class under which a failure is counted.
    pub fn class(&self) -> String {
        match self {
            Self::Timeout { .. } => "time-out".to_owned(),
            Self::Closed(_) | Self::NotSent(_) => "connection closed".to_owned(),
            Self::Unauthorized { .. } => "401".to_owned(),
            Self::Forbidden { .. } => "403".to_owned(),
            Self::NoSuchModel { .. } => "404".to_owned(),
            Self::Unavailable { .. } => "503".to_owned(),
            Self::Status { status, .. } => status.as_str().to_owned(),
            Self::Oip(_) | Self::TooLarge { .. } => "answer not understood".to_owned(),
            _ => "no connection".to_owned(),
        }
    }
}

fn unauthorized(had_key: &bool, message: &str) -> String {
    let what = if *had_key { "the relay does not know this key" } else { "the relay wants a key" };
    format!("{what}: pass --key or set ADIT_KEY ({message})")
}

fn no_such_model(model: &str, there: &[String]) -> String {
    match there {
        [] => format!("there is no model {model}"),
        _ => format!("there is no model {model}, but {}", there.join(", ")),
    }
}

fn unavailable(message: &str, retry_after: Option<&str>) -> String {
    match retry_after {
        Some(seconds) if seconds.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("nobody can answer at the moment: {message}; try again in {seconds} s")
        }
        _ => format!("nobody can answer at the moment: {message}; is an agent connected to the relay?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do() {
        let error = ClientError::Unauthorized { had_key: false, message: "no key".into() };
        assert_eq!(error.to_string(), "the relay wants a key: pass --key or set ADIT_KEY (no key)");
        let error = ClientError::NoSuchModel { model: "cats".into(), there: vec!["digits".into(), "dogs".into()] };
        assert_eq!(error.to_string(), "there is no model cats, but digits, dogs");
        let error = ClientError::Unavailable { message: "no live agent".into(), retry_after: Some("1".into()) };
        assert_eq!(error.to_string(), "nobody can answer at the moment: no live agent; try again in 1 s");
    }

    #[test]
    fn failures_are_counted_by_class() {
        let status = ClientError::Status { status: StatusCode::BAD_GATEWAY, message: String::new() };
        assert_eq!(status.class(), "502");
        assert_eq!(ClientError::Timeout { limit: Duration::from_secs(1) }.class(), "time-out");
        assert_eq!(ClientError::Refused { authority: String::new() }.class(), "no connection");
    }
}
