//! What clients cannot do: be endless, be slow, be in the way of others.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::agent::Does;
use crate::house::{House, INFER, SOON, Version, full, request, with};
use crate::streams;

/// The body of a raw answer, which must be an error that a library can read.
fn error(text: &str) -> String {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    assert!(head.contains("content-type: application/json"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{text:?}"));
    body["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_hundred_megabytes_are_413_before_they_are_sent_and_after_the_limit() {
    let house = House::with(|config| config.front.max_body = 1 << 20);
    let _agent = house.agent("one", Does::echoes()).await;
    // The whole body is pushed regardless of the answer, which must arrive all the same.
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nhost: relay.test\r\nx-api-key: {}\r\ncontent-length: 100000000\r\n\r\n",
        house.key
    );
    let mut stream = house.tls("http/1.1").await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let push = async {
        let piece = vec![0; 1 << 20];
        for _ in 0..100 {
            if writer.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    let mut text = Vec::new();
    let read =
        async { tokio::time::timeout(SOON, reader.read_to_end(&mut text)).await.expect("it should have closed") };
    let _ = tokio::join!(push, read);
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    assert!(error(&text).contains("1MiB"), "{text}");

    for version in [Version::Http1, Version::Http2] {
        let mut client = house.client(version).await;
        let answer = client.ask(request(Method::POST, INFER, Some(&house.key), full(vec![0; 2 << 20]))).await;
        assert_eq!(answer.status, 413, "{version:?}");
        answer.error();
    }
    assert_eq!(house.infer().await.status, 200);
}

#[tokio::test]
async fn a_refused_upload_is_read_on_so_that_its_sender_hears_why() {
    let house = House::new();
    let (sender, body) = streams::channel();
    let mut client = house.client(Version::Http2).await;
    sender.send("beginning").await;
    let answer = client.ask(request(Method::POST, INFER, None, body)).await;
    assert_eq!(answer.status, 401);
    // A reset would have dropped the body by now, and curl, busy with sending, would have seen nothing else.
    for _ in 0..10 {
        sender.send("more").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_body_that_says_no_length_is_413_when_it_passes_the_limit() {
    let house = House::with(|config| config.front.max_body = 1000);
    let reads = Does::new(|request| async move {
        use http_body_util::BodyExt as _;
        let _ = request.into_body().collect().await;
        std::future::pending().await
    });
    let _agent = house.agent("one", reads).await;
    for version in [Version::Http1, Version::Http2] {
        let (sender, body) = streams::channel();
        let mut client = house.client(version).await;
        let (answer, ()) = tokio::join!(client.ask(request(Method::POST, INFER, Some(&house.key), body)), async {
            const PIECE: &str = "0123456789012345678901234567890123456789012345678901234567890123456789";
            for _ in 0..16 {
                sender.send(PIECE).await;
            }
        });
        assert_eq!(answer.status, 413, "{version:?}");
        answer.error();
    }
}

#[tokio::test]
async fn ten_thousand_headers_are_431_with_a_body_that_says_so() {
    let house = House::new();
    let _agent = house.agent("one", Does::says("answer")).await;
    let fields: String = (0..10_000).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let text = house.raw(format!("GET /v2 HTTP/1.1\r\nhost: relay.test\r\n{fields}\r\n").as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    assert!(error(&text).contains("too large or has too many fields"), "{text}");
    let fields: String = (0..101).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let text = house.raw(format!("GET /v2 HTTP/1.1\r\nhost: relay.test\r\n{fields}\r\n").as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");

    let mut client = house.client(Version::Http2).await;
    let mut many = request(Method::GET, "/v2", Some(&house.key), full(""));
    for number in 0..10_000 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        many.headers_mut().insert(name, number.into());
    }
    let answer = client.ask(many).await;
    assert_eq!(answer.status, 431);
    answer.error();
    let mut large = request(Method::GET, "/v2", Some(&house.key), full(""));
    with(&mut large, "x-large", &"a".repeat(70_000));
    let answer = client.ask(large).await;
    assert_eq!(answer.status, 431);
    assert!(answer.error().contains("64KiB"));
    assert_eq!(client.ask(request(Method::GET, "/v2", Some(&house.key), full(""))).await.status, 200);
}

#[tokio::test]
async fn what_is_not_http_is_400_with_a_body_that_says_so() {
    let house = House::new();
    let _agent = house.agent("one", Does::says("answer")).await;
    for bytes in ["nonsense\r\n\r\n", "GET /v2 HTTP/1.1\r\nno colon\r\n\r\n", "GET /v2 HTTP/1.1\r\n\r\n"] {
        let bytes = bytes.replace("\r\n\r\n", &format!("\r\nx-api-key: {}\r\nconnection: close\r\n\r\n", house.key));
        let text = house.raw(bytes.as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        error(&text);
    }
    assert_eq!(house.infer().await.status, 200);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let house = House::with(|config| config.front.body_timeout = Duration::from_millis(200));
    let _agent = house.agent("one", Does::new(|_| std::future::pending())).await;
    for version in [Version::Http1, Version::Http2] {
        let (sender, body) = streams::channel();
        sender.send("beginning").await;
        let answer = house.client(version).await.ask(request(Method::POST, INFER, Some(&house.key), body)).await;
        assert_eq!(answer.status, 408, "{version:?}");
        assert!(answer.error().contains("200ms"));
    }
    // That says nothing against the agent.
    assert_eq!(house.metric("adit_relay_agent_ejected{agent=\"one\"}").await, 0.0);
}

#[tokio::test]
async fn a_body_that_trickles_past_the_budget_is_the_clients_408_not_504() {
    let house = House::with(|config| config.proxy.timeout = Duration::from_millis(300));
    let _agent = house.agent("one", Does::new(|_| std::future::pending())).await;
    let (sender, body) = streams::channel();
    let mut client = house.client(Version::Http1).await;
    let trickle = async {
        loop {
            sender.send("drop").await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let answer = tokio::select! {
        answer = client.ask(request(Method::POST, INFER, Some(&house.key), body)) => answer,
        () = trickle => unreachable!(),
    };
    assert_eq!(answer.status, 408);
}

#[tokio::test]
async fn silent_clients_are_closed_and_hold_up_nobody() {
    let house = House::with(|config| {
        config.front.handshake_timeout = Duration::from_millis(300);
        config.front.head_timeout = Duration::from_millis(300);
        config.front.idle_timeout = Duration::from_millis(300);
    });
    let _agent = house.agent("one", Does::says("answer")).await;
    let silent = TcpStream::connect(house.relay.addresses().https).await.unwrap();
    let mut loris = house.tls("http/1.1").await;
    loris.write_all(b"GET /v2 HTTP/1.1\r\nhost: rel").await.unwrap();
    let mut idle = house.client(Version::Http2).await;
    assert_eq!(idle.ask(request(Method::GET, "/v2", Some(&house.key), full(""))).await.status, 200);
    for mut stream in [Box::new(silent) as Box<dyn tokio::io::AsyncRead + Unpin>, Box::new(loris)] {
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("it should have been closed");
    }
    let closed = async {
        while idle.start(request(Method::GET, "/v2", Some(&house.key), full(""))).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
    };
    tokio::time::timeout(SOON, closed).await.expect("an idle connection should have been closed");
    assert_eq!(house.metric("adit_relay_handshakes_failed_total").await, 1.0);
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let house = House::with(|config| config.front.max_connections = 1);
    let _agent = house.agent("one", Does::says("answer")).await;
    let mut first = house.client(Version::Http1).await;
    assert_eq!(first.ask(request(Method::GET, "/v2", Some(&house.key), full(""))).await.status, 200);
    let mut second = TcpStream::connect(house.relay.addresses().https).await.unwrap();
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(SOON, second.read_to_end(&mut bytes)).await.expect("it should have been closed");
    assert_eq!(house.metric("adit_relay_connections_refused_total").await, 1.0);
    assert_eq!(first.ask(request(Method::GET, "/v2", Some(&house.key), full(""))).await.status, 200);
}

#[tokio::test]
async fn garbage_on_the_tunnels_port_costs_nobody_anything() {
    let house = House::new();
    let _agent = house.agent("one", Does::says("answer")).await;
    let relay = house.relay.addresses().tunnel;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for round in 0..200_u32 {
        let mut bytes: Vec<u8> = (0..1200).map(|_| rand::random()).collect();
        if round % 2 == 0 {
            // A long header of QUIC version 1, so that more than its first byte is looked at.
            bytes[..5].copy_from_slice(&[0xc0 | (round as u8 & 0x3f), 0, 0, 0, 1]);
            bytes[5] = 8;
            bytes[14] = 8;
        }
        socket.send_to(&bytes, relay).await.unwrap();
    }
    assert_eq!(house.infer().await.status, 200);
    house.agent("two", Does::says("answer")).await;
}
