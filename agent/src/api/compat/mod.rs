//! Other systems' dialects, so that their clients can be pointed here unchanged. One file a dialect.
//!
//! What several of them need: `form` reads what browsers and scripts post, `few` the lists of a JSON body, `boxes` asks a detector
//! and cuts its answer to whole pixels.

pub(super) mod annotate;
mod boxes;
pub(super) mod deepstack;
pub(super) mod detect;
mod few;
mod form;
pub(super) mod frames;
pub(super) mod photo;
pub(super) mod predictions;
mod uuid;
