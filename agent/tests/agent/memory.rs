//! What one picture can make an agent hold: the program itself, a process for each picture, asked over its local listener.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::house::{Answer, LIMIT, ask, one};

/// What a process may hold at its height.
const ROOM: u64 = 300 << 20;

/// An agent with the digits model, in a process of its own; killed when it is dropped.
struct Agent {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Agent {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free a moment ago; whoever takes it in between fails the test loudly.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = folder.path().join("agent.toml");
        fs::write(&config, format!("[local]\nlisten = \"{address}\"\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit-agent"));
        command.args(["run", "--config"]).arg(config).stderr(Stdio::null());
        let agent = Self { child: command.spawn().unwrap(), address, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() || agent.reads_a_digit().await.is_none() {
            assert!(begun.elapsed() < LIMIT, "it does not serve");
            sleep(Duration::from_millis(5)).await;
        }
        agent
    }

    async fn photo(&self, image: impl Into<Bytes>) -> Answer {
        ask(self.address, Request::post("/photo").body(image.into()).unwrap()).await
    }

    async fn reads_a_digit(&self) -> Option<()> {
        let answer = self.photo(one()).await;
        (answer.status == StatusCode::OK && answer.json()["inference"].to_string().contains("Class = 1")).then_some(())
    }

    /// The most that it has held so far, in bytes.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A few hundred bytes that promise as many pixels as are taken, and then end: 8-bit RGB.
fn largest_png() -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&8192u32.to_be_bytes()[..], &6000u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, body) in [(b"IHDR", &header[..]), (b"IDAT", &[0x78, 0x9c]), (b"IEND", b"")] {
        let chunk = [&kind[..], body].concat();
        let crc = !chunk.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        file.extend_from_slice(&(body.len() as u32).to_be_bytes());
        file.extend_from_slice(&chunk);
        file.extend_from_slice(&crc.to_be_bytes());
    }
    file
}

async fn hold(name: &str, image: Vec<u8>) {
    let agent = Agent::start().await;
    let before = agent.peak();
    let answer = agent.photo(image).await;
    assert!(answer.status == StatusCode::OK || answer.status.is_client_error(), "{name}: {answer:?}");
    assert!(answer.status == StatusCode::OK || !answer.error().is_empty());
    let peak = agent.peak();
    assert!(agent.reads_a_digit().await.is_some(), "{name}: it serves no longer");
    println!("{name}: {}, {} MB at its height, {} MB before", answer.status, peak >> 20, before >> 20);
    assert!(peak < ROOM, "{name}: {peak} bytes");
}

#[tokio::test]
async fn no_bad_picture_makes_an_agent_large() {
    hold("a promise of 49 megapixels", largest_png()).await;
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/images/bad");
    if !folder.is_dir() {
        println!("skipped: ../shared/data is not there");
        return;
    }
    let mut bad: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    bad.sort();
    assert_eq!(bad.len(), 12, "{bad:?}");
    for path in bad {
        hold(&path.file_name().unwrap().to_string_lossy(), fs::read(&path).unwrap()).await;
    }
}
