//! Which requests go to servers behind the agent, and how their answers and faults are spelled.
//!
//! Of what comes through a tunnel the relay has decided, by what all agents say of themselves. On the local listener it is decided here
//! by the same rules: a server that is for the request's very host takes it; else the agent's own endpoints do, unless they are asked for
//! a model that it does not know; and what is left is for the server whose prefix fits best.

use std::sync::Arc;
use std::time::Instant;

use adit_common::deadline::Deadline;
use adit_common::id::{ModelName, RequestId};
use adit_common::manifest::UPSTREAM_HEADER;
use adit_common::trace::TraceContext;
use axum::body::Body;
use axum::extract::Request;
use http::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;

use super::grpc;
use super::reply::refusal;
use super::router::{Arrived, Origin, declared, text};
use crate::serving::Serving;
use crate::upstream::{Fault, Upstream, Upstreams, Visitor};

/// The servers behind the agent, beside its own endpoints.
#[derive(Debug)]
pub struct Carriage {
    upstreams: Upstreams,
    /// The methods of each path of the agent's own; none where it has no API of its own.
    own: Option<matchit::Router<Vec<Method>>>,
}

/// Who is to answer a request that is not for the agent itself.
pub(super) struct Server {
    /// None if the relay meant one that is no longer there.
    upstream: Option<Arc<Upstream>>,
    visitor: Visitor,
    arrived: Instant,
    until: Deadline,
}

impl Carriage {
    /// These servers, beside the agent's own API if it `serves_models`.
    pub fn new(upstreams: Upstreams, serves_models: bool) -> Self {
        let own = (serves_models && !upstreams.is_empty()).then(|| {
            let mut own: matchit::Router<Vec<Method>> = matchit::Router::new();
            for endpoint in declared() {
                let Ok(method) = Method::from_bytes(endpoint.method.as_bytes()) else { continue };
                match own.at_mut(&endpoint.path) {
                    Ok(known) => known.value.push(method),
                    // All of them are in one router of axum's, by the same rules.
                    Err(_) => drop(own.insert(endpoint.path, vec![method])),
                }
            }
            own
        });
        Self { upstreams, own }
    }

    /// The server that a request is for; `None` if the agent itself answers it. Takes out what only a relay may say.
    pub(super) fn server(
        &self,
        request: &mut Request,
        serving: &Serving,
        id: &RequestId,
        trace: TraceContext,
    ) -> Option<Server> {
        let meant = request.headers_mut().remove(UPSTREAM_HEADER).is_some();
        let origin = request.extensions().get::<Origin>().copied();
        let upstream = if origin == Some(Origin::Tunnel) {
            if !meant {
                return None;
            }
            self.upstreams.find(request).map(|(upstream, _)| upstream.clone())
        } else {
            let (upstream, fit) = self.upstreams.find(request)?;
            if !fit.host && self.is_own(request, serving) {
                return None;
            }
            Some(upstream.clone())
        };
        let peer = match origin {
            Some(Origin::Local(peer)) => Some(peer.ip()),
            _ => None,
        };
        let arrived = request.extensions().get::<Arrived>().map_or_else(Instant::now, |arrived| arrived.0);
        let header = |name| text(request.headers(), name);
        let budget = header(Deadline::HEADER).map_or(Deadline::never(), |header| Deadline::parse(arrived, header));
        let own = header(Deadline::GRPC_HEADER).filter(|_| grpc::is_grpc(request.headers()));
        let until = budget.min(own.map_or(Deadline::never(), |own| Deadline::parse_grpc(arrived, own)));
        Some(Server { upstream, visitor: Visitor { id: id.clone(), trace, peer }, arrived, until })
    }

    /// Whether the agent itself answers it, and knows the model if the path names one.
    fn is_own(&self, request: &Request, serving: &Serving) -> bool {
        let Some(own) = &self.own else { return false };
        let Ok(found) = own.at(request.uri().path()) else { return false };
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        if !found.value.contains(method) {
            return false;
        }
        let Some(segment) = found.params.get("model") else { return true };
        let segment = percent_decode_str(segment).decode_utf8_lossy();
        // TensorFlow Serving has a verb behind the name; no name has a colon.
        let name = segment.split_once(':').map_or(&*segment, |(name, _)| name);
        ModelName::new(name).is_ok_and(|name| serving.catalogue().versions(&name).is_some())
    }
}

impl Server {
    /// Has the server answer, or says why it does not.
    pub(super) async fn answer(self, request: Request) -> Response<Body> {
        let is_grpc = grpc::is_grpc(request.headers());
        let Some(upstream) = self.upstream else {
            return spell(
                is_grpc,
                StatusCode::SERVICE_UNAVAILABLE,
                "the server that was meant is not behind this agent",
            );
        };
        match upstream.carry(request, &self.visitor, self.arrived, self.until).await {
            Ok(response) => response,
            Err(fault) => {
                if let Fault::Broken { source, .. } = &fault {
                    tracing::warn!(upstream = %upstream.name(), error = %source, "a server behind the agent broke off");
                }
                spell(is_grpc, fault.status(), &fault.to_string())
            }
        }
    }
}

/// A fault as the caller understands it.
fn spell(is_grpc: bool, status: StatusCode, message: &str) -> Response<Body> {
    if !is_grpc {
        return refusal(status, message);
    }
    let code = match status {
        StatusCode::GATEWAY_TIMEOUT => tonic::Code::DeadlineExceeded,
        StatusCode::NOT_IMPLEMENTED => tonic::Code::Unimplemented,
        StatusCode::BAD_REQUEST => tonic::Code::InvalidArgument,
        _ => tonic::Code::Unavailable,
    };
    tonic::Status::new(code, message).into_http()
}
