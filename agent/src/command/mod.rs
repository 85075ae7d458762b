//! What the program does: one file a command.

mod check;
mod infer;
mod run;
mod status;
mod train;

pub(crate) use check::check;
pub(crate) use infer::infer;
pub(crate) use run::run;
pub(crate) use status::misconfigured;
pub(crate) use train::train_digits;
