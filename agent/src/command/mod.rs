//! What the program does: one file a command.

mod check;
mod draw;
mod infer;
mod run;
mod status;
mod train;

pub(crate) use check::check;
pub(crate) use draw::draw;
pub(crate) use infer::infer;
pub(crate) use run::run;
pub(crate) use status::misconfigured;
pub(crate) use train::train_digits;
