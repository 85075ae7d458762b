//! What a certificate file says, for a person to read.
//!
//! Answers the questions of operations: whose is it, by which names, who signed it, for how long, and is it the same
//! one as over there.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use time::macros::format_description;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use crate::error::CertsError;
use crate::files::read;

// A month: time to notice, to issue, and to carry a file to a machine that nobody visits often.
const RENEW_DAYS: i64 = 30;

/// The first certificate of a file.
#[derive(Debug, Clone)]
pub struct Summary {
    path: PathBuf,
    subject: String,
    names: Vec<String>,
    issuer: String,
    /// Beginning of the validity, UTC.
    pub(crate) from: OffsetDateTime,
    /// End of the validity, UTC.
    pub(crate) until: OffsetDateTime,
    fingerprint: String,
    length: usize,
    shown: OffsetDateTime,
}

impl Summary {
    /// Reads a PEM file with one certificate or a chain, leaf first.
    pub fn load(path: &Path) -> Result<Self, CertsError> {
        Self::of(path, &chain(path)?)
    }

    /// Whole days until the certificate expires, negative when it has.
    pub fn days_left(&self) -> i64 {
        (self.until - self.shown).whole_days()
    }

    /// Whether the certificate's time is over.
    pub fn is_expired(&self) -> bool {
        self.until < self.shown
    }

    /// Whether it expires within 30 days, or has: time to issue a new one.
    pub fn is_due(&self) -> bool {
        self.until - self.shown < Duration::days(RENEW_DAYS)
    }

    /// The same of a chain that is loaded already.
    pub(crate) fn of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, CertsError> {
        let wrong = |reason: &str| CertsError::Malformed { path: path.into(), reason: reason.into() };
        let leaf = chain.first().ok_or_else(|| wrong("it has no certificate"))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| wrong("its certificate is unreadable"))?;
        let names = parsed.subject_alternative_name().map_err(|_| wrong("its alternative names are unreadable"))?;
        let names = names.map(|names| names.value.general_names.iter().map(spell).collect()).unwrap_or_default();
        let fingerprint: Vec<_> = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            path: path.into(),
            subject: title(parsed.subject()),
            names,
            issuer: if parsed.subject() == parsed.issuer() { "itself".into() } else { title(parsed.issuer()) },
            from: parsed.validity().not_before.to_datetime(),
            until: parsed.validity().not_after.to_datetime(),
            fingerprint: fingerprint.concat(),
            length: chain.len(),
            shown: OffsetDateTime::now_utc(),
        })
    }
}

/// A block of aligned lines, without a line end after the last.
impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = match self.days_left() {
            _ if self.is_expired() => "EXPIRED".into(),
            days if self.is_due() => format!("{days} days left, RENEW NOW"),
            days => format!("{days} days left"),
        };
        writeln!(out, "{}", self.path.display())?;
        writeln!(out, "  subject      {}", self.subject)?;
        if !self.names.is_empty() {
            writeln!(out, "  names        {}", self.names.join(", "))?;
        }
        writeln!(out, "  issuer       {}", self.issuer)?;
        writeln!(out, "  valid        {} to {} UTC, {left}", stamp(self.from), stamp(self.until))?;
        if self.length > 1 {
            writeln!(out, "  chain        {} certificates", self.length)?;
        }
        write!(out, "  fingerprint  sha256:{}", self.fingerprint)
    }
}

/// All certificates of a PEM file, at least one.
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertsError> {
    let text = read(path, "issue it with adit-certs, or copy it from the folder that adit-certs wrote")?;
    let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let wrong = |reason: String| CertsError::Malformed { path: path.into(), reason };
    let chain = chain.map_err(|error| wrong(format!("it is not a PEM file ({error})")))?;
    if chain.is_empty() {
        return Err(wrong("it holds no PEM certificate (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(chain)
}

/// A moment to the minute, as a person writes it.
pub(crate) fn stamp(moment: OffsetDateTime) -> String {
    moment.format(format_description!("[year]-[month]-[day] [hour]:[minute]")).unwrap_or_else(|_| moment.to_string())
}

fn title(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

fn spell(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).into(),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(short), _) => IpAddr::from(short).to_string(),
            (_, Ok(long)) => IpAddr::from(long).to_string(),
            _ => format!("{bytes:?}"),
        },
        other => other.to_string(),
    }
}
