//! The walk of one request, in reading order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_common::deadline::Deadline;
use adit_common::manifest::{Dialect, Gather, Scope};
use adit_common::timing::{Stage, Timing};
use adit_common::tunnel::{Answer, CallError, ResetCode, Sent, TunnelBody, TunnelError};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response, Version, request};
use http_body::Body;
use http_body_util::BodyExt as _;
use tracing::Span;

use super::absence::Absence;
use super::admission::{Admission, Permit};
use super::answer::{AnswerBody, Holding};
use super::auth::{Keys, Principal};
use super::call::Call;
use super::headers;
use super::ledger::Ledger;
use super::naming::Reader;
use super::peek::Peeked;
use super::retry::RetryPolicy;
use super::route::{Route, RouteTable};
use super::upload::{Ended, Upload};
use crate::error::{Kind, ProxyError};
use crate::fleet::agent::{Agent, InFlight, Outcome};
use crate::fleet::balance::{Candidates, NoPick, Picked, pick};
use crate::fleet::registry::{Registry, Snapshot};
use crate::metrics::{Held, Metrics};

/// How long an answer to who changes an agent may wait for the agent's manifest.
const MOMENT: Duration = Duration::from_millis(100);

/// The fleet at a moment with the routes through it.
#[derive(Debug)]
struct Routes {
    of: Arc<Snapshot>,
    agents: Vec<Arc<Agent>>,
    table: RouteTable,
}

impl Routes {
    fn build(of: Arc<Snapshot>) -> Self {
        let live = || of.members.iter().filter(|member| !member.agent.is_retired());
        let table = RouteTable::build(
            live().map(|member| &*member.manifest),
            of.gone.iter().map(|gone| (&*gone.manifest, gone.at)),
        );
        Self { agents: live().map(|member| member.agent.clone()).collect(), table, of }
    }

    /// What a request means, and the places of those that could answer it. Looks into the body where that says which.
    async fn find<B>(
        &self,
        call: &mut Call,
        principal: &Principal,
        head: &request::Parts,
        body: &mut Peeked<B>,
    ) -> Result<(Route, Arc<[u32]>), ProxyError>
    where
        B: Body<Data = Bytes, Error = ProxyError> + Unpin,
    {
        let route = self.table.resolve(&head.method, headers::host(head), head.uri.path())?;
        if route.upstream.is_none() {
            call.dialect = route.dialect;
        }
        principal.check(route.scope)?;
        let named = match Reader::new(&route.naming, &head.headers) {
            Some(reader) => in_time(call.deadline, body.look(&reader)).await?,
            None => None,
        };
        let route = self.table.settle(route, named.as_deref());
        principal.check(route.scope)?;
        let among = self.table.candidates(&route, named.as_deref(), Instant::now())?;
        Ok((route, among))
    }
}

/// Takes requests to agents.
#[derive(Debug)]
pub(crate) struct Proxy {
    keys: Arc<Keys>,
    admission: Admission,
    retry: RetryPolicy,
    absence: Absence,
    registry: Arc<Registry>,
    routes: ArcSwap<Routes>,
    building: Mutex<()>,
    pub(super) ledger: Ledger,
    pub(super) metrics: Arc<Metrics>,
}

impl Proxy {
    pub(crate) fn new(
        keys: Arc<Keys>,
        admission: Admission,
        retries: u32,
        absence: Absence,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let routes = ArcSwap::from_pointee(Routes::build(registry.snapshot()));
        let retry = RetryPolicy::new(retries);
        let (building, ledger) = (Mutex::default(), Ledger::default());
        Self { keys, admission, retry, absence, registry, routes, building, ledger, metrics }
    }

    /// Walks a request to an agent, and returns with its answer's head. Dropping the future, or the answer's body, cancels
    /// the exchange.
    pub(crate) async fn forward<B>(
        &self,
        call: &mut Call,
        request: Request<B>,
    ) -> Result<Response<AnswerBody>, ProxyError>
    where
        B: Body<Data = Bytes, Error = ProxyError> + Send + Unpin + 'static,
    {
        let (mut head, body) = request.into_parts();
        let principal = self.keys.authenticate(&head.headers)?;
        call.key.clone_from(&principal.name);
        // Before anything of a body is kept, or anybody waited for.
        let permit = self.admission.admit()?;
        let mut body = Peeked::untouched(body);
        let (routes, route, among) = loop {
            let routes = self.routes();
            match routes.find(call, &principal, &head, &mut body).await {
                Ok((route, among)) => break (routes, route, among),
                Err(error) => self.absence_ends(error, call.deadline, &routes).await?,
            }
        };
        if !route.gather.is_one() && (among.len() > 1 || matches!(route.gather, Gather::Counters { .. })) {
            return self.gather(call, head, body, &route, Candidates { agents: &routes.agents, among: &among }).await;
        }
        let held = self.metrics.in_flight.hold();
        let admitted = Instant::now();
        call.stopwatch.lap_at(Stage::Admit, admitted);

        headers::to_agent(&mut head.headers, call, admitted);
        if route.upstream.is_some() {
            headers::to_upstream(&mut head.headers);
        }
        self.retry.earn();
        let body = Upload::new(body, self.metrics.clone());
        let (method, ended) = (head.method.clone(), body.ended());
        // Only a request without a body can be sent again, for nobody keeps bodies.
        let mut spare = body.again().map(|again| (head.clone(), again));
        let mut next = Request::from_parts(head, body);
        let (mut tried, mut attempt) = (Vec::new(), 0);
        let candidates = Candidates { agents: &routes.agents, among: &among };
        loop {
            attempt += 1;
            let (picked, full) = pick(candidates, &mut tried, Instant::now());
            self.metrics.no_credit.add(full);
            let Picked { mut in_flight, caller } = picked.map_err(unpickable)?;
            let agent = &in_flight.agent().id;
            Span::current().record("agent", tracing::field::display(agent));
            call.agent = Some(agent.clone());
            let begun = Instant::now();
            let result = match call.deadline.instant() {
                Some(until) => tokio::time::timeout_at(until.into(), caller.send(next)).await,
                None => Ok(caller.send(next).await),
            };
            let error = match result {
                Ok(Ok(mut answer)) => {
                    if answer.response.headers().contains_key("grpc-status") {
                        end(call.deadline, answer.response.body_mut()).await;
                    }
                    if route.scope == Scope::Control {
                        self.catch_up().await;
                    }
                    return Ok(self.finish(call, answer, in_flight, permit, held, &method));
                }
                Ok(Err(failure)) => lost(failure),
                Err(_) => late(&ended),
            };
            self.record_failure(&error, &mut in_flight, begun);
            let Some((head, body)) = spare.take().filter(|_| self.retry.allows(&error, &method, attempt)) else {
                return Err(error);
            };
            tracing::debug!(kind = error.kind.name(), cause = %error.detail(), attempt, "asking another agent");
            self.metrics.retries.one();
            spare = body.again().map(|again| (head.clone(), again));
            next = Request::from_parts(head, body);
            // The last resort was the only one: what failed says more than that nobody is left.
            if among.iter().all(|agent| tried.contains(agent)) {
                return Err(error);
            }
        }
    }

    /// Waits for agents that may be back in a moment; or else it is the error that it was.
    async fn absence_ends(&self, error: ProxyError, deadline: Deadline, routes: &Routes) -> Result<(), ProxyError> {
        let lost = routes.of.gone.iter().filter(|gone| !gone.silent).map(|gone| gone.at).max();
        let Some(until) = self.absence.until(&error, lost, Instant::now()) else { return Err(error) };
        let until = deadline.instant().map_or(until, |deadline| deadline.min(until));
        let changed = self.registry.changed_from(&routes.of);
        tokio::time::timeout_at(until.into(), changed).await.map_err(|_| error)
    }

    /// An agent was changed, and says so in its manifest at about the same time as in its answer, on another stream. Whoever has
    /// loaded a model through here asks it next: a moment is given to the manifest.
    pub(super) async fn catch_up(&self) {
        let known = self.registry.snapshot();
        let _ = tokio::time::timeout(MOMENT, self.registry.changed_from(&known)).await;
    }

    /// The table of the present fleet; built by the first request that finds it changed.
    fn routes(&self) -> Arc<Routes> {
        let now = self.registry.snapshot();
        let known = self.routes.load_full();
        if Arc::ptr_eq(&known.of, &now) {
            return known;
        }
        let _alone = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.routes.load_full();
        let now = self.registry.snapshot();
        if Arc::ptr_eq(&known.of, &now) {
            return known;
        }
        let routes = Arc::new(Routes::build(now));
        self.routes.store(routes.clone());
        routes
    }

    fn finish(
        &self,
        call: &mut Call,
        answer: Answer,
        mut in_flight: InFlight,
        permit: Permit,
        held: Held,
        method: &Method,
    ) -> Response<AnswerBody> {
        let arrived = Instant::now();
        let (mut head, body) = answer.response.into_parts();
        call.stopwatch.lap_at(Stage::Pick, answer.opened);
        let sent = answer.sent.unwrap_or(arrived);
        call.stopwatch.lap_at(Stage::Upload, sent);
        let waited = arrived.saturating_duration_since(sent);
        // A slow upload is the client's; what an agent took that answered before its end, nobody can tell apart.
        let latency = if answer.sent.is_some() { waited } else { arrived.saturating_duration_since(answer.opened) };
        self.settle(&mut in_flight, headers::outcome(&head), latency, arrived);
        if call.dialect == Dialect::Grpc {
            // A stream of messages may go on for ever, and be silent in between.
            call.endless.begin();
        }

        let agents = headers::timing(&head.headers);
        let timing = Timing::merge(call.stopwatch.finish_at(arrived), waited, agents.as_ref());
        self.metrics.observe(&timing);
        headers::to_client(&mut head.headers);
        // The tunnel's own; each front speaks its client's.
        head.version = Version::default();
        headers::mark(&mut head.headers, call, &timing);
        let holding = Holding { _in_flight: in_flight, _permit: permit, _held: held };
        let body = AnswerBody::new(body, holding, self.metrics.clone(), *method == Method::HEAD);
        Response::from_parts(head, body)
    }

    fn record_failure(&self, error: &ProxyError, in_flight: &mut InFlight, begun: Instant) {
        let now = Instant::now();
        let outcome = match error.kind {
            Kind::AgentLost | Kind::AgentFailed | Kind::DeadlineExceeded => Outcome::Bad,
            Kind::AgentRejected => Outcome::Busy,
            _ => return,
        };
        self.settle(in_flight, outcome, now.saturating_duration_since(begun), now);
    }

    pub(super) fn settle(&self, in_flight: &mut InFlight, outcome: Outcome, latency: Duration, now: Instant) {
        if in_flight.settle(outcome, latency, now) {
            self.metrics.ejections.one();
            tracing::warn!(agent = %in_flight.agent().id, "agent fails again and again, asking others for a while");
        }
    }
}

pub(super) fn unpickable(reason: NoPick) -> ProxyError {
    match reason {
        NoPick::Full => ProxyError::new(Kind::Overloaded, "every agent that could answer is at its limit"),
        NoPick::Nobody => ProxyError::new(Kind::NoAgent, "the agents that could answer have just left"),
    }
}

/// Waits for what a request's body tells, but not beyond the deadline.
pub(super) async fn in_time<T>(
    deadline: Deadline,
    looked: impl Future<Output = Result<T, ProxyError>>,
) -> Result<T, ProxyError> {
    match deadline.instant() {
        Some(until) => tokio::time::timeout_at(until.into(), looked).await.unwrap_or_else(|_| Err(slow_body())),
        None => looked.await,
    }
}

/// Waits for the end of an answer that has gRPC's status in its head already. The end comes right behind; but a head that is not sent
/// as the end itself is taken by some clients for that of an answer to come, and what follows for one that broke off.
async fn end(deadline: Deadline, body: &mut TunnelBody) {
    let nothing = async { Ok(body.frame().await) };
    // One that does not end is passed on as it is.
    let _ = in_time(deadline, nothing).await;
}

fn slow_body() -> ProxyError {
    ProxyError::new(Kind::BodyTimeout, "the request's body was not sent in time")
}

fn late(ended: &Ended) -> ProxyError {
    if ended.get() {
        ProxyError::new(Kind::DeadlineExceeded, "no answer came in time").after(Sent::All)
    } else {
        slow_body().after(Sent::Part)
    }
}

/// From what the tunnel says to what the caller is told.
pub(super) fn lost(failure: CallError) -> ProxyError {
    let CallError { error, sent } = failure;
    let kind = match &error {
        TunnelError::Reset(ResetCode::REQUEST_REJECTED) | TunnelError::Stopped(ResetCode::REQUEST_REJECTED) => {
            Kind::AgentRejected
        }
        TunnelError::Closed(_) | TunnelError::Lost(_) | TunnelError::GoingAway | TunnelError::NoCredit => {
            Kind::AgentLost
        }
        TunnelError::Body(_) => Kind::ClientGone,
        _ => Kind::AgentFailed,
    };
    if let TunnelError::Body(source) = error {
        // The body's own error says who failed: too long, too slow, or gone.
        return match source.downcast::<ProxyError>() {
            Ok(error) => error.after(sent),
            Err(source) => ProxyError::new(kind, "the request's body broke off").because(source).after(sent),
        };
    }
    let message = match kind {
        Kind::AgentLost => "the agent was lost before it answered",
        Kind::AgentRejected => "the agent did not take the request",
        _ => "the agent failed before it answered",
    };
    ProxyError::new(kind, message).because(error).after(sent)
}

#[cfg(test)]
mod tests {
    use adit_common::tunnel::Loss;

    use super::*;

    fn kind(error: TunnelError) -> Kind {
        lost(CallError { error, sent: Sent::Part }).kind
    }

    #[test]
    fn the_tunnels_errors_become_the_callers() {
        let closed = TunnelError::Closed(quinn::ConnectionError::TimedOut);
        let error = lost(CallError { error: closed, sent: Sent::All });
        assert_eq!((error.kind, error.status().as_u16(), error.sent), (Kind::AgentLost, 502, Sent::All));
        assert!(!error.to_string().contains("timed out") && error.detail().contains("timed out"), "{}", error.detail());
        assert_eq!(kind(TunnelError::Reset(ResetCode::REQUEST_REJECTED)), Kind::AgentRejected);
        assert_eq!(kind(TunnelError::Reset(ResetCode::INTERNAL_ERROR)), Kind::AgentFailed);
        assert_eq!(kind(TunnelError::Lost(Loss::Ended)), Kind::AgentLost);
        assert_eq!(kind(TunnelError::Body("broken pipe".into())), Kind::ClientGone);
        let long = ProxyError::new(Kind::BodyTooLarge, "too long");
        assert_eq!(kind(TunnelError::Body(long.into())), Kind::BodyTooLarge);
    }
}
