//! From the bytes of a picture to the numbers of a network's input, in two steps that a caller can time apart:
//! [`decode`] (bytes to [`Pixels`]) and [`prepare`] (pixels to one normalised image). [`batch`] puts prepared images
//! together into a tensor.
//!
//! Everything agrees with Pillow, in which the reference outputs of published models are made: the same JPEG
//! decoder arithmetic, the same resizing, the same conversions to grey and from CMYK.

mod decode;
mod digit;
mod draw;
mod jpeg;
mod limits;
mod pixels;
mod prepare;
mod preprocess;
mod resize;

pub use decode::decode;
pub use draw::digit_picture;
pub use limits::ImageLimits;
pub use pixels::Pixels;
pub use prepare::{batch, prepare};
pub use preprocess::{ChannelOrder, Invert, Preprocess, Resize};
