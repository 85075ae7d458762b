//! What `dirs` asks of options.

mod contains;

pub use contains::OptionExt;
