//! Looks at a server again and again, and says when it is up and when it is down.

use std::sync::Arc;
use std::time::Duration;

use adit_common::daemon::Shutdown;
use http::{HeaderValue, Method, Request, Uri, Version, header};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::body::Given;
use super::carry::Upstream;
use super::fault::Fault;
use super::health::Health;
use crate::config::UpstreamProtocol;

/// A suspicion is looked into at once, but no sooner after the last look than this: requests may come by the thousand.
const CALM: Duration = Duration::from_millis(250);

/// What a server was last found to be, `None` before the first look; one for each.
pub(super) type States = watch::Sender<Vec<Option<bool>>>;

/// Looks after a server until the house drains; `place` is its own in the states.
pub(super) async fn watch(upstream: Arc<Upstream>, states: Arc<States>, place: usize, house: Shutdown) {
    let mut health = Health::default();
    loop {
        let begun = Instant::now();
        let found = tokio::select! {
            found = look(&upstream) => found,
            () = house.draining() => return,
        };
        health.record(found.is_ok());
        upstream.pool.sweep();
        let changed = states.send_if_modified(|states| {
            let Some(state) = states.get_mut(place) else { return false };
            let before = state.replace(health.is_up());
            before != Some(health.is_up())
        });
        if changed {
            upstream.meter.set_up(health.is_up());
            match (health.is_up(), &found) {
                (true, _) => tracing::info!(upstream = %upstream.name(), "the server behind the agent is up"),
                (false, Err(reason)) => {
                    tracing::warn!(upstream = %upstream.name(), %reason, "the server behind the agent is down");
                }
                (false, Ok(())) => {}
            }
        }
        let calm = begun + CALM.min(upstream.interval);
        tokio::select! {
            () = sleep_until(begun + health.pause(upstream.interval)) => {}
            () = upstream.suspected.notified(), if health.is_up() => sleep_until(calm).await,
            () = house.draining() => return,
        }
    }
}

/// One look; an error says what is wrong.
async fn look(upstream: &Upstream) -> Result<(), String> {
    let told = |fault: Fault| fault.to_string();
    let look = async {
        let Some(path) = &upstream.health else {
            return upstream.pool.connect().await.map(drop).map_err(told);
        };
        let mut line = upstream.pool.dial().await.map_err(told)?;
        let mut request = Request::new(Given::nothing());
        *request.method_mut() = Method::GET;
        let host = upstream.send_host.as_ref().unwrap_or(&upstream.address).as_str();
        match upstream.protocol {
            UpstreamProtocol::H1 => {
                *request.uri_mut() = Uri::from(path.clone());
                request
                    .headers_mut()
                    .insert(header::HOST, HeaderValue::from_str(host).map_err(|error| error.to_string())?);
                request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            UpstreamProtocol::H2c => {
                *request.uri_mut() = format!("http://{host}{path}").parse().map_err(|_| "no target".to_owned())?;
                *request.version_mut() = Version::HTTP_2;
            }
        }
        let answer = line.send(request).await.map_err(|failed| failed.into_error().to_string())?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answers {status} to {path}")),
        }
    };
    let limit: Duration = upstream.check_timeout;
    timeout(limit, look).await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
}
