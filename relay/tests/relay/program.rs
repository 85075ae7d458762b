//! The program itself: keys, check, and its life under a service manager.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::house::relay_folder;

fn adit_relay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adit-relay")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Ends with its test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let keys = file.to_str().unwrap();
    let made = adit_relay(&["key", "new", "shop", "--scope", "infer", "--scope", "control", "--keys", keys]);
    let key = text(&made.stdout);
    assert!(made.status.success() && key.starts_with("adit_shop_") && key.lines().count() == 1, "{made:?}");
    let listed = text(&adit_relay(&["key", "list", "--keys", keys]).stdout);
    assert!(listed.contains("shop") && listed.contains("infer,control"), "{listed}");
    let twice = adit_relay(&["key", "new", "shop", "--keys", keys]);
    assert!(!twice.status.success() && text(&twice.stderr).contains("already"), "{twice:?}");
    assert!(adit_relay(&["key", "revoke", "shop", "--keys", keys]).status.success());
    assert!(text(&adit_relay(&["key", "list", "--keys", keys]).stdout).is_empty());
}

#[test]
fn check_points_at_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (file, tls) = (folder.path().join("relay.toml"), relay_folder());
    let check = || {
        let folder = folder.path().to_str().unwrap();
        let arguments = ["check", "--config", file.to_str().unwrap(), "--tls-dir", tls.to_str().unwrap()];
        adit_relay(&[&arguments[..], &["--state-dir", folder]].concat())
    };
    std::fs::write(&file, "[front]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    assert!(check().status.success(), "{:?}", check());
    std::fs::write(&file, "[front]\nlissten = \"127.0.0.1:0\"\n").unwrap();
    let wrong = text(&check().stderr);
    assert!(wrong.contains("relay.toml:2:1") && wrong.contains("did you mean `listen`"), "{wrong}");
    std::fs::write(&file, "[front]\ncertificate = \"other.pem\"\n").unwrap();
    let wrong = text(&check().stderr);
    assert!(wrong.contains("other.pem"), "{wrong}");
}

#[test]
fn a_wrong_configuration_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let code = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let tls = folder.path().to_str().unwrap();
        adit_relay(&["run", "--config", file.to_str().unwrap(), "--tls-dir", tls]).status.code()
    };
    assert_eq!(code("[front]\nlissten = 1\n"), Some(78), "a key that there is not");
    // Certificates may yet be put there: to start again can help.
    assert_eq!(code("[front]\nlisten = \"127.0.0.1:0\"\n"), Some(1), "no certificates");
}

#[test]
fn a_service_manager_is_told_of_its_life() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let config = folder.path().join("relay.toml");
    let any = "listen = \"127.0.0.1:0\"";
    std::fs::write(&config, format!("state = \".\"\n[front]\n{any}\n[tunnel]\n{any}\n[admin]\n{any}\n")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_adit-relay"))
        .args(["run", "--config", config.to_str().unwrap(), "--tls-dir", relay_folder().to_str().unwrap()])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut buffer = [0; 512];
    let mut hear = |wanted: &str| {
        for _ in 0..100 {
            let length = manager.recv(&mut buffer).unwrap_or_else(|_| panic!("never heard {wanted}"));
            if buffer[..length] == *wanted.as_bytes() {
                return;
            }
        }
        panic!("never heard {wanted}");
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    assert!(folder.path().join("reset.key").exists(), "the reset key outlives the process");
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    hear("STOPPING=1");
    assert!(running.0.wait().unwrap().success());
}
