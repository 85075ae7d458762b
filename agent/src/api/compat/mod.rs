//! Other systems' dialects, so that their clients can be pointed here unchanged. One file a dialect.

mod photo;

pub(super) use photo::{greet, photo};
