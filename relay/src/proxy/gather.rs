//! A question that all agents are asked at once, and one answer made of theirs.

use std::time::Instant;

use adit_common::id::AgentId;
use adit_common::manifest::{Gather, Scope};
use adit_common::timing::{Stage, Timing};
use adit_common::tunnel::TunnelBody;
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response, StatusCode, Version, header, request, response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use super::answer::AnswerBody;
use super::call::Call;
use super::forward::{Proxy, in_time, lost, unpickable};
use super::headers;
use super::merge::merge;
use super::peek::Peeked;
use super::route::Route;
use crate::error::{Kind, ProxyError};
use crate::fleet::agent::Outcome;
use crate::fleet::balance::{Candidates, pick};

/// Such a question is short.
const QUESTION: usize = 64 << 10;

/// And one agent's answer is a list of its models.
const ANSWER: usize = 4 << 20;

/// One agent's answer, whole.
struct Told {
    agent: AgentId,
    head: response::Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Told {
    /// Whether it is what was asked for; gRPC says so in its trailers, or in the head where there is nothing else.
    fn is_good(&self) -> bool {
        let said = |fields: &HeaderMap| fields.get("grpc-status").is_none_or(|code| code == "0");
        self.head.status == StatusCode::OK && said(&self.head.headers) && self.trailers.as_ref().is_none_or(said)
    }
}

impl Proxy {
    /// Asks all, and answers for all, who was admitted already. Where all must do it, the first that could not is the answer; else those that could are.
    pub(super) async fn gather<B>(
        &self,
        call: &mut Call,
        mut head: request::Parts,
        body: Peeked<B>,
        route: &Route,
        candidates: Candidates<'_>,
    ) -> Result<Response<AnswerBody>, ProxyError>
    where
        B: Body<Data = Bytes, Error = ProxyError> + Unpin,
    {
        let _held = self.metrics.in_flight.hold();
        let admitted = Instant::now();
        call.stopwatch.lap_at(Stage::Admit, admitted);
        let question = in_time(call.deadline, read(body)).await?;
        headers::to_agent(&mut head.headers, call, admitted);
        // Answers are read here: none is to be compressed.
        head.headers.remove(header::ACCEPT_ENCODING);
        head.headers.remove("grpc-accept-encoding");
        let asked = candidates.among.iter().map(|place| {
            let only = std::slice::from_ref(place);
            self.ask(Candidates { agents: candidates.agents, among: only }, head.clone(), question.clone())
        });
        let told = in_time(call.deadline, async { Ok(join_all(asked).await) });
        let told =
            told.await.map_err(|_| ProxyError::new(Kind::DeadlineExceeded, "not all agents answered in time"))?;
        if route.scope == Scope::Control {
            self.catch_up().await;
        }
        call.stopwatch.lap(Stage::Upload);

        let (mut good, mut bad, mut failed) = (Vec::new(), None, None);
        for told in told {
            match told {
                Ok(told) if told.is_good() => good.push(told),
                Ok(told) => bad = bad.or(Some(told)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let all = matches!(route.gather, Gather::Every);
        if all && let Some(error) = failed {
            return Err(error);
        }
        let chosen = if all { bad.take().or_else(|| good.pop()) } else { None };
        let mut answer = match chosen {
            Some(told) => told,
            None => match (self.merged(route, good), bad, failed) {
                (Some(told), _, _) | (None, Some(told), _) => told,
                (None, None, Some(error)) => return Err(error),
                (None, None, None) => {
                    return Err(ProxyError::new(Kind::AgentFailed, "the agents' answers cannot be made one"));
                }
            },
        };
        call.agent = Some(answer.agent);
        headers::to_client(&mut answer.head.headers);
        answer.head.headers.remove(header::CONTENT_LENGTH);
        answer.head.version = Version::default();
        let waited = admitted.elapsed();
        let timing = Timing::merge(call.stopwatch.finish(), waited, None);
        headers::mark(&mut answer.head.headers, call, &timing);
        let body = AnswerBody::whole(answer.body, answer.trailers, self.metrics.clone());
        Ok(Response::from_parts(answer.head, body))
    }

    /// One of many answers, with what they say together.
    fn merged(&self, route: &Route, told: Vec<Told>) -> Option<Told> {
        let body = match &route.gather {
            Gather::Counters { at, key } => {
                let said = told.iter().map(|told| Some((told.agent.clone(), serde_json::from_slice(&told.body).ok()?)));
                let said = said.collect::<Option<Vec<(AgentId, Value)>>>()?;
                let meant = [&route.model, &route.version];
                let narrow = |row: &Value| {
                    let fields = key.iter().zip(meant);
                    fields
                        .filter_map(|(field, meant)| Some((field, meant.as_deref()?)))
                        .all(|(field, meant)| row[field] == meant)
                };
                serde_json::to_vec(&self.ledger.sum(said, at, key, narrow)?).ok()?.into()
            }
            gather => {
                let bodies: Vec<Bytes> = told.iter().map(|told| told.body.clone()).collect();
                merge(gather, &bodies)?
            }
        };
        told.into_iter().next().map(|first| Told { body, ..first })
    }

    async fn ask(&self, candidate: Candidates<'_>, head: request::Parts, question: Bytes) -> Result<Told, ProxyError> {
        let (picked, full) = pick(candidate, &mut Vec::new(), Instant::now());
        self.metrics.no_credit.add(full);
        let mut picked = picked.map_err(unpickable)?;
        let begun = Instant::now();
        let sent = picked.caller.send(Request::from_parts(head, Full::new(question))).await;
        let told = match sent {
            Ok(answer) => {
                let (head, body) = answer.response.into_parts();
                whole(body).await.map(|(body, trailers)| (head, body, trailers))
            }
            Err(failure) => Err(lost(failure)),
        };
        let outcome = told.as_ref().map_or(Outcome::Bad, |(head, ..)| headers::outcome(head));
        let agent = picked.in_flight.agent().id.clone();
        // How long a list takes says nothing of how long an inference does: only failures are noted.
        if outcome == Outcome::Bad {
            self.settle(&mut picked.in_flight, outcome, begun.elapsed(), Instant::now());
        }
        told.map(|(head, body, trailers)| Told { agent, head, body, trailers })
    }
}

/// A question, whole.
async fn read<B>(mut body: Peeked<B>) -> Result<Bytes, ProxyError>
where
    B: Body<Data = Bytes, Error = ProxyError> + Unpin,
{
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await.transpose()? {
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > QUESTION {
            let message = format!("a question for all agents has at most {QUESTION} bytes");
            return Err(ProxyError::new(Kind::BodyTooLarge, message));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// An answer, whole.
async fn whole(mut body: TunnelBody) -> Result<(Bytes, Option<HeaderMap>), ProxyError> {
    let (mut whole, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ProxyError::new(Kind::AgentFailed, "the agent failed within its answer").because(error))?;
        match frame.into_data() {
            Ok(data) if whole.len() + data.len() > ANSWER => {
                return Err(ProxyError::new(
                    Kind::AgentFailed,
                    "an agent's answer is too long to be joined with others",
                ));
            }
            Ok(data) => whole.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((whole.freeze(), trailers))
}
