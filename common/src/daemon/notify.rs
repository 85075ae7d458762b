//! Tells the service manager how the program is: ready, stopping, alive.
//!
//! The protocol is systemd's: a datagram of `KEY=value` lines to the socket that `NOTIFY_SOCKET` names. Without that
//! variable every call does nothing, so a program says the same things when it is started by hand. A message that cannot be
//! sent is logged and never an error: a deaf service manager is no reason to stop answering requests.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Why the service manager cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The address is neither a path nor an abstract name.
    #[error("NOTIFY_SOCKET is {0:?}, neither a path nor an abstract name such as \"@name\"")]
    Address(OsString),
    /// The socket cannot be made.
    #[error("cannot make a socket for NOTIFY_SOCKET")]
    Socket(#[source] io::Error),
}

/// The way to the service manager; does nothing where there is none.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` through `lookup`, which `main.rs` makes of its environment:
    /// `Notifier::from_environment(|name| std::env::var_os(name))`.
    pub fn from_environment(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, NotifyError> {
        let Some(address) = lookup("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Ok(Self::default());
        };
        let bytes = address.as_bytes();
        let resolved = match bytes {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(&address),
            _ => return Err(NotifyError::Address(address)),
        };
        let peer = resolved.map_err(|_| NotifyError::Address(address))?;
        let socket = UnixDatagram::unbound().map_err(NotifyError::Socket)?;
        // A service manager that does not read must not hold up the program.
        socket.set_nonblocking(true).map_err(NotifyError::Socket)?;
        Ok(Self { socket: Some((socket, peer)), watchdog: watchdog(lookup) })
    }

    /// The program answers requests from now on.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The program is draining.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        // A line break would start another assignment.
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.send(&format!("STATUS={line}"));
    }

    /// How long the service manager waits for a sign of life before it kills the program; `None` if it does not.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// How often to call [`Notifier::alive`]: half the watchdog's time, as systemd advises, so that one late call is forgiven.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// A sign of life. Call it only after the program has shown that it can still do its work.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some((socket, peer)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), peer) {
            tracing::warn!(%error, message, "cannot tell the service manager");
        }
    }
}

/// The watchdog's time, if it is set and meant for this process.
fn watchdog(lookup: impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name: &str| lookup(name)?.to_str()?.parse::<u64>().ok();
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0)?;
    // A parent's watchdog is inherited with its environment; WATCHDOG_PID says whose it is.
    let mine = lookup("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
    mine.then_some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: Vec<(&'static str, OsString)>) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_file_receives_the_programs_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::from_environment(environment(vec![
            ("NOTIFY_SOCKET", path.into()),
            ("WATCHDOG_USEC", "10000000".into()),
            ("WATCHDOG_PID", std::process::id().to_string().into()),
        ]))
        .unwrap();
        notifier.ready();
        notifier.status("3 sessions\nSTOPPING=1");
        notifier.alive();
        notifier.stopping();
        let said: Vec<_> = (0..4).map(|_| receive(&manager)).collect();
        assert_eq!(said, ["READY=1", "STATUS=3 sessions STOPPING=1", "WATCHDOG=1", "STOPPING=1"]);
        assert_eq!(notifier.watchdog(), Some(Duration::from_secs(10)));
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_abstract_socket_receives_too() {
        let name = format!("adit-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let address = format!("@{name}").into();
        let notifier = Notifier::from_environment(environment(vec![("NOTIFY_SOCKET", address)])).unwrap();
        notifier.ready();
        assert_eq!(receive(&manager), "READY=1");
        assert_eq!(notifier.watchdog(), None);
    }

    #[test]
    fn no_manager_a_deaf_one_and_a_gone_one_hurt_nobody() {
        Notifier::from_environment(environment(vec![])).unwrap().ready();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::from_environment(environment(vec![("NOTIFY_SOCKET", path.into())])).unwrap();
        // Far more than the kernel queues for a socket that nobody reads: would block for ever if it could.
        (0..10_000).for_each(|_| notifier.alive());
        drop(manager);
        notifier.stopping();
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let other = environment(vec![
            ("NOTIFY_SOCKET", "/nowhere".into()),
            ("WATCHDOG_USEC", "10000000".into()),
            ("WATCHDOG_PID", "1".into()),
        ]);
        assert_eq!(Notifier::from_environment(other).unwrap().watchdog(), None);
        for nonsense in ["", "0", "-5", "soon"] {
            let lookup = environment(vec![("NOTIFY_SOCKET", "/nowhere".into()), ("WATCHDOG_USEC", nonsense.into())]);
            assert_eq!(Notifier::from_environment(lookup).unwrap().watchdog(), None, "{nonsense}");
        }
    }

    #[test]
    fn an_address_that_is_no_socket_is_refused() {
        let error =
            Notifier::from_environment(environment(vec![("NOTIFY_SOCKET", "vsock:2:1234".into())])).unwrap_err();
        assert!(error.to_string().contains("vsock:2:1234"), "{error}");
    }
}
