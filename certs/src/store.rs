//! The folder of an authority, and the bundles of files that the programs load from it.
//!
//! The layout is in the crate's door. A program knows its bundle only, as paths: they may lie in a folder that was
//! copied from here, in systemd's credentials, or anywhere else.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use adit_common::id::AgentId;
use time::OffsetDateTime;

use crate::authority::{Authority, RelayName, Validity};
use crate::error::CertsError;
use crate::files::{private_folder, read, write_private, write_public};
use crate::inspect::stamp;
use crate::request::Request;

/// The files of one end of a connection: certificate chain, its key, and the authority that the peer must belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The certificate chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The certificates of the authority, PEM.
    pub ca: PathBuf,
}

impl Bundle {
    /// The relay's end of tunnels, in a folder as `adit-certs` writes it: `tunnel.pem`, `tunnel.key`, `ca.pem`.
    pub fn relay(folder: &Path) -> Self {
        Self::named(folder, "tunnel")
    }

    /// The relay's HTTPS front: `https.pem`, `https.key`, `ca.pem`.
    pub fn https(folder: &Path) -> Self {
        Self::named(folder, "https")
    }

    /// An agent's end of its tunnels: `agent.pem`, `agent.key`, `ca.pem`.
    pub fn agent(folder: &Path) -> Self {
        Self::named(folder, "agent")
    }

    fn named(folder: &Path, name: &str) -> Self {
        Self {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
            ca: folder.join("ca.pem"),
        }
    }

    // The key first: should the power fail between the two, the mismatch is noticed at the next start and both are
    // issued again, while a certificate without its key would look whole.
    fn write(&self, chain: &str, key: &str, ca: &str) -> Result<(), CertsError> {
        write_private(&self.key, key)?;
        write_public(&self.certificate, chain)?;
        write_public(&self.ca, ca)
    }
}

/// A folder that holds an authority and what it has issued.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store in a folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Makes an authority and the relay's certificates for these names. Refuses where an authority is, unless `replace`:
    /// then the old one is moved aside, to `authority.until-MOMENT`, and returned as a path.
    pub fn init(&self, names: &[RelayName], validity: Validity, replace: bool) -> Result<Option<PathBuf>, CertsError> {
        let place = self.authority_folder();
        let exists = fs::symlink_metadata(&place).is_ok();
        if exists && !replace {
            return Err(CertsError::AuthorityExists { path: place });
        }
        let authority = Authority::create()?;
        private_folder(&self.folder)?;
        // Made beside its place and moved there whole: an authority is never half there.
        let written = |source| CertsError::Write { path: place.clone(), source };
        let draft = tempfile::Builder::new().prefix(".authority-").tempdir_in(&self.folder).map_err(written)?;
        private_folder(draft.path())?;
        if let Some(key) = authority.root_key_pem() {
            write_private(&draft.path().join("root.key"), &key)?;
        }
        write_public(&draft.path().join("root.pem"), authority.root_pem())?;
        write_private(&draft.path().join("issuing.key"), &authority.issuing_key_pem())?;
        write_public(&draft.path().join("issuing.pem"), authority.issuing_pem())?;
        let aside = exists.then(|| {
            let moment: String = stamp(OffsetDateTime::now_utc()).chars().filter(char::is_ascii_digit).collect();
            self.folder.join(format!("authority.until-{moment}"))
        });
        if let Some(aside) = &aside {
            fs::rename(&place, aside).map_err(written)?;
        }
        fs::rename(draft.path(), &place).map_err(written)?;
        // The draft is at its place now; there is nothing left to remove.
        let _ = draft.keep();
        self.issue_relay(names, validity, &self.relay_folder())?;
        Ok(aside)
    }

    /// Opens the authority to sign with it. The root's key may be absent.
    pub fn authority(&self) -> Result<Authority, CertsError> {
        const REMEDY: &str = "make an authority with adit-certs init, or point --dir to the folder that has one";
        let folder = self.authority_folder();
        let text = |name: &str| read(&folder.join(name), REMEDY);
        let (root, issuing, key) = (text("root.pem")?, text("issuing.pem")?, text("issuing.key")?);
        Authority::restore(&root, &issuing, &key).map_err(|error| CertsError::Malformed {
            path: folder.join("issuing.pem"),
            reason: format!("it and issuing.key are not an issuing certificate and its key ({error})"),
        })
    }

    /// Issues new tunnel and HTTPS certificates for a relay with these names, into `folder`.
    pub fn issue_relay(&self, names: &[RelayName], validity: Validity, folder: &Path) -> Result<(), CertsError> {
        let authority = self.authority()?;
        private_folder(folder)?;
        let (tunnel, https) = (authority.issue_tunnel(names, validity)?, authority.issue_https(names, validity)?);
        Bundle::relay(folder).write(&tunnel.chain, &tunnel.key, authority.root_pem())?;
        Bundle::https(folder).write(&https.chain, &https.key, authority.root_pem())
    }

    /// Issues a certificate with a new key for an agent, into `folder`.
    pub fn issue_agent(&self, agent: &AgentId, validity: Validity, folder: &Path) -> Result<(), CertsError> {
        let authority = self.authority()?;
        private_folder(folder)?;
        let request = Request::new(agent)?;
        let chain = authority.sign_agent(request.pem(), agent, validity)?;
        Bundle::agent(folder).write(&chain, &request.key_pem(), authority.root_pem())
    }

    /// Where the relay's files are: `relay/`.
    pub fn relay_folder(&self) -> PathBuf {
        self.folder.join("relay")
    }

    /// Where an agent's files are: `agents/NAME/`.
    pub fn agent_folder(&self, agent: &AgentId) -> PathBuf {
        self.folder.join("agents").join(agent.as_str())
    }

    /// Every certificate file of the store: the authority's, the relay's, then the agents' by name.
    pub fn certificates(&self) -> Result<Vec<PathBuf>, CertsError> {
        let (authority, relay) = (self.authority_folder(), self.relay_folder());
        let mut found = vec![authority.join("root.pem"), authority.join("issuing.pem")];
        found.extend([Bundle::relay(&relay).certificate, Bundle::https(&relay).certificate]);
        let agents = self.folder.join("agents");
        let unreadable = |source| CertsError::Read { path: agents.clone(), source };
        let mut folders = match fs::read_dir(&agents) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(unreadable)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(unreadable(source)),
        };
        folders.sort_by_key(fs::DirEntry::file_name);
        found.extend(folders.iter().map(|folder| Bundle::agent(&folder.path()).certificate));
        found.retain(|path| path.exists());
        if found.is_empty() {
            return Err(CertsError::Missing {
                path: authority,
                remedy: "make an authority with adit-certs init, or name certificate files",
            });
        }
        Ok(found)
    }

    fn authority_folder(&self) -> PathBuf {
        self.folder.join("authority")
    }
}
