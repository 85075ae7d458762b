//! The load generator: asks an HTTP server by a plan and says how it went, as one JSON object.
//!
//! `plan` says what is asked and when, `askers` share the requests among connections, `connection` opens those, `upload`
//! makes bodies, `report` counts; `probe` only waits until many hosts answer. A closed loop has every connection ask again
//! once it was answered: it shows what a system can carry. An open loop asks by a schedule that does not care for answers, and a
//! request that had to wait for a free connection counts from when it should have been sent, so a stall is seen by everybody
//! who would have asked during it.

mod askers;
mod connection;
mod plan;
mod probe;
mod report;
mod upload;

pub(crate) use askers::measure;
pub(crate) use plan::LoadArgs;
pub(crate) use probe::{ProbeArgs, probe};
pub(crate) use report::{Report, Sample, quantile, read_timeline};
