//! What the program does: one file a command.

mod bench;
mod check;
mod draw;
mod infer;
mod interrupt;
mod list;
mod publishing;
mod pull;
mod quantise;
mod run;
mod show;
mod status;
mod table;
mod train;

pub(crate) use bench::{Bench, bench};
pub(crate) use check::check;
pub(crate) use draw::draw;
pub(crate) use infer::infer;
pub(crate) use list::list;
pub(crate) use pull::{Pull, pull};
pub(crate) use quantise::{Quantise, quantise};
pub(crate) use run::run;
pub(crate) use status::misconfigured;
pub(crate) use train::{Train, train};
