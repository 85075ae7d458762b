//! Other systems' dialects, so that their clients can be pointed here unchanged. One file a dialect.

pub(super) mod photo;
