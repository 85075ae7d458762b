//! From pixels to a network's input.

use std::borrow::Cow;

use adit_picture::{ImageError, Pixels};
use candle_core::{Device, Tensor};

use crate::error::VisionError;
use crate::image::frame::short_side;
use crate::image::preprocess::{ChannelOrder, Filter, Invert, Preprocess, Resize};
use crate::image::resize::{Cut, Kernel, Raster};
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
    // The picture's own size counts, not that of the rows: boxes are mapped back by the same numbers.
    let size = pixels.size().map(|side| side as usize);
    let Some([across, down]) = preprocess.fitted(size) else {
        return Ok(planes(&digit::fit(&raster, shape.width, shape.height)?, preprocess));
    };
    // Only what is not cut off is computed, so that a picture like a thread costs no more than others.
    let [left, top] = match preprocess.resize() {
        Resize::ShortSide(side) => short_side(size, side, shape).1,
        _ => [0, 0],
    };
    let cut = Cut { left, top, width: shape.width.min(across - left), height: shape.height.min(down - top) };
    let resized = match preprocess.filter() {
        Filter::Antialias => raster.resized_cut(Kernel::Triangle, pixels.spans(), across, down, cut),
        Filter::Bicubic => raster.resized_cut(Kernel::Cubic, pixels.spans(), across, down, cut),
        Filter::Bilinear => bilinear::resized_cut(&raster, pixels.spans(), across, down, cut),
    };
    Ok(match preprocess.resize() {
        Resize::Letterbox(border) => planes(&padded(&resized, border, shape), preprocess),
        _ => planes(&resized, preprocess),
    })
}

/// Normalises one picture of the network's own size: `pixels` are from 0 to 1, a pixel's channels side by side, red before green
/// before blue (HWC). What comes out is as of [`prepare`]. Nothing is resized, and inverted only what always is: whoever sends
/// numbers has seen to that.
///
/// A picture of another size gives as many numbers as it has, which [`batch`] refuses.
#[must_use]
pub fn normalise(pixels: &[f32], preprocess: &Preprocess) -> Vec<f32> {
    let channels = preprocess.channels().count();
    let inverted = preprocess.invert() == Invert::Always;
    let mut elements = Vec::with_capacity(pixels.len());
    for plane in 0..channels {
        let channel = if preprocess.channels() == ChannelOrder::Bgr { channels - 1 - plane } else { plane };
        let numbers = pixels.iter().skip(channel).step_by(channels);
        elements.extend(numbers.map(|number| preprocess.number(plane, if inverted { 1.0 - number } else { *number })));
    }
    elements
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

/// The picture at the top left, `border` to the right and below.
fn padded(picture: &Raster<'_>, border: u8, shape: ImageShape) -> Raster<'static> {
    let mut bytes = vec![border; shape.elements()];
    let rows = bytes.chunks_exact_mut(shape.width * picture.channels);
    for (row, source) in rows.zip(picture.bytes.chunks_exact(picture.width * picture.channels)) {
        row[..source.len()].copy_from_slice(source);
    }
    Raster { width: shape.width, height: shape.height, channels: picture.channels, bytes: bytes.into() }
}

/// Normalised, and one plane after another, in one pass over the pixels.
fn planes(raster: &Raster<'_>, preprocess: &Preprocess) -> Vec<f32> {
    let mut elements = vec![0.0; raster.bytes.len()];
    let value = |table: &[f32; 256], byte: u8| table[usize::from(byte)];
    if raster.channels == 1 {
        let table = preprocess.table(0);
        elements.iter_mut().zip(&*raster.bytes).for_each(|(element, byte)| *element = value(&table, *byte));
        return elements;
    }
    let [first, second, third] = [0, 1, 2].map(|plane| preprocess.table(plane));
    // The byte of each plane in a pixel.
    let [one, two, three] = if preprocess.channels() == ChannelOrder::Bgr { [2, 1, 0] } else { [0, 1, 2] };
    let (pixels, _) = raster.bytes.as_chunks::<3>();
    let (above, below) = elements.split_at_mut(pixels.len());
    let (middle, below) = below.split_at_mut(pixels.len());
    for (((pixel, above), middle), below) in pixels.iter().zip(above).zip(middle).zip(below) {
        *above = value(&first, pixel[one]);
        *middle = value(&second, pixel[two]);
        *below = value(&third, pixel[three]);
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
    fn numbers_become_what_their_bytes_become() {
        let bytes = [10, 20, 30, 40, 50, 60];
        let numbers = bytes.map(|byte| f32::from(byte) / 255.0);
        let pixels = Pixels::new(2, 1, bytes.to_vec()).unwrap();
        for section in [
            r#"{ "size": [1, 2], "resize": "stretch" }"#,
            r#"{ "size": [1, 2], "resize": "stretch", "scale": 1, "channels": "bgr", "mean": [1, 2, 3] }"#,
            r#"{ "size": [1, 2], "resize": "stretch", "invert": "always", "std": [0.5, 0.25, 2] }"#,
        ] {
            let preprocess = preprocess(section);
            let (expected, found) = (prepare(&pixels, &preprocess).unwrap(), normalise(&numbers, &preprocess));
            assert_eq!(found.len(), expected.len());
            let near = found.iter().zip(&expected).all(|(one, two)| (one - two).abs() < 1e-4);
            assert!(near, "{section}: {found:?} {expected:?}");
        }
        let grey = preprocess(r#"{ "size": [1, 2], "resize": "digit", "channels": "grey", "invert": "auto" }"#);
        assert_eq!(normalise(&[0.0, 1.0], &grey), [0.0, 1.0], "as it is");
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
