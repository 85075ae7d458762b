//! `adit` as a library: ask a model through a relay, see where the time went, and measure it honestly.
//!
//! A question walks down once. [`Connector`] opens a [`Connection`] (HTTP/2 or HTTP/1.1, by ALPN); [`Model::learn`] asks
//! the model for the names of its input and output; [`classify`] sends an image and gives back an [`Answer`] with its
//! classes and the path's timing, which [`waterfall()`] draws. [`measure`] does the same many times by a [`Plan`], and a
//! [`Report`] says what came of it. The programs' commands are [`classify_images`], [`detect_images`] and [`test_model`]; all that they print goes to
//! the writer that they are given.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod answer;
mod args;
mod classify;
mod connect;
mod connection;
mod detect;
mod drawn;
mod error;
mod gallery;
mod histogram;
mod jitter;
mod load;
mod model;
mod report;
mod tally;
mod target;
mod trial;
mod waterfall;

pub use answer::{Answer, Found, classify, detect};
pub use args::{ArrivalsArg, ClassifyArgs, Cli, Command, ConnectionArgs, DetectArgs, TestArgs};
pub use classify::classify_images;
pub use connect::{Connector, Key, Options, Trust, connect};
pub use connection::{Connection, Exchange, Protocol, Setup};
pub use detect::detect_images;
pub use error::ClientError;
pub use histogram::Distribution;
pub use jitter::Jitter;
pub use load::{Arrivals, Pacing, Plan, Sample, measure, schedule};
pub use model::Model;
pub use report::{Report, Subject};
pub use tally::Tally;
pub use target::Target;
pub use trial::test_model;
pub use waterfall::waterfall;
