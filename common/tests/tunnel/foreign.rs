//! The `h3` crate at the other end, in both roles: what we write others read, and the reverse.

use adit_common::tunnel::{Session, SessionLimits, TunnelBody};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};

use crate::pair::Pair;

const SIZES: [usize; 4] = [0, 1, 20_000, 1_000_000];

fn body(size: usize) -> Bytes {
    (0..size).map(|byte| (byte * 7 % 253) as u8).collect::<Vec<_>>().into()
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("server-timing", "total;dur=1.5".parse().unwrap());
    trailers
}

#[tokio::test]
async fn our_caller_speaks_to_an_h3_server() {
    let pair = Pair::new().await;
    let relay = Session::new(pair.relay.clone(), SessionLimits::default());
    let running = relay.clone();
    tokio::spawn(async move { running.run().await });
    let agent = h3_quinn::Connection::new(pair.agent.clone());
    let server = tokio::spawn(async move {
        let mut server = h3::server::Connection::<_, Bytes>::new(agent).await.unwrap();
        for _ in SIZES {
            let resolver = server.accept().await.unwrap().unwrap();
            let (request, mut stream) = resolver.resolve_request().await.unwrap();
            assert_eq!(request.uri().path(), "/v2/models/m/infer");
            assert_eq!(request.uri().authority().unwrap(), "relay.test:8443");
            assert_eq!(request.headers()["content-type"], "application/json");
            assert_eq!(request.headers()["x-request-id"], "0123456789abcdef");
            let mut received = BytesMut::new();
            while let Some(mut part) = stream.recv_data().await.unwrap() {
                received.extend_from_slice(&part.copy_to_bytes(part.remaining()));
            }
            let response = Response::builder().status(201).header("x-long", "y".repeat(300)).body(()).unwrap();
            stream.send_response(response).await.unwrap();
            stream.send_data(received.freeze()).await.unwrap();
            stream.send_trailers(trailers()).await.unwrap();
        }
        server
    });
    for size in SIZES {
        let request = Request::post("https://relay.test:8443/v2/models/m/infer")
            .header("content-type", "application/json")
            .header("x-request-id", "0123456789abcdef")
            .body(Full::new(body(size)))
            .unwrap();
        let answer = relay.open().unwrap().send(request).await.unwrap().response;
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.headers()["x-long"], "y".repeat(300));
        let answer = answer.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers(), Some(&trailers()));
        assert!(answer.to_bytes() == body(size));
    }
    drop(server.await.unwrap());
}

#[tokio::test]
async fn our_callee_answers_an_h3_client() {
    let pair = Pair::new().await;
    let agent = Session::new(pair.agent.clone(), SessionLimits::default());
    let running = agent.clone();
    tokio::spawn(async move { running.run().await });
    let server = tokio::spawn(async move {
        for _ in SIZES {
            let callee = agent.accept().await.unwrap();
            let serve = callee.serve(async |request: Request<TunnelBody>| {
                assert_eq!(request.method(), "PUT");
                assert_eq!(request.uri(), "https://relay.test/a%20b?c=d");
                assert_eq!(request.headers()["accept"], "*/*");
                let body = request.into_body().collect().await.unwrap();
                assert_eq!(body.trailers(), Some(&trailers()));
                let answer = Full::new(body.to_bytes()).with_trailers(async { Some(Ok(trailers())) });
                Response::builder().status(503).header("retry-after", "1").body(answer).unwrap()
            });
            serve.await.unwrap();
        }
    });
    let (mut driver, mut client) = h3::client::new(h3_quinn::Connection::new(pair.relay.clone())).await.unwrap();
    tokio::spawn(async move { driver.wait_idle().await });
    for size in SIZES {
        let request = Request::put("https://relay.test/a%20b?c=d").header("accept", "*/*").body(()).unwrap();
        let mut stream = client.send_request(request).await.unwrap();
        stream.send_data(body(size)).await.unwrap();
        stream.send_trailers(trailers()).await.unwrap();
        stream.finish().await.unwrap();
        let response = stream.recv_response().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
        let mut received = BytesMut::new();
        while let Some(mut part) = stream.recv_data().await.unwrap() {
            received.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
        assert!(received == body(size));
        assert_eq!(stream.recv_trailers().await.unwrap(), Some(trailers()));
    }
    server.await.unwrap();
}
