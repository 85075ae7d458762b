//! What can go wrong with a certificate, a key or a folder of them.
//!
//! Whoever reads these messages is installing or repairing a machine: each names the file and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why an identity could not be made, stored, loaded or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// A file that should be there is not.
    #[error("{} is not there: {remedy}", path.display())]
    Missing {
        /// The file looked for.
        path: PathBuf,
        /// How it comes into being.
        remedy: &'static str,
    },
    /// A file or folder is there but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file is there, but it is not what its name promises.
    #[error("{} is not usable: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what it should be.
        reason: String,
    },
    /// The private key is not the one that the certificate was issued for.
    #[error(
        "{} does not belong to {}: copy both from the same folder, or issue them again with adit-certs",
        key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The certificate chain.
        certificate: PathBuf,
        /// The key that does not fit it.
        key: PathBuf,
    },
    /// The certificate's time is over.
    #[error("{} expired on {until}: issue a new one with adit-certs issue", path.display())]
    Expired {
        /// The certificate chain.
        path: PathBuf,
        /// The end of its validity, UTC.
        until: String,
    },
    /// The certificate's time has not begun, which is nearly always a clock that is wrong.
    #[error("{} is valid from {from}, which is in the future here: check this machine's clock", path.display())]
    NotYetValid {
        /// The certificate chain.
        path: PathBuf,
        /// The beginning of its validity, UTC.
        from: String,
    },
    /// A new authority would orphan every certificate of the old one.
    #[error(
        "{} holds an authority already: for new relay certificates run adit-certs issue relay; with --force a new \
         authority takes its place, and then every agent must be issued again",
        path.display()
    )]
    AuthorityExists {
        /// The folder of the existing authority.
        path: PathBuf,
    },
    /// A name for the relay is neither a DNS name nor an IP address.
    #[error("{text:?} is neither a DNS name nor an IP address")]
    Name {
        /// The text as it was given.
        text: String,
    },
    /// A certificate carries no identity of this house, or not exactly one.
    #[error("the certificate does not say who it is: {reason}")]
    Identity {
        /// What was found instead.
        reason: String,
    },
    /// A certificate is of this authority, but its holder is not who may stand at this end of a tunnel.
    #[error("the peer is {found}, but only {wanted} may be at that end of a tunnel")]
    Role {
        /// Who the certificate says it is.
        found: String,
        /// Who may be there.
        wanted: &'static str,
    },
    /// A certificate or signing request could not be made or read.
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
    /// The TLS library refuses what it was given.
    #[error("TLS refuses the certificates")]
    Tls(#[from] rustls::Error),
}
