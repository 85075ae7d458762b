//! A stand-in for an inference server: it computes nothing and takes set times, so that what a request costs beyond them is the
//! path's. `serve` takes connections in, `answer` answers.

mod answer;
mod serve;

pub(crate) use serve::{StandInArgs, serve};
