//! A server of the Open Inference Protocol that does as the image says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_common::oip::{
    Classification, Datatype, Encoded, ErrorBody, HEADER_LENGTH, IndexEntry, InferRequest, InferResponse,
    ModelMetadata, Parameters, Tensor, TensorMetadata, header_length,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) const KEY: &str = "adit_0123456789";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) authority_pem: String,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicU64,
    inferences: AtomicU64,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn authority() -> (CertificateDer<'static>, String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), certificate.pem(), Issuer::new(params, key))
}

/// A port on which somebody answers without TLS.
pub(crate) async fn plain_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    port
}

/// A port on which nobody listens.
pub(crate) async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

impl Server {
    pub(crate) async fn start() -> Self {
        let (authority, authority_pem, issuer) = authority();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Seen::default()));
        let task = tokio::spawn(accept(listener, acceptor, seen.clone()));
        Self { address, authority, authority_pem, seen, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub(crate) fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn inferences(&self) -> u64 {
        self.seen.inferences.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        tokio::spawn(async move {
            // A client that does not like the certificate is a case of its own.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            seen.connections.fetch_add(1, Ordering::SeqCst);
            let service = service_fn(move |request| {
                let seen = seen.clone();
                async move { answer(request, &seen).await }
            });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).unwrap();
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

fn failed(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    json(status, &ErrorBody { error: text.into() })
}

fn metadata(name: &str, input: &str, datatype: Datatype) -> ModelMetadata {
    let tensor =
        |name: &str, datatype, shape: &[i64]| TensorMetadata { name: name.into(), datatype, shape: shape.into() };
    ModelMetadata {
        name: name.into(),
        versions: vec!["1".into()],
        platform: "test".into(),
        inputs: vec![tensor(input, datatype, &[-1])],
        outputs: vec![
            tensor("features", Datatype::Fp32, &[-1, 64]),
            tensor("probabilities", Datatype::Fp32, &[-1, 10]),
        ],
        parameters: Parameters::default(),
    }
}

/// An error is how hyper is told to hang up.
async fn answer(request: Request<Incoming>, seen: &Seen) -> Result<Response<Full<Bytes>>, &'static str> {
    match request.headers().get("authorization").map(|value| value.to_str().unwrap()) {
        None => return Ok(failed(StatusCode::UNAUTHORIZED, "no key was given")),
        Some(key) if key != format!("Bearer {KEY}") => {
            return Ok(failed(StatusCode::UNAUTHORIZED, "nobody has this key"));
        }
        Some(_) => {}
    }
    assert!(request.headers().contains_key("traceparent") && request.headers().contains_key("x-request-id"));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    Ok(match (method, path.as_str()) {
        (Method::GET, "/v2/models/digits" | "/v2/models/digits/versions/1") => {
            json(StatusCode::OK, &metadata("digits", "image", Datatype::Bytes))
        }
        (Method::GET, "/v2/models/tensor") => json(StatusCode::OK, &metadata("tensor", "pixels", Datatype::Fp32)),
        (Method::POST, "/v2/repository/index") => {
            let entry = |name: &str, version: &str| IndexEntry {
                name: name.into(),
                version: version.into(),
                state: None,
                reason: String::new(),
            };
            json(StatusCode::OK, &[entry("tensor", "2"), entry("digits", "1")])
        }
        (Method::POST, "/v2/models/digits/infer" | "/v2/models/digits/versions/1/infer") => {
            let count = seen.inferences.fetch_add(1, Ordering::SeqCst);
            return infer(request, count).await;
        }
        _ => failed(StatusCode::NOT_FOUND, "no such model"),
    })
}

async fn infer(request: Request<Incoming>, count: u64) -> Result<Response<Full<Bytes>>, &'static str> {
    let header_length = header_length(request.headers()).unwrap();
    let body = request.into_body().collect().await.unwrap_or_else(|error| panic!("{error}")).to_bytes();
    let request = InferRequest::parse(&body, header_length).unwrap();
    assert_eq!(request.inputs[0].name(), "image");
    let image = String::from_utf8_lossy(&request.inputs[0].to_elements().unwrap()[0]).into_owned();
    match image.as_str() {
        "busy" => {
            let mut answer = failed(StatusCode::SERVICE_UNAVAILABLE, "no live agent");
            answer.headers_mut().insert("retry-after", "1".parse().unwrap());
            return Ok(answer);
        }
        "page" => return Ok(Response::new(Full::new("<html>".into()))),
        "broken" => return Ok(failed(StatusCode::BAD_REQUEST, "not an image\x1b[31m\n")),
        "stall" => std::future::pending::<()>().await,
        "every third stalls" if count % 3 == 2 => std::future::pending::<()>().await,
        "every third hangs up" if count % 3 == 2 => return Err("as the image says"),
        slow if slow.starts_with("slow ") => {
            let millis = slow["slow ".len()..].parse().unwrap();
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        _ => {}
    }
    let wanted = request.requested("probabilities").unwrap().parameters.classification().unwrap().unwrap();
    let all = [(0.875, 7, "seven"), (0.1, 1, "class: one"), (0.025, 2, "two")];
    let classes: Vec<Bytes> = all
        .into_iter()
        .take(wanted)
        .map(|(value, index, label)| Classification { value, index, label: Some(label.into()) }.to_string().into())
        .collect();
    let response = InferResponse {
        model_name: "digits".into(),
        model_version: Some("1".into()),
        outputs: vec![Tensor::bytes("probabilities", &[1, classes.len()], classes).unwrap()],
        ..InferResponse::default()
    };
    let Encoded { header_length, body } = response.encode(|name| request.wants_binary(name).unwrap()).unwrap();
    let mut answer = Response::new(Full::new(body));
    let headers = answer.headers_mut();
    if let Some(length) = header_length {
        headers.insert(HEADER_LENGTH, length.into());
    }
    let timing = "admit;dur=0.010, forward;dur=0.250;desc=\"cpu b=1\", other;dur=0.000, total;dur=0.260";
    headers.insert("server-timing", timing.parse().unwrap());
    headers.insert("x-request-id", "said-by-the-relay".parse().unwrap());
    if image == "last" {
        headers.insert("connection", "close".parse().unwrap());
    }
    Ok(answer)
}
