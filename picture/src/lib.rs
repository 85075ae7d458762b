//! Pictures: from bytes to pixels, boxes drawn on them, and to bytes again; pure computation, no network, no clock.
//!
//! [`decode`] makes [`Pixels`] of a file's bytes, upright as its EXIF orientation says, within [`ImageLimits`]; [`annotate`]
//! draws [`Mark`]s on them; [`encode`] makes a PNG or a JPEG of them. A crate of its own, because the agent and the command-line
//! client both draw, and the client is to be built without networks.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod annotate;
mod colour;
mod decode;
mod encode;
mod error;
mod jpeg;
mod lettering;
mod limits;
mod pixels;
mod span;

pub use annotate::{Caption, Mark, annotate, list};
pub use colour::Colour;
pub use decode::{decode, decode_smaller};
pub use encode::{Format, encode};
pub use error::ImageError;
pub use image::metadata::Orientation;
pub use limits::ImageLimits;
pub use pixels::{Pixels, is_turned};
pub use span::Span;
