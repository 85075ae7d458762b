//! The key pair of one agent and its request to be signed.
//!
//! The key is made where it will be used and the authority sees the request only, so that later an agent can enrol
//! over the network by this very path. `adit-certs issue agent` takes the same steps on one machine.

use adit_common::id::AgentId;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::authority::subject;
use crate::error::CertsError;

/// A fresh key pair (ECDSA P-256) and a signing request that proves its possession.
pub struct Request {
    key: KeyPair,
    pem: String,
}

impl Request {
    /// Makes a key pair and a request in the name of an agent.
    pub fn new(agent: &AgentId) -> Result<Self, CertsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&format!("adit agent {agent}"));
        let pem = params.serialize_request(&key)?.pem()?;
        Ok(Self { key, pem })
    }

    /// The signing request, PKCS #10 in PEM: what may be sent to the authority.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The private key, PKCS #8 in PEM: what stays here.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must never reach a log.
        out.debug_struct("Request").field("pem", &self.pem).finish_non_exhaustive()
    }
}
