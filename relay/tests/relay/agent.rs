//! An agent made of a session and a closure.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_certs::{Bundle, agent_tunnel};
use adit_common::manifest::{
    Dialect, Endpoint, Gather, Load, MANIFEST_PATH, Manifest, Model, ModelState, Naming, Report, Scope,
};
use adit_common::tunnel::{
    PathMemory, ResetCode, Session, SessionLimits, TransportOptions, TunnelBody, TunnelError, UDP_BUFFER, agent_config,
    agent_endpoint, bind_udp,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::sync::mpsc;

pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, TunnelError>>;
type Work = Arc<dyn Fn(Request<TunnelBody>) -> BoxFuture<'static, Reply> + Send + Sync>;

/// What an agent does with a request.
#[derive(Clone)]
pub(crate) struct Does(Work);

impl Does {
    pub(crate) fn new<F>(work: impl Fn(Request<TunnelBody>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(work(request))))
    }

    /// Answers every request with a text.
    pub(crate) fn says(text: &'static str) -> Self {
        Self::new(move |_| async move { reply(text) })
    }

    /// Sends back what comes, as it comes.
    pub(crate) fn echoes() -> Self {
        Self::new(|request| async move { Response::new(request.into_body().boxed_unsync()) })
    }
}

pub(crate) fn reply(text: impl Into<Bytes>) -> Reply {
    Response::new(Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync())
}

/// A running agent; dropped, its connection is closed.
pub(crate) struct Agent {
    pub(crate) session: Session,
    /// Where the relay sees it.
    pub(crate) port: u16,
    reports: mpsc::Sender<Report>,
    manifest: Manifest,
    task: tokio::task::JoinHandle<()>,
}

pub(crate) fn manifest(id: &str, models: &[(&str, ModelState)]) -> Manifest {
    let endpoint = |method: &str, path: &str, scope| Endpoint {
        method: method.into(),
        path: path.into(),
        scope,
        dialect: Dialect::Oip,
        naming: Naming::Path,
        gather: Gather::One,
        able: true,
    };
    let model = |(name, state): &(&str, ModelState)| Model {
        name: name.parse().unwrap(),
        version: "1".parse().unwrap(),
        state: *state,
        reason: String::new(),
        labels: Vec::new(),
    };
    Manifest {
        agent: id.parse().unwrap(),
        software: "test".into(),
        draining: false,
        models: models.iter().map(model).collect(),
        endpoints: vec![
            endpoint("GET", "/v2", Scope::Infer),
            endpoint("POST", "/v2/models/{model}/infer", Scope::Infer),
            endpoint("POST", "/v2/repository/models/{model}/load", Scope::Control),
        ],
        upstreams: Vec::new(),
        devices: vec!["cpu".into()],
        capacity: 8,
    }
}

/// Dials the relay and takes the handshake to its end.
pub(crate) async fn dial(certificates: &Path, relay: SocketAddr, options: &TransportOptions) -> (Session, u16) {
    let (socket, _) = bind_udp(([127, 0, 0, 1], 0).into(), UDP_BUFFER).unwrap();
    let endpoint = agent_endpoint(socket).unwrap();
    let config =
        agent_config(agent_tunnel(&Bundle::agent(certificates)).unwrap(), options, &PathMemory::default()).unwrap();
    let connection = endpoint.connect_with(config, relay, "127.0.0.1").unwrap().await.unwrap();
    (Session::new(connection, SessionLimits::default()), endpoint.local_addr().unwrap().port())
}

impl Agent {
    pub(crate) fn new((session, port): (Session, u16), manifest: Manifest, does: Does) -> Self {
        let (reports, inbox) = mpsc::channel(8);
        reports.try_send(Report::Manifest(manifest.clone())).unwrap();
        let inbox = Arc::new(tokio::sync::Mutex::new(inbox));
        let task = tokio::spawn(serve(session.clone(), inbox, does));
        Self { session, port, reports, manifest, task }
    }

    pub(crate) async fn say(&mut self, change: impl FnOnce(&mut Manifest)) {
        change(&mut self.manifest);
        self.reports.send(Report::Manifest(self.manifest.clone())).await.unwrap();
    }

    pub(crate) async fn load(&self, in_flight: u32) {
        self.reports.send(Report::Load(Load { in_flight, queued: 0 })).await.unwrap();
    }

    /// Waits until the relay has closed the session, and says whether that was in order.
    pub(crate) async fn closed_in_order(&self) -> bool {
        let closed = tokio::time::timeout(Duration::from_secs(5), self.session.closed());
        closed.await.expect("the relay should have closed the session").is_orderly_close()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.session.close(ResetCode::NO_ERROR, "the test is over");
        self.task.abort();
    }
}

async fn serve(session: Session, inbox: Arc<tokio::sync::Mutex<mpsc::Receiver<Report>>>, does: Does) {
    let answers = async {
        while let Ok(callee) = session.accept().await {
            let (does, inbox) = (does.clone(), inbox.clone());
            tokio::spawn(async move {
                let service = |request: Request<TunnelBody>| async move {
                    if request.uri().path() == MANIFEST_PATH { reports(inbox) } else { (does.0)(request).await }
                };
                let _ = callee.serve(service).await;
            });
        }
    };
    tokio::select! {
        _ = session.run() => {}
        () = answers => {}
    }
}

fn reports(inbox: Arc<tokio::sync::Mutex<mpsc::Receiver<Report>>>) -> Reply {
    let lines = futures_util::stream::unfold(inbox, |inbox| async move {
        let report = inbox.lock().await.recv().await?;
        let line = serde_json::to_string(&report).unwrap() + "\n";
        Some((Ok(Frame::data(Bytes::from(line))), inbox))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)))
}
