//! Who a certificate speaks for: the one URI among its alternative names.
//!
//! `adit://agent/NAME` or `adit://relay`. A name of its own kind, not a DNS name, because an agent has no host name,
//! and because no certificate that any other authority issues for a web server could be mistaken for it.

use std::fmt;

use adit_common::id::AgentId;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::error::CertsError;

const RELAY: &str = "adit://relay";
const AGENT: &str = "adit://agent/";

/// Who stands at one end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Any relay of this authority: which host it is, its DNS and IP names say.
    Relay,
    /// One agent.
    Agent(AgentId),
}

impl Identity {
    /// Reads `adit://relay` or `adit://agent/NAME`, and nothing that merely looks like it (case, trailing slash,
    /// query, escapes).
    pub fn parse(uri: &str) -> Result<Self, CertsError> {
        if uri == RELAY {
            return Ok(Self::Relay);
        }
        let unknown = |reason: String| CertsError::Identity { reason };
        let name =
            uri.strip_prefix(AGENT).ok_or_else(|| unknown(format!("{uri:?} is neither {RELAY} nor {AGENT}NAME")))?;
        AgentId::new(name).map(Self::Agent).map_err(|error| unknown(error.to_string()))
    }

    /// The identity of a leaf certificate (DER). The chain must have been verified before: this reads, it does not judge.
    ///
    /// A certificate with two identities is refused, whichever they are: it could be believed as either.
    pub fn of(leaf: &CertificateDer<'_>) -> Result<Self, CertsError> {
        let unknown = |reason: &str| CertsError::Identity { reason: reason.into() };
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| unknown("it is not a readable certificate"))?;
        let names =
            certificate.subject_alternative_name().map_err(|_| unknown("its alternative names are unreadable"))?;
        let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("adit:") => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Self::parse(uri),
            (Some(_), Some(_)) => Err(unknown("it carries more than one adit URI")),
            (None, _) => Err(unknown("it carries no adit URI")),
        }
    }
}

/// The URI as it stands in a certificate.
impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay => out.write_str(RELAY),
            Self::Agent(id) => write!(out, "{AGENT}{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_round_trips() {
        for identity in [Identity::Relay, Identity::Agent(AgentId::new("shop-7").unwrap())] {
            assert_eq!(Identity::parse(&identity.to_string()).unwrap(), identity);
        }
    }

    #[test]
    fn a_uri_is_read_strictly() {
        for bad in [
            "",
            "adit://agent",
            "adit://agent/",
            "adit://agent/Shop",
            "adit://agent/shop/",
            "adit://agent/shop/../relay",
            "adit://agent/shop?x",
            "adit://agent/sh%6fp",
            "ADIT://agent/shop",
            "adit://relay/",
            "adit://relay/shop",
            "https://relay",
        ] {
            assert!(Identity::parse(bad).is_err(), "{bad:?}");
        }
    }
}
