//! An authority of the lab's own, and what it vouches for: the relay.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::addresses::{RELAY_IN, RELAY_OUT};
use super::place::RELAY_NAME;

/// Writes `ca.pem`, `relay.pem` (with the authority behind it), `relay.key`, and `front.pem`, which is all of them in one.
pub(super) fn write(folder: &Path) -> anyhow::Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    // OpenSSL takes what has its issuer's name for self-signed.
    authority.distinguished_name.push(DnType::CommonName, "the lab's authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let names =
        [RELAY_NAME.into(), format!("*.{RELAY_NAME}"), RELAY_OUT.to_string(), RELAY_IN.to_string(), "127.0.0.1".into()];
    let mut relay = CertificateParams::new(names)?;
    relay.distinguished_name.push(DnType::CommonName, RELAY_NAME);
    relay.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let chain = relay.signed_by(&key, &authority)?.pem() + &authority.pem();
    let front = chain.clone() + &key.serialize_pem();
    for (name, text) in
        [("ca.pem", authority.pem()), ("relay.pem", chain), ("relay.key", key.serialize_pem()), ("front.pem", front)]
    {
        fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}
