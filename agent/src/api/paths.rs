//! The paths of one dialect: what relays are told of them, and who answers, said once.

use std::sync::Arc;

use adit_common::manifest::{Dialect, Endpoint, Gather, Naming, Scope};
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};

use super::router::Api;

/// What an agent must have to answer requests that name no model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Classifier,
    Detector,
}

/// Endpoints with their handlers.
#[derive(Debug)]
pub(super) struct Paths {
    dialect: Dialect,
    endpoints: Vec<Endpoint>,
    /// Of each endpoint.
    needs: Vec<Need>,
    router: Router<Arc<Api>>,
}

impl Paths {
    /// None yet.
    pub(super) fn of(dialect: Dialect) -> Self {
        Self { dialect, endpoints: Vec::new(), needs: Vec::new(), router: Router::new() }
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

    /// What opens a socket.
    pub(super) fn socket<H, T>(self, path: &str, handler: H) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        self.add("CONNECT", MethodFilter::CONNECT, path, handler)
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

    /// The last endpoint's question is for all agents, whose answers become one so.
    pub(super) fn gathered(mut self, gather: Gather) -> Self {
        self.endpoints.iter_mut().next_back().into_iter().for_each(|endpoint| endpoint.gather = gather.clone());
        self
    }

    /// The last endpoint's requests are answered by any model of this kind.
    pub(super) fn needing(mut self, need: Need) -> Self {
        self.needs.iter_mut().next_back().into_iter().for_each(|needed| *needed = need);
        self
    }

    /// What relays are told, of an agent that has what `has` says.
    pub(super) fn endpoints(&self, has: impl Fn(Need) -> bool) -> Vec<Endpoint> {
        let each = self.endpoints.iter().zip(&self.needs);
        each.map(|(endpoint, need)| Endpoint { able: has(*need), ..endpoint.clone() }).collect()
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
            gather: Gather::One,
            able: true,
        });
        self.needs.push(Need::Nothing);
        self.router = self.router.route(path, on(filter, handler));
        self
    }
}
