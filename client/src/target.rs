//! Where to: the URL that was typed, as what it means.

use std::fmt;
use std::str::FromStr;

use http::Uri;

use crate::error::ClientError;

/// A relay, or an agent's local listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    secure: bool,
    host: String,
    port: u16,
}

impl Target {
    /// Whether to speak TLS.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// A name or an address, the latter without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// As it stands in a request: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }

    /// `https` or `http`.
    pub const fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl FromStr for Target {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let wrong = |why| ClientError::Url { url: text.chars().take(200).collect(), why };
        let uri: Uri = text.parse().map_err(|_| wrong("it is not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(wrong("its scheme is neither https nor http")),
            None => return Err(wrong("its scheme is missing")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it has a path")); // the protocol's paths begin at the root
        }
        let authority = uri.authority().ok_or_else(|| wrong("its host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it names a user, but keys go into --key"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // A port that is written but is no number reads as none.
        let named = authority.as_str().rsplit_once("]").map_or(authority.as_str(), |(_, rest)| rest).contains(':');
        let port = match (authority.port_u16(), named) {
            (Some(port), _) => port,
            (None, false) => default_port(secure),
            (None, true) => return Err(wrong("its port is not a number below 65536")),
        };
        if host.is_empty() {
            return Err(wrong("its host is missing"));
        }
        Ok(Self { secure, host, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", self.scheme(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_their_default_ports() {
        for (text, secure, host, port, shown) in [
            ("https://relay.example", true, "relay.example", 443, "https://relay.example"),
            ("https://relay.example:443/", true, "relay.example", 443, "https://relay.example"),
            ("https://127.0.0.1:8443", true, "127.0.0.1", 8443, "https://127.0.0.1:8443"),
            ("http://[::1]:8000", false, "::1", 8000, "http://[::1]:8000"),
            ("https://[::1]", true, "::1", 443, "https://[::1]"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.is_secure(), target.host(), target.port()), (secure, host, port), "{text}");
            assert_eq!(target.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_url_of_a_relay_is_told_why() {
        for (text, why) in [
            ("relay.example", "scheme is missing"),
            ("ftp://relay.example", "neither https nor http"),
            ("https://relay.example/v2", "has a path"),
            ("https://relay.example:99999", "port"),
            ("https://key@relay.example", "names a user"),
            ("https://", "not a URL"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("write https://HOST"), "{text}: {error}");
        }
    }
}
