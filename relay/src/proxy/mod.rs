//! One request's way from the front to an agent and back.
//!
//! `forward` is the walk, in reading order: `auth` says who asks (from the file that `keys` keeps), `route` what for, by what is `known` of each model (of the
//! agents' own endpoints and the `upstreams` behind them; where only the body names the model, `peek` reads as much of it as `naming` needs),
//! `admission` whether there is room, `absence` whether who is missing may be back in a moment; then the fleet picks an agent, `upload` streams the body, `retry` says whether a
//! failure may be tried elsewhere, and `answer` streams the answer back. A question for all agents goes by `gather`, which has their
//! answers `merge`d, and counters kept in a `ledger`. `call` is what travels along, `headers` what is
//! taken off and put on at the border.

pub(crate) mod absence;
pub(crate) mod admission;
mod answer;
pub(crate) mod auth;
pub(crate) mod call;
pub(crate) mod forward;
mod gather;
mod headers;
pub(crate) mod keys;
mod known;
mod ledger;
mod merge;
mod naming;
mod peek;
mod retry;
mod route;
mod upload;
mod upstreams;

pub(crate) use answer::AnswerBody;
pub(crate) use headers::mark;
