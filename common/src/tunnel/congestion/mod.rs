//! How much may be under way on a tunnel: a congestion control of our own, which random loss does not slow down.
//!
//! One connection carries everything here, so a control that halves its window for each lost packet, as NewReno and CUBIC do, gives
//! every request the speed of the unluckiest. [`Adaptive`] asks instead what its own sending does to the path: does the
//! queue drain when it sends less, does more arrive when it sends more, is more lost when it sends more.
//!
//! The walk: quinn tells the [`Controller`](quinn_proto::congestion::Controller) of [`control`] what was acknowledged and lost;
//! [`adaptive`] gathers it into a [`round`], one round trip, and at its end judges it in one of three modes. [`extreme`] remembers
//! the path's floor and crest, [`evidence`] tells our losses from noise, [`cubic`] is how we grow beside flows that fill the queue.
//! No file here asks what time it is.

mod adaptive;
mod calm;
mod contested;
mod control;
mod cubic;
mod evidence;
mod extreme;
mod round;
mod start;
#[cfg(test)]
mod tests;

pub use control::{CongestionControl, KnownPath, Mode, PathMemory, PathReport, UnknownControl};
pub(crate) use control::{let_pass, newest, noise, policed, report};
