//! Plain TCP that fills a link: whom a tunnel has to share with.
//!
//! `serve` listens where it is asked from, `send` opens as many flows to it as it is told, either way, each with the congestion
//! control that is asked for, and `meter` says what arrived in every second.

mod meter;
mod send;
mod serve;

pub(crate) use meter::Flows;
pub(crate) use send::{FlowArgs, send};
pub(crate) use serve::{SinkArgs, serve};
