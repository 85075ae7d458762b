//! The servers behind agents that whole requests are handed on to, by host and path. Pure, as the table of routes that it is part of.
//!
//! Two agents that name the same host and prefix carry the same server, whatever each calls it: a path is what it is for all
//! endpoints.

use std::sync::Arc;

use adit_common::manifest::{Fit, Scope, Upstream};

/// What one host and prefix lead to.
#[derive(Debug)]
pub(super) struct Place {
    /// As the first agent that has it describes it.
    upstream: Upstream,
    /// The strictest that any agent asks for.
    pub(super) scope: Scope,
    /// Agents behind which it answers just now.
    pub(super) agents: Arc<[u32]>,
    able: Vec<u32>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Place>);

impl Places {
    /// An agent has this one; `None` for an agent that left.
    pub(super) fn add(&mut self, upstream: &Upstream, agent: Option<u32>) {
        let same = |known: &Place| (&known.upstream.host, &known.upstream.prefix) == (&upstream.host, &upstream.prefix);
        let index = self.0.iter().position(same).unwrap_or_else(|| {
            let (upstream, scope) = (upstream.clone(), upstream.scope);
            self.0.push(Place { upstream, scope, agents: Arc::default(), able: Vec::new() });
            self.0.len() - 1
        });
        let place = &mut self.0[index];
        place.scope = place.scope.max(upstream.scope);
        if let Some(agent) = agent.filter(|agent| upstream.able && place.able.last() != Some(agent)) {
            place.able.push(agent);
        }
    }

    /// Whether no agent has any.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All were added.
    pub(super) fn settle(&mut self) {
        self.0.iter_mut().for_each(|place| place.agents = std::mem::take(&mut place.able).into());
    }

    /// The one that fits a request best, and how closely it does.
    pub(super) fn find(&self, host: Option<&str>, path: &str) -> Option<(&Place, Fit)> {
        let fitting = self.0.iter().filter_map(|place| Some((place, place.upstream.fit(host, path)?)));
        fitting.max_by_key(|(_, fit)| *fit)
    }
}

impl Place {
    /// What it is called.
    pub(super) fn name(&self) -> &str {
        self.upstream.name.as_str()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ModelState::{Loading, Ready};
    use adit_common::id::Version;
    use adit_common::manifest::{Dialect, Endpoint, Gather, Manifest, Model, ModelState, Naming};
    use http::Method;

    use super::super::route::RouteTable;
    use super::*;
    use crate::error::{Kind, ProxyError};

    /// An agent with a few paths and these models.
    fn manifest(agent: &str, models: &[(&str, ModelState)]) -> Manifest {
        let endpoint = |method: &str, path: &str| Endpoint {
            method: method.into(),
            path: path.into(),
            scope: Scope::Infer,
            dialect: Dialect::Oip,
            naming: Naming::Path,
            gather: Gather::One,
            able: true,
        };
        let models = models.iter().map(|(name, state)| Model {
            name: name.parse().unwrap(),
            version: Version(1),
            state: *state,
            reason: String::new(),
            labels: Vec::new(),
        });
        Manifest {
            agent: agent.parse().unwrap(),
            software: "test".into(),
            draining: false,
            models: models.collect(),
            endpoints: vec![endpoint("GET", "/v2"), endpoint("POST", "/v2/models/{model}/infer")],
            upstreams: vec![],
            devices: vec![],
            capacity: 8,
        }
    }

    fn upstream(host: Option<&str>, prefix: &str, able: bool) -> Upstream {
        let (name, host, prefix) = ("triton".parse().unwrap(), host.map(str::to_owned), prefix.to_owned());
        Upstream { name, host, prefix, scope: Scope::Infer, able }
    }

    /// Who answers, and whether it is a server behind them.
    fn end(table: &RouteTable, method: &Method, host: &str, path: &str) -> Result<(bool, Vec<u32>), ProxyError> {
        let route = table.settle(table.resolve(method, Some(host), path)?, None);
        Ok((route.upstream.is_some(), table.candidates(&route, None, Instant::now())?.to_vec()))
    }

    #[test]
    fn a_server_behind_an_agent_takes_what_no_agent_answers_itself() {
        let mut agents = [manifest("one", &[]), manifest("two", &[("digits", Ready), ("cats", Loading)])];
        agents[0].upstreams = vec![upstream(None, "/v2", true), upstream(Some("triton.test"), "/", true)];
        agents[0].endpoints.clear();
        let table = RouteTable::build(&agents, []);
        let end = |method: &Method, path: &str| end(&table, method, "relay.test", path);
        assert_eq!(end(&Method::POST, "/v2/models/digits/infer").unwrap(), (false, vec![1]), "an agent's own model");
        assert_eq!(end(&Method::POST, "/v2/models/dogs/infer").unwrap(), (true, vec![0]), "one that nobody knows");
        assert_eq!(end(&Method::POST, "/v2/models/cats/infer").unwrap_err().kind, Kind::ModelNotReady);
        assert_eq!(end(&Method::GET, "/v2").unwrap(), (false, vec![1]));
        assert_eq!(end(&Method::GET, "/v2/health/ready").unwrap(), (true, vec![0]));
        assert_eq!(end(&Method::PUT, "/v2/models/digits/infer").unwrap(), (true, vec![0]), "a method of its own");
        assert_eq!(end(&Method::GET, "/v1").unwrap_err().kind, Kind::UnknownPath);
        let at_its_host = self::end(&table, &Method::POST, "triton.test:8443", "/v2/models/digits/infer");
        assert_eq!(at_its_host.unwrap(), (true, vec![0]), "all that is for its host");
        assert_eq!(self::end(&table, &Method::GET, "triton.test", "/.adit/x").unwrap_err().kind, Kind::UnknownPath);
    }

    #[test]
    fn agents_share_a_server_and_those_where_it_is_down_are_left_out() {
        let mut agents = [manifest("one", &[]), manifest("two", &[]), manifest("three", &[])];
        for (agent, able) in agents.iter_mut().zip([true, false, true]) {
            agent.upstreams = vec![upstream(None, "/x", able)];
        }
        agents[1].upstreams[0].scope = Scope::Control;
        let table = RouteTable::build(&agents, []);
        assert_eq!(end(&table, &Method::GET, "h", "/x").unwrap(), (true, vec![0, 2]));
        assert_eq!(table.resolve(&Method::GET, None, "/x").unwrap().scope, Scope::Control);
        agents.iter_mut().for_each(|agent| agent.upstreams[0].able = false);
        let error = end(&RouteTable::build(&agents, []), &Method::GET, "h", "/x").unwrap_err();
        assert_eq!((error.status().as_u16(), error.kind), (503, Kind::NoAgent));
        let gone = RouteTable::build([&manifest("four", &[])], [(&agents[0], Instant::now())]);
        assert_eq!(end(&gone, &Method::GET, "h", "/x").unwrap_err().kind, Kind::NoAgent, "not unknown: away");
    }

    #[test]
    fn the_longest_prefix_takes_a_request_even_while_it_is_down() {
        let mut agents = [manifest("one", &[]), manifest("two", &[])];
        agents[0].upstreams = vec![upstream(None, "/", true)];
        agents[1].upstreams = vec![upstream(None, "/deep/er", false), upstream(None, "/deep", true)];
        let table = RouteTable::build(&agents, []);
        assert_eq!(end(&table, &Method::GET, "h", "/deep/x").unwrap(), (true, vec![1]));
        assert_eq!(end(&table, &Method::GET, "h", "/deeper").unwrap(), (true, vec![0]));
        assert_eq!(end(&table, &Method::GET, "h", "/deep/er/x").unwrap_err().kind, Kind::NoAgent);
    }

    #[test]
    fn a_model_that_only_the_body_names_may_be_a_servers() {
        let mut agent = manifest("one", &[("digits", Ready)]);
        let known = agent.endpoints[0].clone();
        let (path, naming) = ("/inference.GRPCInferenceService/ModelInfer".to_owned(), Naming::Protobuf(vec![1]));
        agent.endpoints.push(Endpoint { method: "POST".into(), path: path.clone(), naming, ..known });
        agent.upstreams = vec![upstream(None, "/inference.GRPCInferenceService", true)];
        let table = RouteTable::build([&agent], []);
        let route = || table.resolve(&Method::POST, None, &path).unwrap();
        assert!(matches!(route().naming, Naming::Protobuf(_)), "the body is looked at for one agent, too");
        assert!(table.settle(route(), Some("dogs")).upstream.is_some());
        assert!(table.settle(route(), Some("digits")).upstream.is_none());
        assert!(table.settle(route(), None).upstream.is_none());
    }
}
