//! The program `adit-certs`, run as a person runs it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn adit_certs(arguments: &[&str], at: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adit-certs")).args(arguments).current_dir(at).output().unwrap()
}

fn succeeds(arguments: &[&str], at: &Path) -> String {
    let output = adit_certs(arguments, at);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(arguments: &[&str], at: &Path) -> String {
    let output = adit_certs(arguments, at);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const INIT: [&str; 6] = ["init", "--dir", "d", "--name", "relay.test", "127.0.0.1"];

#[test]
fn init_and_issue_write_the_documented_layout_with_private_keys() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(&INIT, at);
    succeeds(&["issue", "agent", "shop-7", "--dir", "d"], at);
    let d = at.join("d");
    assert_eq!(files(&d), ["agents", "authority", "relay"]);
    assert_eq!(files(&d.join("authority")), ["issuing.key", "issuing.pem", "root.key", "root.pem"]);
    assert_eq!(files(&d.join("relay")), ["ca.pem", "https.key", "https.pem", "tunnel.key", "tunnel.pem"]);
    assert_eq!(files(&d.join("agents/shop-7")), ["agent.key", "agent.pem", "ca.pem"]);
    for private in ["authority", "relay", "agents/shop-7"] {
        assert_eq!(mode(&d.join(private)), 0o700, "{private}");
        for name in files(&d.join(private)) {
            let expected = if name.ends_with(".key") { 0o600 } else { 0o644 };
            assert_eq!(mode(&d.join(private).join(&name)), expected, "{private}/{name}");
        }
    }
    let root = fs::read(d.join("authority/root.pem")).unwrap();
    assert_eq!(fs::read(d.join("relay/ca.pem")).unwrap(), root);
    assert_eq!(fs::read(d.join("agents/shop-7/ca.pem")).unwrap(), root);
}

#[test]
fn init_refuses_to_overwrite_and_force_keeps_the_old_authority() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(&INIT, at);
    let root = fs::read(at.join("d/authority/root.key")).unwrap();

    let message = fails(&INIT, at);
    assert!(message.contains("d/authority holds an authority already"), "{message}");
    assert!(message.contains("adit-certs issue relay") && message.contains("--force"), "{message}");
    assert_eq!(fs::read(at.join("d/authority/root.key")).unwrap(), root);

    succeeds(&[&INIT[..], &["--force"]].concat(), at);
    assert_ne!(fs::read(at.join("d/authority/root.key")).unwrap(), root);
    let aside = files(&at.join("d")).into_iter().find(|name| name.starts_with("authority.until-")).unwrap();
    assert_eq!(fs::read(at.join("d").join(aside).join("root.key")).unwrap(), root);
}

#[test]
fn issuing_needs_no_root_key_and_replaces_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(&INIT, at);
    fs::remove_file(at.join("d/authority/root.key")).unwrap();
    let before = fs::read(at.join("d/relay/tunnel.pem")).unwrap();
    succeeds(&["issue", "relay", "--dir", "d", "--name", "other.test"], at);
    assert_ne!(fs::read(at.join("d/relay/tunnel.pem")).unwrap(), before);
    succeeds(&["issue", "agent", "shop", "--dir", "d", "--out", "usb/shop"], at);
    assert_eq!(files(&at.join("usb/shop")), ["agent.key", "agent.pem", "ca.pem"]);
    assert!(!at.join("d/agents").exists());
}

#[test]
fn show_tells_who_for_what_by_whom_and_until_when() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(&INIT, at);
    succeeds(&["issue", "agent", "shop", "--dir", "d", "--days", "10"], at);
    let shown = succeeds(&["show", "--dir", "d"], at);
    let starts: Vec<_> = shown.lines().filter(|line| !line.starts_with(' ')).collect();
    let expected =
        ["authority/root.pem", "authority/issuing.pem", "relay/tunnel.pem", "relay/https.pem", "agents/shop/agent.pem"];
    assert_eq!(starts, expected.map(|name| format!("d/{name}")));
    for line in [
        "  names        relay.test, 127.0.0.1, adit://relay\n",
        "  names        relay.test, 127.0.0.1\n",
        "  names        adit://agent/shop\n",
        "  subject      adit agent shop\n",
        "  issuer       itself\n",
        "  chain        2 certificates\n",
        " UTC, 3651 days left\n",
        " UTC, 824 days left\n",
        " UTC, 9 days left, RENEW NOW\n",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    let one = succeeds(&["show", "d/agents/shop/agent.pem"], at);
    assert!(shown.ends_with(&one), "{one}");
    let print = one.lines().find_map(|line| line.strip_prefix("  fingerprint  sha256:")).unwrap();
    assert_eq!(print.len(), 64);
}

#[test]
fn mistakes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let message = fails(&["issue", "agent", "shop", "--dir", "d"], at);
    assert!(message.contains("d/authority/root.pem is not there") && message.contains("adit-certs init"), "{message}");
    assert!(fails(&["init", "--dir", "d", "--name", "https://relay"], at).contains("neither a DNS name nor an IP"));
    assert!(fails(&["show", "--dir", "d"], at).contains("adit-certs init"));
    assert!(fails(&["show", "gone.pem"], at).contains("gone.pem is not there"));
    succeeds(&INIT, at);
    let message = fails(&["issue", "agent", "../shop", "--dir", "d"], at);
    assert!(message.contains("is not an agent id"), "{message}");
    fs::write(at.join("d/authority/issuing.key"), fs::read(at.join("d/relay/https.key")).unwrap()).unwrap();
    let message = fails(&["issue", "agent", "shop", "--dir", "d"], at);
    assert!(message.contains("are not an issuing certificate and its key"), "{message}");
}

#[test]
fn help_shows_how_to_begin() {
    let folder = tempfile::tempdir().unwrap();
    let help = succeeds(&["--help"], folder.path());
    assert!(help.contains("adit-certs init --dir certs --name relay.example.org"), "{help}");
}
