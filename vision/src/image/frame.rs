//! Where a picture lies in a network's input, so that what the network finds there can be found in the picture.

use adit_picture::{Orientation, is_turned};

use crate::image::preprocess::{Decode, Preprocess, Resize};
use crate::shape::ImageShape;

/// From pixels of a picture to pixels of a network's input: times `scale`, plus `offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Pixels of the input for one pixel of the picture, across and down.
    scale: [f64; 2],
    /// Where the picture's top left corner lies in the input; negative when it is cut off.
    offset: [f64; 2],
    /// Width and height of the picture in pixels.
    size: [u32; 2],
}

impl Frame {
    /// Width and height of the picture in pixels.
    #[must_use]
    pub fn size(&self) -> [u32; 2] {
        self.size
    }

    /// Maps corners `[left, top, right, bottom]` in pixels of the network's input to pixels of the picture, clamped
    /// to the picture; nothing when no part of the box lies in the picture.
    #[must_use]
    pub fn to_picture(&self, corners: [f32; 4]) -> Option<[f32; 4]> {
        let mapped: [f32; 4] = std::array::from_fn(|side| {
            let axis = side % 2;
            let place = (f64::from(corners[side]) - self.offset[axis]) / self.scale[axis];
            place.clamp(0.0, f64::from(self.size[axis])) as f32
        });
        (mapped[0] < mapped[2] && mapped[1] < mapped[3]).then_some(mapped)
    }
}

impl Preprocess {
    /// Where a picture of this width and height in pixels lies in the network's input, or nothing when that depends
    /// on what the picture shows ([`Resize::Digit`]).
    #[must_use]
    pub fn frame(&self, width: u32, height: u32) -> Option<Frame> {
        let ImageShape { height: rows, width: columns, .. } = self.shape();
        let [across, down] = [f64::from(width.max(1)), f64::from(height.max(1))];
        let (scale, offset) = match self.resize() {
            Resize::Stretch => ([columns as f64 / across, rows as f64 / down], [0.0, 0.0]),
            Resize::ShortSide(side) => {
                let (scaled, [left, top]) = short_side([width as usize, height as usize], side, self.shape());
                ([scaled[0] as f64 / across, scaled[1] as f64 / down], [-(left as f64), -(top as f64)])
            }
            Resize::Letterbox(_) => ([letterbox_ratio([width as usize, height as usize], self.shape()); 2], [0.0, 0.0]),
            Resize::Digit => return None,
        };
        Some(Frame { scale, offset, size: [width, height] })
    }

    /// Width and height that a picture of these is resized to, of which parts may be cut off or padding be added then;
    /// nothing when that depends on what it shows.
    pub(super) fn fitted(&self, [width, height]: [usize; 2]) -> Option<[usize; 2]> {
        let shape = self.shape();
        match self.resize() {
            Resize::Stretch => Some([shape.width, shape.height]),
            Resize::ShortSide(side) => Some(short_side([width, height], side, shape).0),
            Resize::Letterbox(_) => {
                // Cut to whole pixels, as YOLOX does; a thread still leaves one.
                let ratio = letterbox_ratio([width, height], shape);
                let fitted = |length: usize, most: usize| ((length as f64 * ratio) as usize).clamp(1, most);
                Some([fitted(width, shape.width), fitted(height, shape.height)])
            }
            Resize::Digit => None,
        }
    }

    /// Width and height that a picture, stored with these and to be turned as said, is resized to, in the directions
    /// that it is stored in; nothing when all of its pixels are needed.
    pub(super) fn needs(&self, size: [u32; 2], orientation: Orientation) -> Option<[usize; 2]> {
        if self.decode() == Decode::Full {
            return None;
        }
        let [width, height] = size.map(|side| side as usize);
        if is_turned(orientation) {
            self.fitted([height, width]).map(|[across, down]| [down, across])
        } else {
            self.fitted([width, height])
        }
    }
}

/// Width and height of a picture whose shorter side becomes `side`, and the left and top edge of the middle that is cut
/// out of it; rounded as Python does.
pub(super) fn short_side([width, height]: [usize; 2], side: usize, shape: ImageShape) -> ([usize; 2], [usize; 2]) {
    let ratio = side as f64 / width.min(height).max(1) as f64;
    let scaled = [width, height].map(|length| side.max((length as f64 * ratio).round_ties_even() as usize));
    (scaled, [(scaled[0] - shape.width) / 2, (scaled[1] - shape.height) / 2])
}

/// By how much a picture grows so that it just fits into the input.
pub(super) fn letterbox_ratio([width, height]: [usize; 2], shape: ImageShape) -> f64 {
    (shape.width as f64 / width.max(1) as f64).min(shape.height as f64 / height.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(resize: &str, width: u32, height: u32) -> Frame {
        let section = format!(r#"{{ "size": [240, 320], "resize": {resize} }}"#);
        serde_json::from_str::<Preprocess>(&section).unwrap().frame(width, height).unwrap()
    }

    #[test]
    fn boxes_come_back_to_the_picture() {
        // 640 x 400 in 320 x 240: half, with 40 rows of padding below.
        let letterboxed = frame(r#"{ "letterbox": 114 }"#, 640, 400);
        assert_eq!(letterboxed.to_picture([10., 20., 320., 230.]), Some([20., 40., 640., 400.]));
        assert_eq!(letterboxed.to_picture([10., 205., 20., 230.]), None, "it lies in the padding");
        let stretched = frame(r#""stretch""#, 640, 480);
        assert_eq!(stretched.to_picture([-8., 0., 160., 120.]), Some([0., 0., 320., 240.]));
        // 800 x 640 to 400 x 320, of which 320 x 240 in the middle are seen.
        let cut = frame(r#"{ "short_side": 320 }"#, 800, 640);
        assert_eq!(cut.to_picture([0., 0., 320., 240.]), Some([80., 80., 720., 560.]));
    }

    #[test]
    fn a_digit_lies_where_its_ink_is() {
        let section = r#"{ "size": [28, 28], "resize": "digit", "channels": "grey" }"#;
        assert_eq!(serde_json::from_str::<Preprocess>(section).unwrap().frame(100, 100), None);
    }

    proptest! {
        #[test]
        fn a_box_in_the_picture_comes_back_as_it_was(
            size in [2u32..9000, 2u32..9000], a in [0f64..1.0, 0f64..1.0], b in [0f64..1.0, 0f64..1.0],
            resize in prop::sample::select(vec![r#""stretch""#, r#"{ "letterbox": 0 }"#, r#"{ "short_side": 320 }"#]),
        ) {
            let frame = frame(resize, size[0], size[1]);
            let at = |axis: usize, part: f64| part * f64::from(size[axis]);
            let corners = [at(0, a[0].min(b[0])), at(1, a[1].min(b[1])), at(0, a[0].max(b[0])), at(1, a[1].max(b[1]))];
            let inside: [f32; 4] = std::array::from_fn(|side| {
                (corners[side] * frame.scale[side % 2] + frame.offset[side % 2]) as f32
            });
            match frame.to_picture(inside) {
                Some(back) => prop_assert!(back.iter().zip(corners).all(|(a, b)| (f64::from(*a) - b).abs() < 0.05)),
                None => prop_assert!(corners[2] - corners[0] < 0.05 || corners[3] - corners[1] < 0.05),
            }
        }

        #[test]
        fn nothing_leaves_the_picture(corners in prop::array::uniform4(-1e30f32..1e30), size in [1u32..9000, 1u32..9000]) {
            if let Some([left, top, right, bottom]) = frame(r#"{ "letterbox": 114 }"#, size[0], size[1]).to_picture(corners) {
                prop_assert!(0.0 <= left && left < right && right <= size[0] as f32);
                prop_assert!(0.0 <= top && top < bottom && bottom <= size[1] as f32);
            }
        }
    }
}
