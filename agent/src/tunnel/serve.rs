//! Serves one session: every request that the relay opens becomes a task that asks the router.

use std::pin::pin;
use std::sync::Arc;

use adit_common::daemon::Shutdown;
use adit_common::manifest::MANIFEST_PATH;
use adit_common::tunnel::{Callee, ResetCode, Session, TunnelBody, TunnelError};
use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response, StatusCode, header};
use tower_service::Service as _;

use super::report::Reports;
use crate::api::Origin;
use crate::metrics::Metrics;

/// What answers the requests of every session.
#[derive(Debug, Clone)]
pub struct Service {
    router: Router,
    reports: Reports,
    metrics: Arc<Metrics>,
}

impl Service {
    /// Answers with the router, and to the manifest's path with the reports.
    pub const fn new(router: Router, reports: Reports, metrics: Arc<Metrics>) -> Self {
        Self { router, reports, metrics }
    }

    /// Serves a session until it is over, and says why it is. Exchanges that are under way then end on their own.
    pub(super) async fn serve(self, session: Session, scope: Shutdown) -> TunnelError {
        let _live = self.metrics.connected(session.transport());
        let mut run = pin!(session.run());
        loop {
            tokio::select! {
                ended = &mut run => return ended,
                callee = session.accept() => match callee {
                    Ok(callee) => {
                        scope.spawn("exchange", self.clone().exchange(callee));
                    }
                    // The session is over; what its control stream says of that is the better reason.
                    Err(_) => return run.await,
                },
            }
        }
    }

    async fn exchange(self, callee: Callee) {
        let metrics = self.metrics.clone();
        match callee.serve(|request| self.answer(request)).await {
            Ok(()) => {}
            Err(TunnelError::Stopped(ResetCode::REQUEST_CANCELLED | ResetCode::NO_ERROR)) => {
                tracing::debug!("the relay no longer wants an answer");
            }
            Err(error) => {
                metrics.broken_exchanges.add();
                tracing::debug!(%error, "an exchange broke off");
            }
        }
    }

    async fn answer(mut self, mut request: Request<TunnelBody>) -> Response<Body> {
        if request.uri().path() == MANIFEST_PATH {
            return self.manifest(request.method());
        }
        request.extensions_mut().insert(Origin::Tunnel);
        match self.router.call(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn manifest(&self, method: &Method) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        if method == Method::GET {
            *response.body_mut() = Body::from_stream(self.reports.lines());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-ndjson"));
        } else {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        }
        response
    }
}
