//! Who gets through a tunnel's handshake and who does not, and why not. Both ends run in memory, without a network.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use adit_certs::{Bundle, CertsError, Store, Validity, agent_tunnel, https_server, peer_agent, relay_tunnel};
use adit_common::id::AgentId;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, PeerIncompatible, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

const HOST: &str = "relay.test";

/// An authority with a relay named `relay.test` and an agent `shop`.
struct House {
    folder: TempDir,
    store: Store,
    agent: AgentId,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        store.init(&[HOST.parse().unwrap(), "127.0.0.1".parse().unwrap()], Validity::default(), false).unwrap();
        let agent = AgentId::new("shop").unwrap();
        store.issue_agent(&agent, Validity::default(), &store.agent_folder(&agent)).unwrap();
        Self { folder, store, agent }
    }

    fn agent_bundle(&self) -> Bundle {
        Bundle::agent(&self.store.agent_folder(&self.agent))
    }

    fn relay_bundle(&self) -> Bundle {
        Bundle::relay(&self.store.relay_folder())
    }

    fn relay(&self) -> ServerConfig {
        relay_tunnel(&self.relay_bundle()).unwrap()
    }

    fn agent(&self) -> ClientConfig {
        agent_tunnel(&self.agent_bundle()).unwrap()
    }

    /// A certificate of this authority that `adit-certs` would never issue: both usages, and the URIs asked for.
    fn forged(&self, uris: &[&str]) -> Bundle {
        let authority = self.folder.path().join("authority");
        let text = |name: &str| fs::read_to_string(authority.join(name)).unwrap();
        let key = KeyPair::from_pem(&text("issuing.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&text("issuing.pem"), key).unwrap();
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let folder = self.folder.path().join("forged");
        fs::create_dir_all(&folder).unwrap();
        let bundle = Bundle { ca: self.agent_bundle().ca, ..Bundle::agent(&folder) };
        fs::write(&bundle.certificate, params.signed_by(&key, &issuer).unwrap().pem() + &text("issuing.pem")).unwrap();
        fs::write(&bundle.key, key.serialize_pem()).unwrap();
        bundle
    }
}

fn load(bundle: &Bundle) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(&bundle.certificate).unwrap().collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_file(&bundle.key).unwrap())
}

fn trusting(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    roots
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A client that shows whatever it was given, without a look at it.
fn careless_client(bundle: &Bundle) -> ClientConfig {
    let (chain, key) = load(bundle);
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let mut config = builder.with_root_certificates(trusting(&bundle.ca)).with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"rh3".to_vec()];
    config
}

/// A server that shows whatever it was given and takes everyone.
fn careless_server(bundle: &Bundle) -> ServerConfig {
    let (chain, key) = load(bundle);
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"rh3".to_vec()];
    config
}

struct Met {
    agent: ClientConnection,
    relay: ServerConnection,
    at_agent: Result<(), Error>,
    at_relay: Result<(), Error>,
}

impl Met {
    fn accepted(self) -> (ClientConnection, ServerConnection) {
        assert_eq!((self.at_agent, self.at_relay), (Ok(()), Ok(())));
        (self.agent, self.relay)
    }

    /// Why the relay broke the handshake off.
    fn relay_refused(self) -> String {
        self.at_relay.expect_err("the relay took it").to_string()
    }

    /// Why the agent broke the handshake off.
    fn agent_refused(self) -> String {
        self.at_agent.expect_err("the agent took it").to_string()
    }
}

/// Carries bytes both ways until nobody has anything left to say.
fn meet_at(agent: ClientConfig, relay: ServerConfig, name: &str) -> Met {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut agent = ClientConnection::new(Arc::new(agent), name).unwrap();
    let mut relay = ServerConnection::new(Arc::new(relay)).unwrap();
    let (mut at_agent, mut at_relay) = (Ok(()), Ok(()));
    while agent.wants_write() || relay.wants_write() {
        let mut bytes = Vec::new();
        while agent.wants_write() {
            agent.write_tls(&mut bytes).unwrap();
        }
        let mut left = bytes.as_slice();
        while at_relay.is_ok() && !left.is_empty() {
            relay.read_tls(&mut left).unwrap();
            at_relay = relay.process_new_packets().map(drop);
        }
        let mut bytes = Vec::new();
        while relay.wants_write() {
            relay.write_tls(&mut bytes).unwrap();
        }
        let mut left = bytes.as_slice();
        while at_agent.is_ok() && !left.is_empty() {
            agent.read_tls(&mut left).unwrap();
            at_agent = agent.process_new_packets().map(drop);
        }
    }
    Met { agent, relay, at_agent, at_relay }
}

fn meet(agent: ClientConfig, relay: ServerConfig) -> Met {
    meet_at(agent, relay, HOST)
}

#[test]
fn an_agent_and_its_relay_meet() {
    let house = House::new();
    let (agent, relay) = meet(house.agent(), house.relay()).accepted();
    assert!(!agent.is_handshaking() && !relay.is_handshaking());
    assert_eq!(peer_agent(relay.peer_certificates().unwrap()).unwrap(), house.agent);
    assert_eq!(relay.alpn_protocol(), Some(&b"rh3"[..]));
    assert_eq!(relay.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let exchange = relay.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(exchange, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(agent.tls13_tickets_received(), 0, "a resumed session would skip the certificate");
}

#[test]
fn an_address_serves_as_a_name_and_another_name_does_not() {
    let house = House::new();
    meet_at(house.agent(), house.relay(), "127.0.0.1").accepted();
    let reason = meet_at(house.agent(), house.relay(), "elsewhere.test").agent_refused();
    assert!(reason.contains("not valid for name"), "{reason}");
}

#[test]
fn an_agent_without_a_certificate_is_refused() {
    let house = House::new();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let mut nobody = builder.with_root_certificates(trusting(&house.agent_bundle().ca)).with_no_client_auth();
    nobody.alpn_protocols = vec![b"rh3".to_vec()];
    let met = meet(nobody, house.relay());
    assert_eq!(met.at_relay, Err(Error::NoCertificatesPresented));
    // In TLS 1.3 a client may believe itself connected before it is refused: then the alert tells it.
    assert!(met.at_agent.unwrap_err().to_string().contains("CertificateRequired"));
}

#[test]
fn an_agent_of_another_authority_is_refused() {
    let (house, other) = (House::new(), House::new());
    // It trusts this relay (someone gave it our ca.pem), but its own certificate is of its own house.
    let stranger = Bundle { ca: house.agent_bundle().ca, ..other.agent_bundle() };
    let met = meet(agent_tunnel(&stranger).unwrap(), house.relay());
    assert_eq!(met.at_relay, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
}

#[test]
fn a_relay_of_another_authority_is_refused() {
    let (house, other) = (House::new(), House::new());
    let met = meet(house.agent(), other.relay());
    assert_eq!(met.at_agent, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
}

#[test]
fn an_agent_cannot_pose_as_a_relay() {
    let house = House::new();
    // As issued: its certificate is for clients only, and has no name of a host.
    let reason = meet(house.agent(), careless_server(&house.agent_bundle())).agent_refused();
    assert!(reason.contains("does not allow extended key usage for server authentication"), "{reason}");
    // Even with the relay's host name and every usage, its identity gives it away.
    let reason = meet(house.agent(), careless_server(&house.forged(&["adit://agent/shop"]))).agent_refused();
    assert!(reason.contains("the peer is adit://agent/shop, but only a relay"), "{reason}");
}

#[test]
fn the_certificate_of_the_https_front_is_no_relay() {
    let house = House::new();
    let front = careless_server(&Bundle::https(&house.store.relay_folder()));
    let reason = meet(house.agent(), front).agent_refused();
    assert!(reason.contains("it carries no adit URI"), "{reason}");
}

#[test]
fn a_relay_cannot_pose_as_an_agent() {
    let house = House::new();
    let reason = meet(careless_client(&house.relay_bundle()), house.relay()).relay_refused();
    assert!(reason.contains("does not allow extended key usage for client authentication"), "{reason}");
    let reason = meet(careless_client(&house.forged(&["adit://relay"])), house.relay()).relay_refused();
    assert!(reason.contains("the peer is adit://relay, but only an agent"), "{reason}");
}

#[test]
fn a_certificate_with_two_identities_is_nobody() {
    let house = House::new();
    let twofold = house.forged(&["adit://agent/shop", "adit://agent/bank"]);
    let reason = meet(careless_client(&twofold), house.relay()).relay_refused();
    assert!(reason.contains("more than one adit URI"), "{reason}");
}

#[test]
fn an_expired_agent_is_refused_by_the_relay_and_says_so_itself_before() {
    let house = House::new();
    let now = OffsetDateTime::now_utc();
    let past = Validity::between(now - Duration::days(9), now - Duration::days(1));
    house.store.issue_agent(&house.agent, past, &house.store.agent_folder(&house.agent)).unwrap();

    let error = agent_tunnel(&house.agent_bundle()).unwrap_err();
    assert!(matches!(error, CertsError::Expired { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("agent.pem expired on ") && message.contains("adit-certs issue"), "{message}");

    let reason = meet(careless_client(&house.agent_bundle()), house.relay()).relay_refused();
    assert!(reason.contains("expired"), "{reason}");
}

#[test]
fn a_certificate_of_the_future_points_at_the_clock() {
    let house = House::new();
    let now = OffsetDateTime::now_utc();
    let future = Validity::between(now + Duration::days(1), now + Duration::days(9));
    house.store.issue_agent(&house.agent, future, &house.store.agent_folder(&house.agent)).unwrap();
    let message = agent_tunnel(&house.agent_bundle()).unwrap_err().to_string();
    assert!(message.contains("check this machine's clock"), "{message}");
}

#[test]
fn a_tunnel_speaks_no_older_tls_and_no_other_protocol() {
    let house = House::new();
    let mut other = house.agent();
    other.alpn_protocols = vec![b"h3".to_vec()];
    assert_eq!(meet(other, house.relay()).at_relay, Err(Error::NoApplicationProtocol));

    let (chain, key) = load(&house.agent_bundle());
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS12]).unwrap();
    let roots = trusting(&house.agent_bundle().ca);
    let old = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    assert_eq!(meet(old, house.relay()).at_relay, Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into()));
}

#[test]
fn the_https_front_serves_both_protocols_and_both_versions() {
    let house = House::new();
    let bundle = Bundle::https(&house.store.relay_folder());
    let client = |version: &'static SupportedProtocolVersion, alpn: &[u8]| {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let mut config = builder.with_root_certificates(trusting(&bundle.ca)).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    };
    for (version, alpn) in [(&TLS12, &b"h2"[..]), (&TLS12, b"http/1.1"), (&TLS13, b"h2"), (&TLS13, b"http/1.1")] {
        let front = https_server(&bundle.certificate, &bundle.key).unwrap();
        let (client, _) = meet(client(version, alpn), front).accepted();
        assert_eq!((client.alpn_protocol(), client.protocol_version()), (Some(alpn), Some(version.version)));
    }
}

#[test]
fn a_key_of_another_certificate_is_named_with_both_files() {
    let house = House::new();
    let mixed = Bundle { key: house.relay_bundle().key, ..house.agent_bundle() };
    let error = agent_tunnel(&mixed).unwrap_err();
    assert!(matches!(error, CertsError::KeyMismatch { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("tunnel.key") && message.contains("agent.pem"), "{message}");
}

#[test]
fn a_missing_or_wrong_file_is_named_with_its_remedy() {
    let house = House::new();
    let bundle = house.agent_bundle();
    let missing = Bundle { key: bundle.key.with_extension("gone"), ..bundle.clone() };
    let message = agent_tunnel(&missing).unwrap_err().to_string();
    assert!(message.contains("agent.gone is not there") && message.contains("adit-certs"), "{message}");
    let swapped = Bundle { certificate: bundle.key.clone(), ..bundle.clone() };
    let message = agent_tunnel(&swapped).unwrap_err().to_string();
    assert!(message.contains("agent.key is not usable: it holds no PEM certificate"), "{message}");
    let swapped = Bundle { key: bundle.certificate.clone(), ..bundle };
    let message = agent_tunnel(&swapped).unwrap_err().to_string();
    assert!(message.contains("agent.pem is not usable: it holds no PEM private key"), "{message}");
}
