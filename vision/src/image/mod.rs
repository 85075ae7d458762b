//! From the bytes of a picture to the numbers of a network's input, in two steps that a caller can time apart:
//! [`decode`] (bytes to [`Pixels`]) and [`prepare`] (pixels to one normalised image). [`batch`] puts prepared images
//! together into a tensor.
//!
//! Everything agrees with Pillow, in which the reference outputs of published models are made: the same JPEG
//! decoder arithmetic, the same resizing, the same conversions to grey and from CMYK. Detectors were mostly trained
//! with OpenCV: its resizing is there too ([`Filter`]). A [`Frame`] says where a picture lies in a network's input.

mod bilinear;
mod digit;
mod draw;
mod frame;
mod prepare;
mod preprocess;
mod resize;
mod scale;

pub use adit_picture::{ImageLimits, Pixels, decode};

pub use draw::digit_picture;
pub use frame::Frame;
pub use prepare::{batch, normalise, prepare};
pub use preprocess::{ChannelOrder, Decode, Filter, Invert, Preprocess, Resize};
pub use scale::decode_for;
