//! What is done to a picture before a network sees it: the `[preprocess]` section of a `model.toml`.

use adit_picture::ImageError;
use serde::{Deserialize, Serialize};

use crate::shape::ImageShape;

/// How a picture becomes a network's input, in this order: channels, inversion, resizing, scale, mean, deviation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Written", rename_all = "snake_case")]
pub struct Preprocess {
    size: [usize; 2],
    resize: Resize,
    filter: Filter,
    decode: Decode,
    channels: ChannelOrder,
    invert: Invert,
    scale: f64,
    mean: Vec<f64>,
    std: Vec<f64>,
}

/// How the picture is brought to the network's height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resize {
    /// `resize = "stretch"`: to exactly the size; proportions are not kept.
    Stretch,
    /// `resize = { short_side = 256 }`: the shorter side to this many pixels, keeping proportions, then the middle is
    /// cut out (the odd pixel stays to the right and below).
    ShortSide(usize),
    /// `resize = { letterbox = 114 }`: as large as fits, keeping proportions, at the top left; what is left to the
    /// right and below is filled with this byte, as YOLOX does.
    Letterbox(u8),
    /// `resize = "digit"`: a handwritten digit, bright on dark, as MNIST prepared them: cut to its ink, fitted into
    /// 20/28 of the size, placed with its centre of mass in the middle. One channel only.
    Digit,
}

/// How pixels are made of pixels when the size changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Each pixel is the mean of all that it covers, weighted by their distance, as Pillow's `BILINEAR`: what most
    /// classifiers were trained with.
    #[default]
    Antialias,
    /// As that, but with Pillow's `BICUBIC`, which keeps edges sharper: what most newer classifiers were trained with.
    Bicubic,
    /// Each pixel is mixed of the four around its middle, as OpenCV's `INTER_LINEAR`: what most detectors were trained
    /// with.
    Bilinear,
}

/// How many of a JPEG's pixels are decoded. Other formats, and pictures of digits, always are as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decode {
    /// All of them, as reference programs do: the answers are theirs.
    Full,
    /// Their means over 2 x 2, 4 x 4 or 8 x 8, where four times what the network sees in each direction is left: large
    /// photographs are decoded sooner, and in less memory.
    Scaled,
}

/// Which planes the network sees, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red: networks that were trained with Caffe or OpenCV.
    Bgr,
    /// One plane: brightness.
    Grey,
}

impl ChannelOrder {
    /// Number of planes.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

/// Whether dark and bright change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invert {
    /// As it is.
    #[default]
    Never,
    /// Always.
    Always,
    /// When the picture's border is bright: ink on paper, for a network that was trained on bright strokes over a
    /// dark ground.
    Auto,
}

/// The section as it is written, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct Written {
    /// Height and width in pixels.
    size: [usize; 2],
    resize: Resize,
    /// Antialiased when absent.
    #[serde(default)]
    filter: Filter,
    /// Full for the bilinear filter and scaled for the others, when absent.
    decode: Option<Decode>,
    #[serde(default = "rgb")]
    channels: ChannelOrder,
    #[serde(default)]
    invert: Invert,
    /// What a byte is multiplied by first; 1/255 when absent.
    #[serde(default = "unit")]
    scale: f64,
    /// What is subtracted then, one number a plane; zeros when absent.
    mean: Option<Vec<f64>>,
    /// What it is divided by last, one number a plane; ones when absent.
    std: Option<Vec<f64>>,
}

const fn rgb() -> ChannelOrder {
    ChannelOrder::Rgb
}

const fn unit() -> f64 {
    1.0 / 255.0
}

/// A network's input is at most this high and wide: far above any here, and far below what exhausts memory.
const MAX_SIDE: usize = 4096;

impl TryFrom<Written> for Preprocess {
    type Error = ImageError;

    fn try_from(written: Written) -> Result<Self, ImageError> {
        let refuse = |reason: &str| Err(ImageError::Preprocess(reason.to_owned()));
        let Written { size, resize, filter, decode, channels, invert, scale, mean, std } = written;
        if size.iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            return refuse("`size` must be two numbers from 1 to 4096: height and width");
        }
        match resize {
            Resize::ShortSide(side) if side < size[0].max(size[1]) || side > MAX_SIDE => {
                return refuse("`short_side` must be at least both sides of `size`, and at most 4096");
            }
            Resize::Digit if channels != ChannelOrder::Grey => {
                return refuse("`resize = \"digit\"` needs `channels = \"grey\"`");
            }
            Resize::Digit if filter != Filter::Antialias => {
                return refuse("`resize = \"digit\"` takes no other `filter`");
            }
            _ => {}
        }
        let mean = mean.unwrap_or_else(|| vec![0.0; channels.count()]);
        let std = std.unwrap_or_else(|| vec![1.0; channels.count()]);
        if mean.len() != channels.count() || std.len() != channels.count() {
            return refuse("`mean` and `std` must have one number for each channel");
        }
        if !scale.is_finite() || mean.iter().chain(&std).any(|number| !number.is_finite()) || std.contains(&0.0) {
            return refuse("`scale`, `mean` and `std` must be finite, and `std` not zero");
        }
        // Without antialiasing a network sees single pixels of the picture, and other ones once it is scaled.
        let decode = decode.unwrap_or(match filter {
            Filter::Antialias | Filter::Bicubic => Decode::Scaled,
            Filter::Bilinear => Decode::Full,
        });
        Ok(Self { size, resize, filter, decode, channels, invert, scale, mean, std })
    }
}

impl Preprocess {
    /// Shape of what comes out: the network's input must have the same.
    #[must_use]
    pub fn shape(&self) -> ImageShape {
        ImageShape::new(self.channels.count(), self.size[0], self.size[1])
    }

    /// Order of the planes.
    #[must_use]
    pub fn channels(&self) -> ChannelOrder {
        self.channels
    }

    /// How the size is reached.
    #[must_use]
    pub fn resize(&self) -> Resize {
        self.resize
    }

    /// How pixels are made of pixels.
    #[must_use]
    pub fn filter(&self) -> Filter {
        self.filter
    }

    /// How many of a JPEG's pixels are decoded.
    #[must_use]
    pub fn decode(&self) -> Decode {
        self.decode
    }

    /// Whether dark and bright change places.
    #[must_use]
    pub fn invert(&self) -> Invert {
        self.invert
    }

    /// What a number from 0 to 1, which stands for a byte from 0 to 255, becomes in a plane.
    pub(crate) fn number(&self, plane: usize, number: f32) -> f32 {
        ((f64::from(number) * 255.0 * self.scale - self.mean[plane]) / self.std[plane]) as f32
    }

    /// What each of the 256 bytes becomes in a plane: ((byte x scale) - mean) / std.
    pub(crate) fn table(&self, plane: usize) -> [f32; 256] {
        let (mean, std) = (self.mean[plane], self.std[plane]);
        // In f64 and rounded once, so that the result does not depend on the order of operations.
        std::array::from_fn(|byte| ((byte as f64 * self.scale - mean) / std) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Preprocess, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_section_needs_only_its_size_and_how_to_reach_it() {
        let least = parse(r#"{ "size": [224, 200], "resize": "stretch" }"#).unwrap();
        assert_eq!(least.shape(), ImageShape::new(3, 224, 200));
        assert_eq!(least.table(2)[255], 1.0);
        let full = parse(
            r#"{ "size": [227, 227], "resize": { "short_side": 256 }, "channels": "bgr", "scale": 1,
                 "mean": [104, 117, 123], "std": [1, 1, 2] }"#,
        )
        .unwrap();
        assert_eq!((full.table(0)[0], full.table(2)[125]), (-104.0, 1.0));
    }

    #[test]
    fn scaled_decoding_is_for_networks_that_see_antialiased_pictures() {
        let decode =
            |more: &str| parse(&format!(r#"{{ "size": [224, 200], "resize": "stretch"{more} }}"#)).unwrap().decode();
        assert_eq!(decode(""), Decode::Scaled);
        assert_eq!(decode(r#", "decode": "full""#), Decode::Full);
        assert_eq!(decode(r#", "filter": "bicubic""#), Decode::Scaled);
        assert_eq!(decode(r#", "filter": "bilinear""#), Decode::Full);
        assert_eq!(decode(r#", "filter": "bilinear", "decode": "scaled""#), Decode::Scaled);
    }

    #[test]
    fn contradictions_are_refused() {
        for (wrong, because) in [
            (r#"{ "size": [224, 224] }"#, "resize"),
            (r#"{ "size": [0, 224], "resize": "stretch" }"#, "size"),
            (r#"{ "size": [224, 224], "resize": "sideways" }"#, "sideways"),
            (r#"{ "size": [224, 224], "resize": { "short_side": 200 } }"#, "short_side"),
            (r#"{ "size": [28, 28], "resize": "digit" }"#, "grey"),
            (r#"{ "size": [28, 28], "resize": "digit", "channels": "grey", "filter": "bilinear" }"#, "filter"),
            (r#"{ "size": [28, 28], "resize": { "letterbox": 256 } }"#, "256"),
            (r#"{ "size": [28, 28], "resize": "stretch", "mean": [1, 2] }"#, "mean"),
            (r#"{ "size": [28, 28], "resize": "stretch", "std": [1, 0, 1] }"#, "zero"),
            (r#"{ "size": [28, 28], "resize": "stretch", "crop": 3 }"#, "crop"),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(because), "{wrong}: {error}");
        }
    }
}
