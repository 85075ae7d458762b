//! From pixels to a network's input.

use std::borrow::Cow;

use candle_core::{Device, Tensor};

use crate::error::{ImageError, VisionError};
use crate::image::frame::{letterbox_ratio, short_side};
use crate::image::pixels::Pixels;
use crate::image::preprocess::{ChannelOrder, Filter, Invert, Preprocess, Resize};
use crate::image::resize::{Cut, Raster};
use crate::image::{bilinear, digit};
use crate::shape::ImageShape;

/// Prepares one picture: planes one after another (CHW), f32, [`Preprocess::shape`] elements.
pub fn prepare(pixels: &Pixels, preprocess: &Preprocess) -> Result<Vec<f32>, ImageError> {
    let shape = preprocess.shape();
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let bytes = match preprocess.channels() {
        ChannelOrder::Grey => Cow::Owned(pixels.grey()),
        ChannelOrder::Rgb | ChannelOrder::Bgr => Cow::Borrowed(pixels.rgb()),
    };
    let mut raster = Raster { width, height, channels: shape.channels, bytes };
    let inverted = match preprocess.invert() {
        Invert::Never => false,
        Invert::Always => true,
        Invert::Auto => digit::is_ink_on_paper(&pixels.grey(), width),
    };
    if inverted {
        raster.bytes.to_mut().iter_mut().for_each(|byte| *byte = 255 - *byte);
    }
    let fitted = match preprocess.resize() {
        Resize::Stretch => whole(&raster, preprocess.filter(), shape.width, shape.height),
        Resize::ShortSide(side) => {
            // Only the middle is computed, so that a picture like a thread costs no more than others.
            let (scaled, [left, top]) = short_side([width, height], side, shape);
            let cut = Cut { left, top, width: shape.width, height: shape.height };
            resized(&raster, preprocess.filter(), scaled, cut)
        }
        Resize::Letterbox(border) => letterbox(&raster, preprocess.filter(), border, shape),
        Resize::Digit => digit::fit(&raster, shape.width, shape.height)?,
    };
    Ok(planes(&fitted, preprocess))
}

/// Puts prepared images of one shape together: `[N, C, H, W]` f32.
pub fn batch<T: AsRef<[f32]>>(images: &[T], shape: ImageShape, device: &Device) -> Result<Tensor, VisionError> {
    let mut elements = Vec::with_capacity(images.len() * shape.elements());
    for image in images {
        let image = image.as_ref();
        if image.len() != shape.elements() {
            return Err(VisionError::Input { expected: shape, found: vec![image.len()] });
        }
        elements.extend_from_slice(image);
    }
    let ImageShape { channels, height, width } = shape;
    Ok(Tensor::from_vec(elements, (images.len(), channels, height, width), device)?)
}

/// A part of the picture at another width and height.
fn resized(raster: &Raster<'_>, filter: Filter, [width, height]: [usize; 2], cut: Cut) -> Raster<'static> {
    match filter {
        Filter::Antialias => raster.resized_cut(width, height, cut),
        Filter::Bilinear => bilinear::resized_cut(raster, width, height, cut),
    }
}

fn whole(raster: &Raster<'_>, filter: Filter, width: usize, height: usize) -> Raster<'static> {
    resized(raster, filter, [width, height], Cut { left: 0, top: 0, width, height })
}

/// As large as fits, at the top left, `border` around it; sizes are cut to whole pixels, as YOLOX does.
fn letterbox(raster: &Raster<'_>, filter: Filter, border: u8, shape: ImageShape) -> Raster<'static> {
    let ratio = letterbox_ratio([raster.width, raster.height], shape);
    let fitted = |length: usize, most: usize| ((length as f64 * ratio) as usize).clamp(1, most);
    let (width, height) = (fitted(raster.width, shape.width), fitted(raster.height, shape.height));
    let picture = whole(raster, filter, width, height);
    let mut bytes = vec![border; shape.elements()];
    let rows = bytes.chunks_exact_mut(shape.width * raster.channels);
    for (row, source) in rows.zip(picture.bytes.chunks_exact(width * raster.channels)) {
        row[..source.len()].copy_from_slice(source);
    }
    Raster { width: shape.width, height: shape.height, channels: raster.channels, bytes: bytes.into() }
}

fn planes(raster: &Raster<'_>, preprocess: &Preprocess) -> Vec<f32> {
    let channels = raster.channels;
    let mut elements = Vec::with_capacity(raster.bytes.len());
    for plane in 0..channels {
        let table = preprocess.table(plane);
        let source = if preprocess.channels() == ChannelOrder::Bgr { channels - 1 - plane } else { plane };
        elements.extend(raster.bytes.iter().skip(source).step_by(channels).map(|byte| table[usize::from(*byte)]));
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocess(text: &str) -> Preprocess {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn planes_come_in_the_asked_order() {
        let pixels = Pixels::new(2, 1, vec![10, 20, 30, 40, 50, 60]).unwrap();
        let rgb = preprocess(r#"{ "size": [1, 2], "resize": "stretch", "scale": 1 }"#);
        assert_eq!(prepare(&pixels, &rgb).unwrap(), [10., 40., 20., 50., 30., 60.]);
        let bgr =
            preprocess(r#"{ "size": [1, 2], "resize": "stretch", "scale": 1, "channels": "bgr", "mean": [1, 2, 3] }"#);
        assert_eq!(prepare(&pixels, &bgr).unwrap(), [29., 59., 18., 48., 7., 37.]);
        let grey = preprocess(
            r#"{ "size": [1, 2], "resize": "stretch", "scale": 1, "channels": "grey", "invert": "always" }"#,
        );
        assert_eq!(prepare(&pixels, &grey).unwrap(), [237., 207.]);
    }

    #[test]
    fn the_middle_is_cut_out_with_the_odd_pixel_to_the_right() {
        // 5 x 2, short side 2, so that it is only cut: columns 1 and 2 of 0 to 4.
        let rgb: Vec<u8> = (0..10u8).flat_map(|i| [i, i, i]).collect();
        let pixels = Pixels::new(5, 2, rgb).unwrap();
        let cut = preprocess(r#"{ "size": [2, 2], "resize": { "short_side": 2 }, "scale": 1, "channels": "grey" }"#);
        assert_eq!(prepare(&pixels, &cut).unwrap(), [1., 2., 6., 7.]);
    }

    #[test]
    fn a_letterbox_is_filled_to_the_right_and_below() {
        let pixels = Pixels::new(4, 2, vec![200; 24]).unwrap();
        let section = |size: &str| {
            preprocess(&format!(
                r#"{{ "size": {size}, "resize": {{ "letterbox": 7 }}, "scale": 1, "channels": "grey" }}"#
            ))
        };
        assert_eq!(prepare(&pixels, &section("[2, 2]")).unwrap(), [200., 200., 7., 7.]);
        assert_eq!(prepare(&pixels, &section("[1, 3]")).unwrap(), [200., 200., 7.]);
        // A thread still leaves a pixel.
        let thread = Pixels::new(900, 1, vec![9; 2700]).unwrap();
        assert_eq!(prepare(&thread, &section("[2, 3]")).unwrap(), [9., 9., 9., 7., 7., 7.]);
    }

    #[test]
    fn a_thread_costs_no_more_than_others() {
        // Whole, it would be 256 x 4,096,000 pixels.
        let pixels = Pixels::new(16_000, 1, vec![9; 48_000]).unwrap();
        let section = preprocess(r#"{ "size": [224, 224], "resize": { "short_side": 256 }, "scale": 1 }"#);
        assert!(prepare(&pixels, &section).unwrap().iter().all(|element| *element == 9.0));
    }

    #[test]
    fn a_batch_takes_only_images_of_its_shape() {
        let shape = ImageShape::new(1, 2, 2);
        let tensor = batch(&[vec![0f32; 4], vec![1.; 4]], shape, &Device::Cpu).unwrap();
        assert_eq!(tensor.dims(), [2, 1, 2, 2]);
        assert!(batch(&[vec![0f32; 5]], shape, &Device::Cpu).is_err());
    }
}
