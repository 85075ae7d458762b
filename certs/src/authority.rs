//! The private certificate authority: a root that is used once, and an issuing certificate that signs the rest.
//!
//! Two levels, so that the root's key can be kept offline: whoever loses the issuing key makes a new one under the
//! same root, and no machine has to learn a new `ca.pem`. All keys are ECDSA P-256: the one kind that every TLS
//! library and every browser verifies, small and fast to sign with. What a certificate may do is said twice, by its
//! extended key usage and by its identity URI, and both ends of the tunnel check both: an agent can never pose as a
//! relay, nor the HTTPS front's certificate as the tunnel's.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use adit_common::id::AgentId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::CertsError;
use crate::identity::Identity;

// Long enough to outlive the machines; the root is trusted by nothing but this house.
const ROOT_DAYS: i64 = 3652;
// Half of the root's: it is replaced once within the root's life.
const ISSUING_DAYS: i64 = 1826;
// The longest that Apple's platforms accept of a server certificate under a root that a person installed.
const LEAF_DAYS: i64 = 825;
// Machines without a battery clock start minutes off; a fresh certificate must work there at once.
const BACKDATED: Duration = Duration::minutes(10);

/// When a certificate begins and ceases to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: OffsetDateTime,
    until: OffsetDateTime,
}

impl Validity {
    /// From ten minutes ago until so many days from now.
    pub fn days(days: i64) -> Self {
        let now = now();
        Self { from: now - BACKDATED, until: now + Duration::days(days) }
    }

    /// Between two moments, to the second.
    pub fn between(from: OffsetDateTime, until: OffsetDateTime) -> Self {
        Self { from: whole_seconds(from), until: whole_seconds(until) }
    }

    // Nobody believes a leaf for longer than its issuer; a leaf that says otherwise only misleads who reads it.
    fn within(self, issuer: Self) -> Self {
        Self { from: self.from, until: self.until.min(issuer.until) }
    }
}

/// 825 days: what a relay's or an agent's certificate gets unless told otherwise.
impl Default for Validity {
    fn default() -> Self {
        Self::days(LEAF_DAYS)
    }
}

/// A name by which agents and clients reach a relay: a DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayName(SanType);

impl FromStr for RelayName {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        let wrong = || CertsError::Name { text: text.into() };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(SanType::IpAddress(address)));
        }
        // All digits and dots is a mistyped address, although DNS would let it pass.
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(wrong());
        }
        match ServerName::try_from(text) {
            Ok(ServerName::DnsName(_)) => Ok(Self(SanType::DnsName(Ia5String::try_from(text).map_err(|_| wrong())?))),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for RelayName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            SanType::IpAddress(address) => address.fmt(out),
            SanType::DnsName(name) => out.write_str(name.as_str()),
            other => write!(out, "{other:?}"),
        }
    }
}

/// A certificate chain and its private key, both PEM, as they are written to files.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// A certificate authority that is ready to sign.
pub struct Authority {
    root: String,
    root_key: Option<KeyPair>,
    issuing: String,
    issuing_validity: Validity,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new root and a new issuing certificate, with new keys.
    pub fn create() -> Result<Self, CertsError> {
        let root_key = new_key()?;
        let root_params = ca_params("adit root", Validity::days(ROOT_DAYS), BasicConstraints::Unconstrained)?;
        let root = root_params.self_signed(&root_key)?;

        let issuing_key = new_key()?;
        let validity = Validity::days(ISSUING_DAYS);
        // Path length 0: what it signs cannot sign in turn.
        let issuing_params = ca_params("adit issuing", validity, BasicConstraints::Constrained(0))?;
        let issuing = issuing_params.signed_by(&issuing_key, &Issuer::from_params(&root_params, &root_key))?;
        Ok(Self {
            root: root.pem(),
            root_key: Some(root_key),
            issuing: issuing.pem(),
            issuing_validity: validity,
            issuer: Issuer::new(issuing_params, issuing_key),
        })
    }

    /// Takes up an authority from its stored parts, all PEM. The root's key is not among them: signing needs it not.
    pub fn restore(root: &str, issuing: &str, issuing_key: &str) -> Result<Self, CertsError> {
        let key = KeyPair::from_pem(issuing_key)?;
        let unreadable = |_| CertsError::Make(rcgen::Error::CouldNotParseCertificate);
        let der = CertificateDer::from_pem_slice(issuing.as_bytes()).map_err(unreadable)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CertsError::Tls(rustls::InconsistentKeys::KeyMismatch.into()));
        }
        let issuing_validity = Validity {
            from: parsed.validity().not_before.to_datetime(),
            until: parsed.validity().not_after.to_datetime(),
        };
        Ok(Self {
            root: root.into(),
            root_key: None,
            issuing: issuing.into(),
            issuing_validity,
            issuer: Issuer::from_ca_cert_der(&der, key)?,
        })
    }

    /// The root certificate, PEM: the `ca.pem` of every folder.
    pub fn root_pem(&self) -> &str {
        &self.root
    }

    /// Signs an agent's request (PKCS #10, PEM) and returns its chain, PEM.
    ///
    /// Of the request only the public key is used, after its signature proved that the asker holds the private one:
    /// what the certificate says is decided here.
    pub fn sign_agent(&self, request: &str, agent: &AgentId, validity: Validity) -> Result<String, CertsError> {
        let request = CertificateSigningRequestParams::from_pem(request)?;
        let mut params = leaf_params(&format!("adit agent {agent}"), validity.within(self.issuing_validity))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(&Identity::Agent(agent.clone()))?];
        self.sign(params, &request.public_key)
    }

    /// A certificate for the relay's end of tunnels: server only, its names, and the relay's identity.
    pub(crate) fn issue_tunnel(&self, names: &[RelayName], validity: Validity) -> Result<Issued, CertsError> {
        self.issue_server("adit relay tunnel", names, Some(uri(&Identity::Relay)?), validity)
    }

    /// A certificate for the relay's HTTPS front: server only, its names, and no identity of the house.
    pub(crate) fn issue_https(&self, names: &[RelayName], validity: Validity) -> Result<Issued, CertsError> {
        self.issue_server("adit relay https", names, None, validity)
    }

    pub(crate) fn issuing_pem(&self) -> &str {
        &self.issuing
    }

    pub(crate) fn issuing_key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Only a new authority has it at hand.
    pub(crate) fn root_key_pem(&self) -> Option<String> {
        self.root_key.as_ref().map(KeyPair::serialize_pem)
    }

    fn issue_server(
        &self,
        title: &str,
        names: &[RelayName],
        identity: Option<SanType>,
        validity: Validity,
    ) -> Result<Issued, CertsError> {
        let key = new_key()?;
        let mut params = leaf_params(title, validity.within(self.issuing_validity))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names.iter().map(|name| name.0.clone()).chain(identity).collect();
        Ok(Issued { chain: self.sign(params, &key)?, key: key.serialize_pem() })
    }

    fn sign(&self, params: CertificateParams, key: &impl PublicKeyData) -> Result<String, CertsError> {
        Ok(params.signed_by(key, &self.issuer)?.pem() + &self.issuing)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys must never reach a log.
        out.debug_struct("Authority").field("issuing_validity", &self.issuing_validity).finish_non_exhaustive()
    }
}

/// A subject that is a common name alone: nothing reads more of it, and a person does.
pub(crate) fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn ca_params(title: &str, validity: Validity, constraints: BasicConstraints) -> Result<CertificateParams, CertsError> {
    let serial = serial()?;
    // Part of the serial stands in the name: two authorities of one house stay apart for a reader and for a browser,
    // which refuses a second certificate with the same issuer name and serial.
    let mark: String = serial.to_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = params(&format!("{title} {mark}"), validity);
    params.serial_number = Some(serial);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.is_ca = IsCa::Ca(constraints);
    Ok(params)
}

fn leaf_params(title: &str, validity: Validity) -> Result<CertificateParams, CertsError> {
    let mut params = params(title, validity);
    params.serial_number = Some(serial()?);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    Ok(params)
}

fn params(title: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(title);
    params.not_before = validity.from;
    params.not_after = validity.until;
    params.use_authority_key_identifier_extension = true;
    params
}

fn new_key() -> Result<KeyPair, CertsError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// 16 random bytes: nobody can guess the next one, and none comes twice.
fn serial() -> Result<SerialNumber, CertsError> {
    let mut bytes = [0; 16];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    // A serial is a positive number of a fixed length here: no sign bit, no leading zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn uri(identity: &Identity) -> Result<SanType, CertsError> {
    Ok(SanType::URI(Ia5String::try_from(identity.to_string())?))
}

fn now() -> OffsetDateTime {
    whole_seconds(OffsetDateTime::now_utc())
}

/// Certificates know whole seconds.
fn whole_seconds(moment: OffsetDateTime) -> OffsetDateTime {
    moment - Duration::nanoseconds(moment.nanosecond().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    fn leaf(chain: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_hosts_or_addresses() {
        for good in ["localhost", "relay.example.org", "127.0.0.1", "::1", "2001:db8::7"] {
            assert_eq!(good.parse::<RelayName>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "https://relay", "relay:443", "127.0.0.256", "*.example.org", "ä.example"] {
            assert!(bad.parse::<RelayName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_gets_its_key_signed_and_nothing_else_it_asks_for() {
        let authority = Authority::create().unwrap();
        let (asked, granted) = (AgentId::new("asked").unwrap(), AgentId::new("granted").unwrap());
        let request = Request::new(&asked).unwrap();
        let chain = authority.sign_agent(request.pem(), &granted, Validity::default()).unwrap();
        let leaf = leaf(&chain);
        assert_eq!(Identity::of(&leaf).unwrap(), Identity::Agent(granted));
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        assert_eq!(parsed.subject().to_string(), "CN=adit agent granted");
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2, "leaf and issuing, not the root");
    }

    #[test]
    fn a_request_that_was_tampered_with_is_refused() {
        let authority = Authority::create().unwrap();
        let agent = AgentId::new("shop").unwrap();
        let request = Request::new(&agent).unwrap();
        let other = Request::new(&agent).unwrap();
        // The first half of one request with the rest, and so the signature, of another.
        let lines = |pem: &str| pem.lines().map(str::to_owned).collect::<Vec<_>>();
        let (mut mixed, from) = (lines(request.pem()), lines(other.pem()));
        let middle = mixed.len() / 2;
        mixed[middle..].clone_from_slice(&from[middle..]);
        assert!(authority.sign_agent(&mixed.join("\n"), &agent, Validity::default()).is_err());
    }

    #[test]
    fn serials_are_long_random_and_positive() {
        let (one, two) = (serial().unwrap().to_bytes(), serial().unwrap().to_bytes());
        assert_eq!((one.len(), two.len()), (16, 16));
        assert_ne!(one, two);
        assert!(one[0] < 0x80 && two[0] < 0x80);
    }

    #[test]
    fn a_leaf_does_not_outlive_its_issuer_and_begins_in_the_past() {
        let authority = Authority::create().unwrap();
        let names = ["localhost".parse().unwrap()];
        let issued = authority.issue_tunnel(&names, Validity::days(100 * 365)).unwrap();
        let leaf = leaf(&issued.chain);
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        assert_eq!(parsed.validity().not_after.to_datetime(), authority.issuing_validity.until);
        assert!(parsed.validity().not_before.to_datetime() <= now() - BACKDATED);
    }

    #[test]
    fn an_authority_with_another_key_is_refused() {
        let (one, two) = (Authority::create().unwrap(), Authority::create().unwrap());
        assert!(Authority::restore(one.root_pem(), one.issuing_pem(), &one.issuing_key_pem()).is_ok());
        assert!(Authority::restore(one.root_pem(), one.issuing_pem(), &two.issuing_key_pem()).is_err());
    }
}
