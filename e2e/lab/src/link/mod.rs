//! A link between two network namespaces, emulated in user space.
//!
//! Not every kernel has netem, and few machines let one load it. So the link is two TUN devices with a program between them: a
//! `pump` a direction takes packets out of one, asks the `line` what becomes of each, and writes it into the other when its time has come.
//! The line is a pure machine, its time passed in: it `drops` at random or in bursts, polices, queues in front of a
//! bottleneck, and delays. `settings` say how, and may be changed at any time over a `control` socket, which also gives out what
//! the `counters` have seen.

mod control;
mod counters;
mod device;
mod drops;
mod emulate;
mod line;
mod pump;
mod settings;

pub(crate) use control::tell;
pub(crate) use counters::{Both, Seen};
pub(crate) use emulate::{LinkArgs, emulate};
