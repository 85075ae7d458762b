//! One packet's worth of parity beside every block of a message, so that a single loss is repaired without a round trip.
//!
//! A path that loses packets at random makes a request of a hundred packets wait for a second round trip nearly every time, whatever
//! decides how much may be under way. So where the path is known to do that, the sender sums up what a message's stream carries:
//! byte `i` of a block of a few dozen packets into place `i mod STRIDE`, by exclusive or. One packet leaves a gap that meets each place
//! once at most, so that the sum and all other bytes of the block give it back.
//!
//! The walk: [`cover`] sums up what a message sends and cuts the sum of each block into [`part`]s; [`desk`], one for each session, sends them
//! as datagrams once what they are about has left, and puts those of the peer on [`shelves`] for whoever reads the stream by a [`watch`], whose
//! [`repair`] puts the stream together. Streams are as they would be without: parity is only beside them, and none of it is sent again.
//!
//! A message is of use when all of it is there, so its parity goes when its last byte has gone; of what was sent two round trips before
//! that losses have been mended by then.

mod block;
mod cover;
mod desk;
mod losses;
mod part;
mod repair;
mod shelves;
mod sum;
mod watch;

pub(super) use cover::Cover;
pub(super) use desk::Parity;
pub(super) use watch::Watch;
