//! From files to the TLS settings of both ends of a tunnel and of the HTTPS front.
//!
//! Every function reads its files anew, so taking up a new certificate without a restart is to call it again and swap
//! the result in. The provider is named each time: whatever else is in the process, the cryptography is aws-lc's.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use adit_common::id::AgentId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme, SupportedCipherSuite, version,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use time::OffsetDateTime;

use crate::error::CertsError;
use crate::files::{read, warn_if_readable};
use crate::identity::Identity;
use crate::inspect::{Summary, chain, stamp};
use crate::store::Bundle;

/// The protocol of a tunnel over QUIC: HTTP/3 with the roles reversed (draft-thomson-ptth-potato).
pub const TUNNEL_ALPN: &[u8] = b"rh3";

/// The protocol of a tunnel over TLS on TCP: HTTP/2 with the roles reversed.
pub const TUNNEL_TCP_ALPN: &[u8] = b"rh2";

/// The relay's end of tunnels: TLS 1.3, and only agents of this authority get through the handshake.
///
/// No tickets and no early data: a resumed session would skip the look at the certificate, and early data can be
/// replayed.
pub fn relay_tunnel(bundle: &Bundle) -> Result<ServerConfig, CertsError> {
    let provider = provider();
    let roots = Arc::new(roots(&bundle.ca)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| CertsError::Malformed { path: bundle.ca.clone(), reason: error.to_string() })?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(AgentsOnly(verifier)))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity(
            &bundle.certificate,
            &bundle.key,
            &provider,
        )?)));
    config.alpn_protocols = vec![TUNNEL_ALPN.into()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// The same for tunnels over TCP.
pub fn relay_tunnel_over_tcp(bundle: &Bundle) -> Result<ServerConfig, CertsError> {
    let mut config = relay_tunnel(bundle)?;
    config.alpn_protocols = vec![TUNNEL_TCP_ALPN.into()];
    Ok(config)
}

/// An agent's end of its tunnels: TLS 1.3, its own certificate shown, and only a relay of this authority believed.
///
/// The relay's certificate must carry the name that was dialled and the relay's identity: another agent's
/// certificate, though of the same authority, is refused.
pub fn agent_tunnel(bundle: &Bundle) -> Result<ClientConfig, CertsError> {
    let provider = provider();
    let roots = Arc::new(roots(&bundle.ca)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| CertsError::Malformed { path: bundle.ca.clone(), reason: error.to_string() })?;
    let own = identity(&bundle.certificate, &bundle.key, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous() // The name of the door to any verifier of one's own; this one only adds to what webpki demands.
        .with_custom_certificate_verifier(Arc::new(RelaysOnly(verifier)))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![TUNNEL_ALPN.into()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The same for tunnels over TCP.
pub fn agent_tunnel_over_tcp(bundle: &Bundle) -> Result<ClientConfig, CertsError> {
    let mut config = agent_tunnel(bundle)?;
    config.alpn_protocols = vec![TUNNEL_TCP_ALPN.into()];
    Ok(config)
}

/// The public HTTPS front: TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1, any certificate chain with its key.
pub fn https_server(certificate: &Path, key: &Path) -> Result<ServerConfig, CertsError> {
    let provider = provider();
    let own = identity(certificate, key, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets that the client keeps: thousands of returning clients cost no memory here.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// Which agent a verified chain (leaf first, as a finished handshake hands it over) speaks for.
pub fn peer_agent(chain: &[CertificateDer<'_>]) -> Result<AgentId, CertsError> {
    let leaf = chain.first().ok_or_else(|| CertsError::Identity { reason: "the peer showed none".into() })?;
    match Identity::of(leaf)? {
        Identity::Agent(id) => Ok(id),
        Identity::Relay => Err(CertsError::Role { found: Identity::Relay.to_string(), wanted: "an agent" }),
    }
}

/// aws-lc with the hybrid post-quantum key exchange first; the classical curves stay for who lacks it.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
    let ours = aws_lc_rs::default_provider();
    let cipher_suites = in_order(ours.cipher_suites, computes_aes());
    Arc::new(CryptoProvider { cipher_suites, kx_groups, ..ours })
}

fn roots(path: &Path) -> Result<RootCertStore, CertsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots
            .add(certificate)
            .map_err(|error| CertsError::Malformed { path: path.into(), reason: error.to_string() })?;
    }
    Ok(roots)
}

/// What this end would rather speak first. The relay takes the first of an agent's that it knows, so the weaker processor decides: one
/// that does not compute AES itself takes several times as long for it as for ChaCha20. rustls has one order for all.
fn in_order(mut suites: Vec<SupportedCipherSuite>, aes: bool) -> Vec<SupportedCipherSuite> {
    suites.sort_by_key(|suite| is_chacha(suite.suite()) == aes);
    suites
}

const fn is_chacha(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// Whether the processor has instructions for AES and for its GCM.
fn computes_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// Loads a chain and its key, and finds out here, with file names, what would fail obscurely in a handshake.
fn identity(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, CertsError> {
    let chain = chain(certificate)?;
    let about = Summary::of(certificate, &chain)?;
    let path = || certificate.to_owned();
    if about.is_expired() {
        return Err(CertsError::Expired { path: path(), until: stamp(about.until) });
    }
    if about.from > OffsetDateTime::now_utc() {
        return Err(CertsError::NotYetValid { path: path(), from: stamp(about.from) });
    }
    if about.is_due() {
        tracing::warn!(path = %certificate.display(), days = about.days_left(), "this certificate expires soon: renew it");
    }
    let text = read(key, "it is written beside its certificate by adit-certs: copy both")?;
    warn_if_readable(key);
    let wrong = |reason: String| CertsError::Malformed { path: key.into(), reason };
    let private = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| wrong(format!("it holds no PEM private key ({error})")))?;
    let signing = provider.key_provider.load_private_key(private).map_err(|error| wrong(error.to_string()))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        // `Unknown` is a key that cannot tell its public half, such as one in hardware: the handshake will show.
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => Err(CertsError::KeyMismatch { certificate: path(), key: key.into() }),
        Err(error) => Err(CertsError::Malformed { path: path(), reason: error.to_string() }),
    }
}

fn refuse(error: CertsError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refusal(error)))))
}

/// rustls shows a verifier's own reason by its `Debug` only, and a person will read it in a log: so both are the text.
#[derive(thiserror::Error)]
#[error(transparent)]
struct Refusal(CertsError);

impl fmt::Debug for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

/// What webpki demands of a client, and that it is an agent.
#[derive(Debug)]
struct AgentsOnly(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AgentsOnly {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(leaf, intermediates, now)?;
        peer_agent(std::slice::from_ref(leaf)).map_err(refuse)?;
        Ok(verified)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What webpki demands of a server under the name that was dialled, and that it is a relay.
#[derive(Debug)]
struct RelaysOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for RelaysOnly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.0.verify_server_cert(leaf, intermediates, name, stapled, now)?;
        match Identity::of(leaf).map_err(refuse)? {
            Identity::Relay => Ok(verified),
            agent @ Identity::Agent(_) => Err(refuse(CertsError::Role { found: agent.to_string(), wanted: "a relay" })),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_decides_which_cipher_comes_first() {
        let names = |aes| -> Vec<CipherSuite> {
            let suites = in_order(aws_lc_rs::default_provider().cipher_suites, aes);
            suites.iter().map(SupportedCipherSuite::suite).collect()
        };
        assert_eq!(names(true)[0], CipherSuite::TLS13_AES_256_GCM_SHA384);
        assert_eq!(names(false)[0], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        assert!(names(true).iter().skip_while(|suite| !is_chacha(**suite)).all(|suite| is_chacha(*suite)));
        assert_eq!(names(true).len(), names(false).len(), "none is left out");
    }
}
