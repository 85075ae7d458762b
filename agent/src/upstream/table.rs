//! The servers behind the agent, as its configuration names them.

use std::collections::HashSet;
use std::sync::Arc;

use adit_common::daemon::Shutdown;
use adit_common::manifest::{self, Fit};
use axum::body::Body;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use tokio::sync::{Notify, Semaphore, watch};

use super::carry::Upstream;
use super::check::{self, States};
use super::headers;
use super::pool::Pool;
use crate::config::UpstreamConfig;
use crate::error::AgentError;
use crate::metrics::Metrics;

/// All of them.
#[derive(Debug, Clone)]
pub struct Upstreams {
    all: Arc<[Arc<Upstream>]>,
    states: Arc<States>,
}

impl Upstreams {
    /// Reads the configuration, and finds what cannot work. Nothing is connected to yet. Requests belong to `scope`, connections to
    /// `house`.
    pub fn new(
        configs: &[UpstreamConfig],
        metrics: &Metrics,
        scope: &Shutdown,
        house: &Shutdown,
    ) -> Result<Self, AgentError> {
        let (mut names, mut places) = (HashSet::new(), HashSet::new());
        let mut all = Vec::new();
        for config in configs {
            let wrong = |what: String| AgentError::Config(format!("[[upstream]] {}: {what}", config.name));
            let upstream = open(config, metrics, scope, house).map_err(wrong)?;
            if !names.insert(config.name.clone()) {
                return Err(wrong("there are two of this name".to_owned()));
            }
            if !places.insert((upstream.told.host.clone(), upstream.told.prefix.clone())) {
                return Err(wrong("another one has the same host and prefix".to_owned()));
            }
            all.push(Arc::new(upstream));
        }
        let states = Arc::new(watch::Sender::new(vec![None; all.len()]));
        Ok(Self { all: all.into(), states })
    }

    /// Begins to look after them.
    pub fn watch(&self, house: &Shutdown) {
        for (place, upstream) in self.all.iter().enumerate() {
            house.spawn("check", check::watch(upstream.clone(), self.states.clone(), place, house.clone()));
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one that takes a request, and how closely it fits.
    pub fn find(&self, request: &Request<Body>) -> Option<(&Arc<Upstream>, Fit)> {
        let (host, path) = (headers::host(request.uri(), request.headers()), request.uri().path());
        let fitting = self.all.iter().filter_map(|upstream| Some((upstream, upstream.told.fit(host, path)?)));
        fitting.max_by_key(|(_, fit)| *fit)
    }

    /// What relays are told of them.
    pub fn report(&self) -> Vec<manifest::Upstream> {
        let states = self.states.borrow();
        let told = self.all.iter().zip(states.iter());
        told.map(|(upstream, state)| manifest::Upstream { able: *state == Some(true), ..upstream.told.clone() })
            .collect()
    }

    /// How many requests may be under way at those that are up.
    pub fn capacity(&self) -> usize {
        let states = self.states.borrow();
        let up = self.all.iter().zip(states.iter()).filter(|(_, state)| **state == Some(true));
        up.map(|(upstream, _)| upstream.most).sum()
    }

    /// Changes whenever one of them comes up or goes down.
    pub fn changes(&self) -> watch::Receiver<Vec<Option<bool>>> {
        self.states.subscribe()
    }

    /// Resolves when each was looked at for the first time.
    pub async fn settled(&self) {
        // An error would mean that the states are gone, and they are kept here.
        let _ = self.changes().wait_for(|states| states.iter().all(Option::is_some)).await;
    }
}

/// One of them; an error says which key is wrong and why.
fn open(config: &UpstreamConfig, metrics: &Metrics, scope: &Shutdown, house: &Shutdown) -> Result<Upstream, String> {
    let address = address(&config.url)?;
    let prefix = prefix(&config.prefix)?;
    let health = config.health.as_ref().map(|path| {
        let parsed = path.parse::<PathAndQuery>().ok().filter(|_| path.starts_with('/'));
        parsed.ok_or_else(|| format!("health = \"{path}\" is no path: it begins with a slash"))
    });
    let host = config.host.as_ref().map(|host| {
        let parsed = host.parse::<Authority>().ok().filter(|parsed| parsed.host() == host);
        parsed
            .map(|parsed| parsed.host().to_ascii_lowercase())
            .ok_or_else(|| format!("host = \"{host}\" is no host: it is a name or an address, without a port"))
    });
    let send_host = config
        .send_host
        .as_ref()
        .map(|host| host.parse::<Authority>().map_err(|_| format!("send_host = \"{host}\" is no host")));
    let times = [
        ("interval", config.interval),
        ("check_timeout", config.check_timeout),
        ("connect_timeout", config.connect_timeout),
        ("timeout", config.timeout),
    ];
    if let Some((key, _)) = times.iter().find(|(_, time)| time.is_zero()) {
        return Err(format!("{key} is zero, so nothing would ever be in time"));
    }
    if !(1..=100_000).contains(&config.max_requests) {
        return Err("max_requests must be from 1 to 100000".to_owned());
    }
    let meter = metrics.upstream(config.name.as_str());
    let (name, protocol, most) = (config.name.clone(), config.protocol, config.max_requests);
    let pool =
        Pool::new(name.clone(), address.clone(), protocol, config.connect_timeout, most, meter.clone(), house.clone());
    let told = manifest::Upstream { name, host: host.transpose()?, prefix, scope: config.scope, able: false };
    Ok(Upstream {
        told,
        address,
        protocol,
        send_host: send_host.transpose()?,
        health: health.transpose()?,
        interval: config.interval,
        check_timeout: config.check_timeout,
        timeout: config.timeout,
        most,
        places: Arc::new(Semaphore::new(most)),
        pool: Arc::new(pool),
        meter,
        suspected: Notify::new(),
        scope: scope.clone(),
    })
}

fn address(url: &str) -> Result<Authority, String> {
    let wrong = |why: &str| Err(format!("url = \"{url}\" {why}"));
    let Ok(parsed) = url.parse::<Uri>() else { return wrong("is no address: it is like http://127.0.0.1:8000") };
    if parsed.scheme() == Some(&Scheme::HTTPS) {
        return wrong("asks for TLS, which is not spoken to servers behind an agent: it is like http://127.0.0.1:8000");
    }
    if parsed.scheme() != Some(&Scheme::HTTP) {
        return wrong("is no address: it is like http://127.0.0.1:8000");
    }
    if !matches!(parsed.path_and_query().map_or("/", PathAndQuery::as_str), "" | "/") {
        return wrong("has a path: what requests ask for is passed on as it is, see `prefix`");
    }
    match parsed.authority() {
        Some(authority) if !authority.as_str().contains('@') => Ok(authority.clone()),
        _ => wrong("is no address: it is like http://127.0.0.1:8000"),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let sound = text.starts_with('/') && text.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.query().is_none());
    if !sound {
        return Err(format!("prefix = \"{text}\" is no path: it begins with a slash"));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl FnOnce(&mut UpstreamConfig)) -> Result<Upstreams, String> {
        let mut config = UpstreamConfig::new("triton".parse().unwrap(), "http://127.0.0.1:8000");
        change(&mut config);
        let plain = UpstreamConfig::new("plain".parse().unwrap(), "http://[::1]:8001");
        let (metrics, scope) = (Metrics::new(), Shutdown::new());
        Upstreams::new(&[config, plain], &metrics, &scope, &scope).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_work_is_said_with_its_key() {
        type Change = fn(&mut UpstreamConfig);
        let wrong: [(Change, &str); 11] = [
            (|config| config.url = "127.0.0.1:8000".into(), "is no address"),
            (|config| config.url = "https://x:443".into(), "asks for TLS"),
            (|config| config.url = "http://x/y".into(), "has a path"),
            (|config| config.prefix = "v2".into(), "prefix = \"v2\""),
            (|config| config.prefix = "/v2?x".into(), "prefix"),
            (|config| config.health = Some("ready".into()), "health"),
            (|config| config.host = Some("x:80".into()), "without a port"),
            (|config| config.interval = std::time::Duration::ZERO, "interval is zero"),
            (|config| config.max_requests = 0, "max_requests"),
            (|_| {}, "another one has the same host and prefix"),
            (|config| (config.name, config.prefix) = ("plain".parse().unwrap(), "/x".into()), "two of this name"),
        ];
        for (change, said) in wrong {
            let error = read(change).unwrap_err();
            assert!(error.starts_with("[[upstream]] ") && error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn the_closest_takes_a_request_and_relays_hear_of_all() {
        let upstreams =
            read(|config| (config.prefix, config.host) = ("/v2/".into(), Some("Triton.test".into()))).unwrap();
        let find = |uri: &str| {
            let request = Request::get(uri).body(Body::empty()).unwrap();
            upstreams.find(&request).map(|(upstream, fit)| (upstream.name().to_string(), fit.host))
        };
        assert_eq!(find("http://triton.test/v2/x"), Some(("triton".to_owned(), true)));
        assert_eq!(find("http://triton.test/v3"), Some(("plain".to_owned(), false)));
        assert_eq!(find("/v2/x"), Some(("plain".to_owned(), false)));
        let told = upstreams.report();
        assert_eq!((told[0].prefix.as_str(), told[0].able), ("/v2", false), "nobody has looked yet");
        assert_eq!(upstreams.capacity(), 0);
    }
}
