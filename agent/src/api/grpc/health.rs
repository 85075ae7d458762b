//! `grpc.health.v1.Health`: whether the agent can be asked, told from its models.

use std::pin::Pin;
use std::sync::Arc;

use adit_common::manifest::Dialect;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use futures_util::stream::{once, pending, unfold};
use futures_util::{Stream, StreamExt as _};
use http::Response as HttpResponse;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::super::paths::Paths;
use super::super::router::Api;
use super::call::serve;
use crate::serving::Catalogue;

/// The services that can be asked for by name; the empty name is the agent as a whole.
const SERVICES: [&str; 2] = ["", "inference.GRPCInferenceService"];

/// What may be asked.
pub(crate) fn paths() -> Paths {
    Paths::of(Dialect::Grpc).post("/grpc.health.v1.Health/Check", call).post("/grpc.health.v1.Health/Watch", call)
}

async fn call(State(api): State<Arc<Api>>, request: HttpRequest) -> HttpResponse<Body> {
    let service = HealthServer::new(Wellness(api.clone()));
    serve(&api, service, request).await
}

struct Wellness(Arc<Api>);

fn of(catalogue: &Catalogue) -> ServingStatus {
    if catalogue.is_settled() && catalogue.first_ready().is_some() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    let mut response = HealthCheckResponse::default();
    response.set_status(status.into());
    response
}

#[tonic::async_trait]
impl Health for Wellness {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(answer(of(&self.0.serving.catalogue()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            // As the protocol wants it: not an error, for the service may come.
            let mut unknown = HealthCheckResponse::default();
            unknown.set_status(tonic_health::pb::health_check_response::ServingStatus::ServiceUnknown);
            let one = once(async move { Ok(unknown) });
            return Ok(Response::new(Box::pin(one.chain(pending()).take_until(self.0.leaving()))));
        }
        let statuses = unfold((self.0.serving.watch(), None), |(mut catalogue, said)| async move {
            loop {
                let now = of(&catalogue.borrow_and_update());
                if said != Some(now) {
                    return Some((Ok(answer(now)), (catalogue, Some(now))));
                }
                catalogue.changed().await.ok()?;
            }
        });
        Ok(Response::new(Box::pin(statuses.take_until(self.0.leaving()))))
    }
}
