//! The steps of a plan: each knows where it reads and writes, holds its weights as its inner loop wants them, and shares its work
//! out to threads.
//!
//! A step is built from views, and refuses what would reach outside of them: that is what its unsafe blocks rely on.

pub(crate) mod bytes;
pub(crate) mod channels;
pub(crate) mod cover;
pub(crate) mod depthwise;
pub(crate) mod direct;
pub(crate) mod elementwise;
pub(crate) mod expanded;
pub(crate) mod layer;
pub(crate) mod linear;
pub(crate) mod pool;
pub(crate) mod pooled;
pub(crate) mod regroup;
pub(crate) mod scale;
pub(crate) mod step;
pub(crate) mod upsample;
pub(crate) mod view;
pub(crate) mod winograd;
