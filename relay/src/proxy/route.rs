//! From a method and a path to the agents that could answer, by what the agents say of themselves.
//!
//! The table is built anew when the fleet changes and never touched by a request. It is pure: agents are places in a list,
//! time is passed in. A path is matched as it came; only the names in it are percent-decoded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use adit_common::id::{ModelName, VersionLabel};
use adit_common::manifest::{Dialect, Gather, Manifest, ModelState, Naming, Scope};
use http::Method;
use percent_encoding::percent_decode_str;

use super::known::{Instance, Known, Wanted};
use super::upstreams::{Place, Places};
use crate::error::{Kind, ProxyError};
use crate::fleet::registry::REMEMBERED;

/// Paths below this are between relay and agent, whatever an agent offers.
const PRIVATE: &str = "/.adit";

/// How much of a path or name an error quotes.
const QUOTED: usize = 80;

/// One method of a path.
#[derive(Debug)]
struct Offer {
    method: Method,
    /// The strictest that any agent asks for.
    scope: Scope,
    dialect: Dialect,
    naming: Naming,
    gather: Gather,
    agents: Arc<[u32]>,
}

/// The agents that offer something: those that can answer, and those that can only say why not.
#[derive(Debug, Default)]
struct Members {
    able: Vec<u32>,
    unable: Vec<u32>,
}

/// What a path was found to mean.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) scope: Scope,
    pub(super) dialect: Dialect,
    /// Where its requests name their model, as far as it matters: only the body of one that several agents offer is looked at.
    pub(super) naming: Naming,
    pub(super) gather: Gather,
    offered: Arc<[u32]>,
    /// The model's name as it stands in the path, decoded.
    pub(super) model: Option<String>,
    pub(super) version: Option<String>,
    /// The server that the agent is to hand the request on to: what it is called.
    pub(super) upstream: Option<Arc<str>>,
    /// Where the request goes instead if nobody knows the model that it names.
    instead: Option<Box<Self>>,
}

impl Route {
    fn to(place: &Place) -> Self {
        Self {
            scope: place.scope,
            dialect: Dialect::Other,
            naming: Naming::Path,
            gather: Gather::One,
            offered: place.agents.clone(),
            model: None,
            version: None,
            upstream: Some(place.name().into()),
            instead: None,
        }
    }
}

/// Which agent answers what.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    paths: matchit::Router<usize>,
    offers: Vec<Vec<Offer>>,
    models: HashMap<ModelName, Known>,
    upstreams: Places,
    agents: u32,
}

impl RouteTable {
    /// A table of live agents, whose places are their order, and of those that left.
    pub(super) fn build<'a>(
        live: impl IntoIterator<Item = &'a Manifest>,
        gone: impl IntoIterator<Item = (&'a Manifest, Instant)>,
    ) -> Self {
        let mut table = Self::default();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut members: Vec<Vec<Members>> = Vec::new();
        let mut add = |manifest: &'a Manifest, agent: Option<u32>| {
            for endpoint in &manifest.endpoints {
                let Ok(method) = Method::from_bytes(endpoint.method.as_bytes()) else { continue };
                if is_private(&endpoint.path) {
                    continue;
                }
                let place = match places.get(endpoint.path.as_str()) {
                    Some(place) => *place,
                    None => {
                        let place = table.offers.len();
                        if let Err(error) = table.paths.insert(endpoint.path.clone(), place) {
                            tracing::warn!(agent = %manifest.agent, path = endpoint.path, %error, "passed over an endpoint");
                            continue;
                        }
                        places.insert(&endpoint.path, place);
                        table.offers.push(Vec::new());
                        members.push(Vec::new());
                        place
                    }
                };
                let (offers, members) = (&mut table.offers[place], &mut members[place]);
                let index = offers.iter().position(|offer| offer.method == method).unwrap_or_else(|| {
                    let (scope, dialect) = (endpoint.scope, endpoint.dialect);
                    let naming = endpoint.naming.clone();
                    let gather = endpoint.gather.clone();
                    offers.push(Offer { method, scope, dialect, naming, gather, agents: Arc::default() });
                    members.push(Members::default());
                    offers.len() - 1
                });
                offers[index].scope = offers[index].scope.max(endpoint.scope);
                if let Some(agent) = agent {
                    let members = &mut members[index];
                    let fitting = if endpoint.able { &mut members.able } else { &mut members.unable };
                    if fitting.last() != Some(&agent) {
                        fitting.push(agent);
                    }
                }
            }
        };
        let mut live_models: HashMap<ModelName, Known> = HashMap::new();
        let (mut upstreams, mut agents) = (Places::default(), 0);
        for manifest in live {
            let agent = agents;
            agents += 1;
            add(manifest, Some(agent));
            manifest.upstreams.iter().for_each(|upstream| upstreams.add(upstream, Some(agent)));
            for model in &manifest.models {
                let known = live_models.entry(model.name.clone()).or_default();
                let (version, state, labels) = (model.version, model.state, model.labels.clone());
                known.instances.push(Instance { agent, version, state, labels });
            }
        }
        for (manifest, at) in gone {
            add(manifest, None);
            manifest.upstreams.iter().for_each(|upstream| upstreams.add(upstream, None));
            for model in manifest.models.iter().filter(|model| model.state != ModelState::Unavailable) {
                let known = live_models.entry(model.name.clone()).or_default();
                known.gone = known.gone.max(Some(at));
            }
        }
        for (offers, members) in table.offers.iter_mut().zip(members) {
            for (offer, agents) in offers.iter_mut().zip(members) {
                offer.agents = if agents.able.is_empty() { agents.unable } else { agents.able }.into();
            }
        }
        live_models.values_mut().for_each(Known::settle);
        upstreams.settle();
        (table.models, table.upstreams, table.agents) = (live_models, upstreams, agents);
        table
    }

    /// What a request means: 404 or 405 if nothing.
    ///
    /// A server behind an agent that is for the request's very host takes it; else the agents' own endpoints do, and a server that is
    /// for the path what is left of it.
    pub(super) fn resolve(&self, method: &Method, host: Option<&str>, path: &str) -> Result<Route, ProxyError> {
        if self.agents == 0 {
            return Err(ProxyError::new(Kind::NoAgent, "no agent is connected").absent());
        }
        if is_private(path) {
            return Err(unknown(path));
        }
        let Some((place, fit)) = self.upstreams.find(host, path) else { return self.own(method, path) };
        if fit.host {
            return Ok(Route::to(place));
        }
        let Ok(mut own) = self.own(method, path) else { return Ok(Route::to(place)) };
        if own.model.is_some() || matches!(own.naming, Naming::Protobuf(_)) {
            own.instead = Some(Box::new(Route::to(place)));
        }
        Ok(own)
    }

    /// What it means in the end, where a server takes what is for models that nobody knows. `named` is as for `candidates`.
    pub(super) fn settle(&self, mut route: Route, named: Option<&str>) -> Route {
        let Some(instead) = route.instead.take() else { return route };
        let known = |name: &str| ModelName::new(name).is_ok_and(|name| self.models.contains_key(&name));
        match route.model.as_deref().or(named) {
            Some(name) if !known(name) => *instead,
            _ => route,
        }
    }

    /// What it means among the agents' own endpoints.
    fn own(&self, method: &Method, path: &str) -> Result<Route, ProxyError> {
        let found = self.paths.at(path).map_err(|_| unknown(path))?;
        let offers = &self.offers[*found.value];
        // An agent that answers GET answers HEAD as well.
        let plain = |wanted: &Method| offers.iter().find(|offer| offer.method == *wanted);
        let offer = plain(method).or_else(|| plain(&Method::GET).filter(|_| *method == Method::HEAD));
        let Some(offer) = offer else {
            let allowed: Vec<_> = offers.iter().map(|offer| offer.method.as_str()).collect();
            let allowed = allowed.join(", ");
            let message = format!("{} takes {allowed}, not {}", quote(path), quote(method.as_str()));
            return Err(ProxyError::new(Kind::MethodNotAllowed, message).allowing(allowed));
        };
        let decode = |name: &str| -> Option<String> {
            let segment = percent_decode_str(found.params.get(name)?).decode_utf8_lossy();
            // TensorFlow Serving has a verb behind the name, in the same segment; no name has a colon.
            let name = match segment.split_once(':') {
                Some((name, _)) if offer.dialect == Dialect::TfServing => name,
                _ => &segment,
            };
            Some(name.to_owned())
        };
        Ok(Route {
            scope: offer.scope,
            dialect: offer.dialect,
            naming: if offer.agents.len() > 1 || !self.upstreams.is_empty() {
                offer.naming.clone()
            } else {
                Naming::Path
            },
            gather: offer.gather.clone(),
            offered: offer.agents.clone(),
            model: decode("model"),
            // There, nought is whichever is newest.
            version: decode("version").filter(|version| offer.dialect != Dialect::TfServing || version != "0"),
            upstream: None,
            instead: None,
        })
    }

    /// The places of the agents that could answer, never none: 404 for a model that nobody has, 503 for one that is not
    /// there just now.
    ///
    /// `named` is a model that the body names: one that nobody knows by this name is for any agent to judge, for dialects have
    /// other names for models too.
    pub(super) fn candidates(
        &self,
        route: &Route,
        named: Option<&str>,
        now: Instant,
    ) -> Result<Arc<[u32]>, ProxyError> {
        match self.able(route, named, now) {
            // Its clients know what is not there by its own words, which any agent has.
            Err(error)
                if error.kind == Kind::UnknownModel
                    && route.dialect == Dialect::TfServing
                    && !route.offered.is_empty() =>
            {
                Ok(route.offered.clone())
            }
            found => found,
        }
    }

    fn able(&self, route: &Route, named: Option<&str>, now: Instant) -> Result<Arc<[u32]>, ProxyError> {
        if let Some(upstream) = &route.upstream {
            let message = || format!("the server {upstream} behind the agents does not answer just now");
            let able = Some(route.offered.clone()).filter(|able| !able.is_empty());
            return able.ok_or_else(|| ProxyError::new(Kind::NoAgent, message()));
        }
        let named = named.filter(|name| ModelName::new(name).is_ok_and(|name| self.models.contains_key(&name)));
        let Some(name) = route.model.as_deref().or(named) else {
            if route.offered.is_empty() {
                return Err(ProxyError::new(Kind::NoAgent, "the agents that answer this are not connected").absent());
            }
            return Ok(route.offered.clone());
        };
        let known = ModelName::new(name).ok().and_then(|name| self.models.get(&name));
        let unknown = || ProxyError::new(Kind::UnknownModel, format!("there is no model named {}", quote(name)));
        let known = known.ok_or_else(unknown)?;
        let wanted = match &route.version {
            None => Wanted::Any,
            Some(text) => match (text.parse(), VersionLabel::new(text)) {
                (Ok(version), _) => Wanted::Version(version),
                (_, Ok(label)) => Wanted::Label(label),
                _ => return Err(no_version(name, text)),
            },
        };
        let able = match &wanted {
            _ if route.scope == Scope::Control => Some(known.agents()),
            Wanted::Any => Some(known.ready.clone()),
            Wanted::Version(version) => known.by_version.get(version).cloned(),
            Wanted::Label(label) => known.by_label.get(label).cloned(),
        };
        let able = able.map(|able| self.both(&able, &route.offered)).unwrap_or_default();
        if !able.is_empty() {
            return Ok(able);
        }
        let mut meant = known.instances.iter().filter(|instance| wanted.is(instance));
        let away = known.gone.is_some_and(|gone| now.saturating_duration_since(gone) < REMEMBERED);
        let not_ready = |why| ProxyError::new(Kind::ModelNotReady, format!("the model {} {why}", quote(name)));
        if meant.any(|instance| instance.state == ModelState::Loading) {
            return Err(not_ready("is being loaded"));
        }
        if away {
            return Err(not_ready("is on an agent that is not connected just now").absent());
        }
        if known.instances.iter().any(|instance| wanted.is(instance) && instance.state != ModelState::Ready) {
            return Err(not_ready("is not available"));
        }
        Err(match &route.version {
            Some(text) if !known.instances.is_empty() => no_version(name, text),
            _ => unknown(),
        })
    }

    fn both(&self, able: &Arc<[u32]>, offered: &Arc<[u32]>) -> Arc<[u32]> {
        // All agents of one release offer the same: then there is nothing to compare, and nothing to allocate.
        if offered.len() == self.agents as usize {
            return able.clone();
        }
        able.iter().filter(|agent| offered.binary_search(agent).is_ok()).copied().collect()
    }
}

fn no_version(name: &str, version: &str) -> ProxyError {
    ProxyError::new(Kind::UnknownModel, format!("the model {} has no version {}", quote(name), quote(version)))
}

fn unknown(path: &str) -> ProxyError {
    ProxyError::new(Kind::UnknownPath, format!("nothing answers {}", quote(path)))
}

fn is_private(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    percent_decode_str(first).decode_utf8_lossy().eq_ignore_ascii_case(&PRIVATE[1..])
}

fn quote(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use adit_common::id::Version;
    use adit_common::manifest::{Endpoint, Model, Naming};

    use super::*;

    fn manifest(agent: &str, models: &[(&str, u64, ModelState)]) -> Manifest {
        let endpoint = |method: &str, path: &str, scope| Endpoint {
            method: method.into(),
            path: path.into(),
            scope,
            dialect: Dialect::Oip,
            naming: Naming::Path,
            gather: Gather::One,
            able: true,
        };
        Manifest {
            agent: agent.parse().unwrap(),
            software: "test".into(),
            draining: false,
            models: models
                .iter()
                .map(|(name, version, state)| Model {
                    name: name.parse().unwrap(),
                    version: Version(*version),
                    state: *state,
                    reason: String::new(),
                    labels: Vec::new(),
                })
                .collect(),
            endpoints: vec![
                endpoint("GET", "/v2", Scope::Infer),
                endpoint("GET", "/v2/models/{model}", Scope::Infer),
                endpoint("POST", "/v2/models/{model}/infer", Scope::Infer),
                endpoint("POST", "/v2/models/{model}/versions/{version}/infer", Scope::Infer),
                endpoint("POST", "/v2/repository/models/{model}/load", Scope::Control),
            ],
            upstreams: vec![],
            devices: vec![],
            capacity: 8,
        }
    }

    fn ask(table: &RouteTable, method: &Method, path: &str) -> Result<Vec<u32>, ProxyError> {
        table.candidates(&table.resolve(method, None, path)?, None, Instant::now()).map(|agents| agents.to_vec())
    }

    fn status(table: &RouteTable, method: &Method, path: &str) -> (u16, String) {
        let error = ask(table, method, path).unwrap_err();
        (error.status().as_u16(), error.to_string())
    }

    use ModelState::{Loading, Ready, Unavailable};

    #[test]
    fn a_model_is_asked_where_it_is_ready() {
        let agents = [
            manifest("one", &[("digits", 1, Ready), ("cats", 1, Loading)]),
            manifest("two", &[("digits", 1, Ready), ("digits", 2, Ready), ("cats", 1, Ready)]),
            manifest("three", &[("broken", 1, Unavailable), ("slow", 1, Loading)]),
        ];
        let table = RouteTable::build(&agents, []);
        let post = |path: &str| ask(&table, &Method::POST, path);
        assert_eq!(ask(&table, &Method::GET, "/v2").unwrap(), [0, 1, 2]);
        assert_eq!(ask(&table, &Method::HEAD, "/v2").unwrap(), [0, 1, 2]);
        assert_eq!(post("/v2/models/digits/infer").unwrap(), [0, 1]);
        assert_eq!(post("/v2/models/d%69gits/infer").unwrap(), [0, 1], "names are compared decoded");
        assert_eq!(post("/v2/models/digits/versions/2/infer").unwrap(), [1]);
        assert_eq!(post("/v2/models/cats/infer").unwrap(), [1]);
        assert_eq!(post("/v2/repository/models/broken/load").unwrap(), [2], "control needs no ready model");
        let (code, text) = status(&table, &Method::POST, "/v2/models/dogs/infer");
        assert!(code == 404 && text.contains("dogs"), "{text}");
        assert_eq!(status(&table, &Method::POST, "/v2/models/digits/versions/3/infer").0, 404);
        assert_eq!(status(&table, &Method::POST, "/v2/models/digits/versions/x/infer").0, 404);
        assert_eq!(status(&table, &Method::POST, "/v2/models/slow/infer").0, 503);
        assert_eq!(status(&table, &Method::POST, "/v2/models/broken/infer").0, 503);
    }

    #[test]
    fn a_label_stands_for_what_each_agent_says_it_does() {
        let mut agents = [
            manifest("one", &[("digits", 1, Ready), ("digits", 2, Ready)]),
            manifest("two", &[("digits", 3, Ready), ("digits", 4, Loading)]),
        ];
        let label = |text: &str| text.parse::<VersionLabel>().unwrap();
        agents[0].models[0].labels = vec![label("stable"), label("old")];
        agents[1].models[0].labels = vec![label("stable")];
        agents[1].models[1].labels = vec![label("canary")];
        let table = RouteTable::build(&agents, []);
        let path = |version: &str| format!("/v2/models/digits/versions/{version}/infer");
        assert_eq!(ask(&table, &Method::POST, &path("stable")).unwrap(), [0, 1]);
        assert_eq!(ask(&table, &Method::POST, &path("old")).unwrap(), [0]);
        assert_eq!(status(&table, &Method::POST, &path("canary")).0, 503, "it is being loaded");
        let (code, text) = status(&table, &Method::POST, &path("staple"));
        assert_eq!((code, &*text), (404, "the model digits has no version staple"));
    }

    #[test]
    fn unknown_paths_and_methods_say_so() {
        let agents = [manifest("one", &[("digits", 1, Ready)])];
        let table = RouteTable::build(&agents, []);
        assert_eq!(status(&table, &Method::GET, "/nowhere").0, 404);
        assert_eq!(status(&table, &Method::GET, "").0, 404);
        assert_eq!(status(&table, &Method::POST, "/v2/models/../infer").0, 404);
        assert_eq!(status(&table, &Method::POST, "/v2/models/..%2f..%2fetc/infer").0, 404);
        let error = ask(&table, &Method::PUT, "/v2/models/digits/infer").unwrap_err();
        assert_eq!((error.status().as_u16(), error.allow.as_deref()), (405, Some("POST")));
    }

    #[test]
    fn who_cannot_answer_is_asked_only_where_nobody_can() {
        let mut agents = [manifest("one", &[]), manifest("two", &[]), manifest("three", &[])];
        let photo = |able| Endpoint { path: "/photo".into(), able, ..manifest("x", &[]).endpoints[0].clone() };
        for (agent, able) in agents.iter_mut().zip([false, true, false]) {
            agent.endpoints.push(photo(able));
        }
        let table = RouteTable::build(&agents, []);
        assert_eq!(ask(&table, &Method::GET, "/photo").unwrap(), [1]);
        agents[1].endpoints.pop();
        let table = RouteTable::build(&agents, []);
        assert_eq!(ask(&table, &Method::GET, "/photo").unwrap(), [0, 2]);
    }

    #[test]
    fn what_is_between_relay_and_agent_is_never_routed() {
        let mut agent = manifest("one", &[]);
        for path in ["/.adit/manifest", "/{first}/{second}"] {
            let known = agent.endpoints[0].clone();
            agent.endpoints.push(Endpoint { path: path.into(), ..known });
        }
        let table = RouteTable::build([&agent], []);
        for path in ["/.adit/manifest", "/%2eadit/manifest", "/.ADIT/x", "//.adit/manifest"] {
            assert_eq!(status(&table, &Method::GET, path).0, 404, "{path}");
        }
        assert!(ask(&table, &Method::GET, "/some/thing").is_ok());
    }

    #[test]
    fn an_agent_that_left_leaves_503_behind_and_is_forgotten_in_time() {
        let (here, left) = (manifest("here", &[("digits", 1, Ready)]), manifest("left", &[("cats", 1, Ready)]));
        let now = Instant::now();
        let table = RouteTable::build([&here], [(&left, now)]);
        assert_eq!(status(&table, &Method::POST, "/v2/models/cats/infer").0, 503);
        let route = table.resolve(&Method::POST, None, "/v2/models/cats/infer").unwrap();
        let later = table.candidates(&route, None, now + REMEMBERED).unwrap_err();
        assert_eq!(later.status().as_u16(), 404);
        let empty = RouteTable::build([], [(&left, now)]);
        assert_eq!(status(&empty, &Method::GET, "/nowhere").0, 503, "with nobody here nothing is unknown");
        assert_eq!(empty.resolve(&Method::GET, None, "/v2").unwrap_err().kind, Kind::NoAgent);
    }

    #[test]
    fn a_verb_behind_a_name_is_no_part_of_it() {
        let serving = |agent: &str, models: &[(&str, u64, ModelState)]| {
            let mut manifest = manifest(agent, models);
            for path in
                ["/v1/models/{model}", "/v1/models/{model}/labels/{version}", "/v1/models/{model}/versions/{version}"]
            {
                let (method, path, dialect) = ("POST".into(), path.into(), Dialect::TfServing);
                let known = manifest.endpoints[0].clone();
                manifest.endpoints.push(Endpoint { method, path, dialect, ..known });
            }
            manifest
        };
        let mut agents = [serving("one", &[("digits", 1, Ready)]), serving("two", &[("cats", 4, Ready)])];
        agents[1].models[0].labels = vec!["stable".parse().unwrap()];
        let table = RouteTable::build(&agents, []);
        let post = |path: &str| ask(&table, &Method::POST, path);
        assert_eq!(post("/v1/models/digits:predict").unwrap(), [0]);
        assert_eq!(post("/v1/models/digits%3Apredict").unwrap(), [0]);
        assert_eq!(post("/v1/models/cats/labels/stable:predict").unwrap(), [1]);
        assert_eq!(post("/v1/models/cats/versions/0:predict").unwrap(), [1]);
        assert_eq!(post("/v1/models/dogs:predict").unwrap(), [0, 1], "whoever is asked says it in its own words");
        assert_eq!(post("/v1/models/cats/labels/canary:predict").unwrap(), [0, 1]);
        assert_eq!(status(&table, &Method::POST, "/v2/models/digits:predict/infer").0, 404);
    }

    #[test]
    fn one_agent_cannot_loosen_anothers_scope() {
        let mut loose = manifest("loose", &[("digits", 1, Ready)]);
        loose.endpoints.iter_mut().for_each(|endpoint| endpoint.scope = Scope::Infer);
        let strict = manifest("strict", &[("digits", 1, Ready)]);
        for agents in [[&loose, &strict], [&strict, &loose]] {
            let table = RouteTable::build(agents, []);
            let route = table.resolve(&Method::POST, None, "/v2/repository/models/digits/load").unwrap();
            assert_eq!(route.scope, Scope::Control);
        }
        let twice = manifest("twice", &[]);
        let mut conflict = twice.clone();
        conflict.endpoints[1].path = "/v2/models/{*rest}".into();
        let table = RouteTable::build([&twice, &conflict], []);
        assert!(table.resolve(&Method::GET, None, "/v2").is_ok(), "a conflicting path costs nobody else anything");
    }
}
