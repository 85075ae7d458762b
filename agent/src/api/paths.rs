//! The paths of one dialect: what relays are told of them, and who answers, said once.

use std::sync::Arc;

use adit_common::manifest::{Dialect, Endpoint, Naming, Scope};
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};

use super::router::Api;

/// Endpoints with their handlers.
#[derive(Debug)]
pub(super) struct Paths {
    dialect: Dialect,
    endpoints: Vec<Endpoint>,
    router: Router<Arc<Api>>,
}

impl Paths {
    /// None yet.
    pub(super) fn of(dialect: Dialect) -> Self {
        Self { dialect, endpoints: Vec::new(), router: Router::new() }
    }

    /// What reads.
    pub(super) fn get<H, T>(self, path: &str, handler: H) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.add("GET", MethodFilter::GET, path, handler)
    }

    /// What asks.
    pub(super) fn post<H, T>(self, path: &str, handler: H) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.add("POST", MethodFilter::POST, path, handler)
    }

    /// The last endpoint changes the agent: it takes a key with the scope `control`.
    pub(super) fn controls(mut self) -> Self {
        self.endpoints.iter_mut().next_back().into_iter().for_each(|endpoint| endpoint.scope = Scope::Control);
        self
    }

    /// The last endpoint's requests name their model so, and not in the path.
    pub(super) fn named(mut self, naming: Naming) -> Self {
        self.endpoints.iter_mut().next_back().into_iter().for_each(|endpoint| endpoint.naming = naming.clone());
        self
    }

    /// What relays are told.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Who answers.
    pub(super) fn router(self) -> Router<Arc<Api>> {
        self.router
    }

    fn add<H, T>(mut self, method: &str, filter: MethodFilter, path: &str, handler: H) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.endpoints.push(Endpoint {
            method: method.to_owned(),
            path: path.to_owned(),
            scope: Scope::Infer,
            dialect: self.dialect,
            naming: Naming::Path,
        });
        self.router = self.router.route(path, on(filter, handler));
        self
    }
}
