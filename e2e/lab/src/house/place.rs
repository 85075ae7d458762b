//! What a peer is told about the lab that it is started in.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::addresses::{RELAY_IN, SERVER_PORT, TUNNEL_PORT, plain_port};

/// The relay's name. Agent N's server is asked for as `aN.` below it.
pub(super) const RELAY_NAME: &str = "relay.test";

/// A program with its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
}

impl Launch {
    /// The program with the words of `arguments`, which themselves hold no blanks.
    pub(crate) fn new(program: PathBuf, arguments: &str) -> Self {
        let arguments = arguments.split_whitespace().map(Into::into).collect();
        Self { program, arguments, environment: Vec::new() }
    }

    /// One argument more, as it is.
    pub(crate) fn and(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Run by another program, which takes it as its last arguments.
    pub(super) fn through(self, program: PathBuf, first: &[&str]) -> Self {
        let own = std::iter::once(self.program.into_os_string()).chain(self.arguments);
        let arguments = first.iter().map(Into::into).chain(own).collect();
        Self { program, arguments, environment: self.environment }
    }

    /// A variable of its environment, which is otherwise nearly empty.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }
}

/// The lab as a peer sees it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// A folder for files, the same for every lab of a run; nothing is in it that the run did not put there.
    pub(crate) folder: PathBuf,
    /// Where programs are looked for.
    pub(crate) search: Vec<PathBuf>,
    /// How long `/infer` is going to take in this lab, in microseconds.
    pub(crate) service_us: u64,
    /// How many agents there will be.
    pub(crate) agents: usize,
}

impl Place {
    /// Where agents dial.
    pub(crate) fn tunnel(&self) -> SocketAddr {
        SocketAddr::from((RELAY_IN, TUNNEL_PORT))
    }

    /// The server, as its agent sees it.
    pub(crate) fn server(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], SERVER_PORT))
    }

    /// The host of an agent's server.
    pub(crate) fn host(&self, agent: usize) -> String {
        format!("a{agent}.{RELAY_NAME}")
    }

    /// The relay's name.
    pub(crate) fn name(&self) -> &'static str {
        RELAY_NAME
    }

    /// A file of the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file of the folder, and says where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A program, or why it cannot be run.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        find_program(name, &self.search).with_context(|| format!("there is no {name}"))
    }
}

/// The first file of that name.
pub(super) fn find_program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// A way of reaching a server behind a firewall. What it needs to know of a lab is its place.
pub(crate) trait Peer {
    /// What it is called in records and tables.
    fn name(&self) -> String;

    /// Which programs it needs, by name.
    fn programs(&self) -> Vec<&'static str>;

    /// How one comes by them.
    fn install(&self) -> &'static str;

    /// Whether its relay does TLS itself, on the HTTPS port; else haproxy does, in front of `target`.
    fn has_front(&self) -> bool {
        false
    }

    /// How many agents it can carry at a time, with a server each.
    fn most_agents(&self) -> usize {
        50
    }

    /// Writes what its programs read: keys, configurations.
    fn prepare(&self, place: &Place) -> anyhow::Result<()> {
        let _ = place;
        Ok(())
    }

    /// What runs at the public end.
    fn relay(&self, place: &Place) -> anyhow::Result<Vec<Launch>>;

    /// What runs behind the firewall.
    fn agent(&self, place: &Place, number: usize) -> anyhow::Result<Vec<Launch>>;

    /// Where haproxy finds an agent's server.
    fn target(&self, number: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], plain_port(number)))
    }

    /// Whose certificates clients trust.
    fn authority(&self, place: &Place) -> PathBuf {
        place.file("ca.pem")
    }

    /// What has to be asked to get what the stand-in answers under `path`; none if it cannot be had.
    fn path(&self, path: &str) -> Option<String> {
        Some(path.into())
    }
}
