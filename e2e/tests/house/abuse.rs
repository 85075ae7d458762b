//! What nobody should send. Each has a clear answer or a closed connection, everybody else goes on, and memory stays bounded.

use std::time::Duration;

use adit_e2e::{Answer, House, LIMIT, Plan, Version, pieces};
use adit_vision::image::digit_picture;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::ask::{get, infer_path, largest, raw, raw_body};

/// What the process may hold beyond what it held before.
const ROOM: usize = 200 << 20;

/// For those who send nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// A house of which the memory is known before the abuse.
struct Watched {
    house: House,
    before: usize,
}

impl Watched {
    async fn open() -> Result<Self> {
        let builder = House::builder().relay(|config| {
            config.front.handshake_timeout = PATIENCE;
            config.front.head_timeout = PATIENCE;
        });
        let house = builder.agent(Plan::new("box").digits()).alone().open().await?;
        let watched = Self { house, before: 0 };
        watched.others_go_on().await?;
        // From here on the high-water mark counts anew.
        std::fs::write("/proc/self/clear_refs", "5")?;
        Ok(Self { before: memory("VmRSS")?, ..watched })
    }

    /// Whether somebody else's request is answered, and rightly.
    async fn others_go_on(&self) -> Result<()> {
        for version in [Version::Http1, Version::Http2] {
            let answer = self.house.client(version).await?.ask(raw("digits", digit_picture(4)?)).await?;
            assert_eq!(largest(&answer.probabilities()?), 4, "{answer:?}");
        }
        Ok(())
    }

    async fn close(self) -> Result<()> {
        self.others_go_on().await?;
        let grown = memory("VmHWM")?.saturating_sub(self.before);
        println!("memory grew by {} MB at its height", grown >> 20);
        assert!(grown < ROOM, "{} MB", grown >> 20);
        assert!(self.house.close().await);
        Ok(())
    }
}

/// A line of the process's status, in bytes.
fn memory(name: &str) -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim_matches([':', '\t', ' ', 'k', 'B']).parse::<usize>()? << 10)
}

/// A PNG that claims these sides and has nothing inside.
fn hollow_png(side: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, body) in [(b"IHDR", &header[..]), (b"IDAT", b""), (b"IEND", b"")] {
        let chunk = [&kind[..], body].concat();
        file.extend_from_slice(&(body.len() as u32).to_be_bytes());
        file.extend_from_slice(&chunk);
        file.extend_from_slice(&crc(&chunk).to_be_bytes());
    }
    file
}

/// The checksum of PNG's chunks (ISO 3309).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Bytes without a meaning, the same in each run.
fn garbage(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// What comes until the other side closes, which it must.
async fn until_closed(mut stream: impl AsyncRead + Unpin) -> Result<String> {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = timeout(LIMIT, stream.read_to_end(&mut bytes)).await.context("it should have been closed")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[track_caller]
fn refused(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(!answer.error().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_picture_is_400() -> Result<()> {
    let watched = Watched::open().await?;
    // Cut in the middle of its quantisation table, as a broken upload is.
    let jpeg = [b"\xff\xd8\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xdb\x00\x43\0", &[16; 30][..]].concat();
    let mut png = digit_picture(5)?;
    png.truncate(png.len() / 2);
    let text = b"Dear classifier, what do you see?".to_vec();
    for version in [Version::Http1, Version::Http2] {
        let mut client = watched.house.client(version).await?;
        for file in [&jpeg, &png, &text, &hollow_png(20_000), &Vec::new(), &garbage(1, 5000)] {
            let answer = client.ask(raw("digits", file.clone())).await?;
            refused(&answer, StatusCode::BAD_REQUEST);
        }
        let large = client.ask(raw("digits", hollow_png(20_000))).await?.error()?;
        assert!(large.contains("20000"), "{large}");
    }
    watched.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_are_413() -> Result<()> {
    let watched = Watched::open().await?;
    let megabyte = Bytes::from(vec![7; 1 << 20]);
    let hundred = || pieces(Duration::ZERO, vec![megabyte.clone(); 100]);
    for version in [Version::Http1, Version::Http2] {
        let mut client = watched.house.client(version).await?;
        // Length unknown: it is taken until it is too much.
        let (answer, others) = tokio::join!(client.ask(raw_body("digits", hundred())), watched.others_go_on());
        others?;
        refused(&answer?, StatusCode::PAYLOAD_TOO_LARGE);
    }
    // Announced: nothing of it is taken.
    let mut client = watched.house.client(Version::Http2).await?;
    let mut request = raw_body("digits", hundred());
    request.headers_mut().insert("content-length", (100 << 20).into());
    refused(&client.ask(request).await?, StatusCode::PAYLOAD_TOO_LARGE);
    watched.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_headers_are_431() -> Result<()> {
    let watched = Watched::open().await?;
    let mut client = watched.house.client(Version::Http2).await?;
    let mut request = get("/v2");
    for number in 0..10_000 {
        let name: http::HeaderName = format!("x-{number}").parse()?;
        request.headers_mut().insert(name, number.into());
    }
    refused(&client.ask(request).await?, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

    let fields: String = (0..10_000).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let mut stream = watched.house.tls("http/1.1").await?;
    // It may have been answered and closed before all is written.
    let _ = stream.write_all(format!("GET /v2 HTTP/1.1\r\nhost: house\r\n{fields}\r\n").as_bytes()).await;
    let text = until_closed(stream).await?;
    assert!(text.starts_with("HTTP/1.1 431 ") && text.contains("{\"error\":"), "{text}");
    watched.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_ports_is_nobodys_trouble() -> Result<()> {
    let watched = Watched::open().await?;
    let addresses = watched.house.relay().addresses().clone();
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    for seed in 0..500 {
        let mut datagram = garbage(seed, 1200);
        if seed % 2 == 0 {
            // A long header of QUIC version 1, so that more than its first byte is looked at.
            datagram[..6].copy_from_slice(&[0xc0 | (seed as u8 & 0x3f), 0, 0, 0, 1, 8]);
            datagram[14] = 8;
        }
        socket.send_to(&datagram, addresses.tunnel).await?;
    }
    for seed in 0..20 {
        let mut stream = TcpStream::connect(addresses.https).await?;
        let _ = stream.write_all(&garbage(seed, 4000)).await;
        until_closed(stream).await?;
        // After a good handshake, too.
        for alpn in ["http/1.1", "h2"] {
            let mut stream = watched.house.tls(alpn).await?;
            let _ = stream.write_all(&garbage(seed, 4000)).await;
            let text = until_closed(stream).await?;
            assert!(alpn == "h2" || text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
        }
    }
    // The agent's tunnel is still the one that it dialled at first.
    assert_eq!(watched.house.relay_metric("adit_relay_sessions_total").await?, 1.0);
    watched.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_in_the_middle_is_closed_and_holds_up_nobody() -> Result<()> {
    let watched = Watched::open().await?;
    let mut held: Vec<Box<dyn AsyncRead + Unpin>> = Vec::new();
    for _ in 0..50 {
        // The beginning of a handshake: a record of 512 bytes, of which a few come.
        let mut half = TcpStream::connect(watched.house.relay().addresses().https).await?;
        half.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await?;
        held.push(Box::new(half));
        let mut loris = watched.house.tls("http/1.1").await?;
        loris.write_all(format!("POST {} HTTP/1.1\r\nhost: hou", infer_path("digits")).as_bytes()).await?;
        held.push(Box::new(loris));
    }
    watched.others_go_on().await?;
    for stream in held {
        let text = until_closed(stream).await?;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{text}");
    }
    watched.close().await
}
