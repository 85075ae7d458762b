//! `grpc.reflection`: which services there are and how their messages look, for clients that have no `.proto` files.

use std::sync::Arc;

use adit_common::manifest::Dialect;
use axum::body::Body;
use axum::extract::{Request, State};
use http::{Response, StatusCode};
use tonic_reflection::server::Builder;

use super::super::paths::Paths;
use super::super::reply::refusal;
use super::super::router::Api;
use super::call::flow;

/// What may be asked.
pub(crate) fn paths() -> Paths {
    Paths::of(Dialect::Grpc)
        .post("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", current)
        .post("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", old)
}

/// Asked once in a while by a person's tool: nothing is kept for it.
fn services<'a>() -> Builder<'a> {
    Builder::configure()
        .register_encoded_file_descriptor_set(adit_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

async fn current(State(_): State<Arc<Api>>, request: Request) -> Response<Body> {
    match services().build_v1() {
        Ok(service) => flow(service, request).await,
        Err(_) => broken(),
    }
}

async fn old(State(_): State<Arc<Api>>, request: Request) -> Response<Body> {
    match services().build_v1alpha() {
        Ok(service) => flow(service, request).await,
        Err(_) => broken(),
    }
}

/// The descriptors are this program's own.
fn broken() -> Response<Body> {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "the descriptions of the services cannot be read")
}
