//! Boxes with their captions, drawn so that they can be read at any size of the picture.

use crate::colour::Colour;
use crate::lettering::{advance, write};
use crate::pixels::Pixels;

/// The picture's shorter side for a pixel of a line's width: two pixels at 640 x 480, ten at twelve megapixels.
const SIDE_TO_LINE: u32 = 300;
const THINNEST: u32 = 2;

/// The picture's shorter side for a pixel of a letter's height: 16 at 640 x 480.
const SIDE_TO_LETTER: u32 = 30;
/// Below it letters run together; it is passed only where a picture has no room for more.
const SMALLEST_WISHED: u32 = 14;
/// Below it nothing can be read, so nothing is written.
const SMALLEST: usize = 7;

/// So many captions are kept clear of by those that come after them; where there are more, nobody reads them all.
const NEIGHBOURS: usize = 200;

/// What is drawn around one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Left, top, right and bottom, in pixels of the upright picture; what lies outside of it is not drawn.
    pub corners: [f32; 4],
    /// The box's.
    pub colour: Colour,
    /// What is written at the box, if there is room in the picture; one line.
    pub text: String,
    /// How it is written.
    pub caption: Caption,
}

/// How a box's text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caption {
    /// On a plate in the box's colour.
    Plate,
    /// On the picture itself, in this colour.
    Plain(Colour),
}

/// Draws the boxes, the last ones first: what matters most is to come first and lies on top. Lines and letters grow with the
/// picture; all other pixels stay as they are. A text lies above its box, below it or in it, always on the picture, and is
/// shortened where the picture is too narrow for it.
pub fn annotate(pixels: &mut Pixels, marks: &[Mark]) {
    let line = line(pixels);
    let boxes: Vec<_> = marks.iter().rev().map(|mark| (mark, within(pixels, mark.corners))).collect();
    for (mark, corners) in &boxes {
        frame(pixels, *corners, line, mark.colour);
    }
    // After all the boxes: no line crosses a text. The first ones choose their places first.
    let mut captions: Vec<(&Mark, Fitted, [usize; 4])> = Vec::new();
    for (mark, corners) in boxes.iter().rev() {
        let Some(fitted) = fit(pixels, &mark.text, line) else { continue };
        let taken = captions.iter().take(NEIGHBOURS).map(|(.., place)| *place);
        let place = fitted.place(pixels, *corners, line, taken);
        captions.push((mark, fitted, place));
    }
    for (mark, fitted, [left, top, ..]) in captions.iter().rev() {
        fitted.write(pixels, [*left, *top], mark.colour, mark.caption);
    }
}

/// Whole pixels, at least one in each direction, on the picture: left, top, right, bottom, the latter two just beyond.
fn within(pixels: &Pixels, corners: [f32; 4]) -> [usize; 4] {
    let sides = [pixels.width() as usize, pixels.height() as usize];
    // What is no number becomes 0.
    let start = |axis: usize| (corners[axis].floor() as usize).min(sides[axis] - 1);
    let (left, top) = (start(0), start(1));
    let end = |axis: usize, start: usize| (corners[axis + 2].ceil() as usize).clamp(start + 1, sides[axis]);
    [left, top, end(0, left), end(1, top)]
}

/// The lines of a box, inside of it.
fn frame(pixels: &mut Pixels, [left, top, right, bottom]: [usize; 4], line: usize, colour: Colour) {
    let (across, down) = (line.min(right - left), line.min(bottom - top));
    pixels.fill([left, top, right, top + down], colour);
    pixels.fill([left, bottom - down, right, bottom], colour);
    pixels.fill([left, top, left + across, bottom], colour);
    pixels.fill([right - across, top, right, bottom], colour);
}

/// Writes lines, one below the other on plates in their colours, from the picture's top left corner; those that do not fit any
/// more are left out.
pub fn list(pixels: &mut Pixels, lines: &[(Colour, String)]) {
    let margin = line(pixels);
    let mut top = 0;
    for (colour, text) in lines {
        let Some(fitted) = fit(pixels, text, margin) else { return };
        if top + fitted.letter > pixels.height() as usize {
            return;
        }
        fitted.write(pixels, [0, top], *colour, Caption::Plate);
        top += fitted.letter;
    }
}

/// The width of lines on a picture.
fn line(pixels: &Pixels) -> usize {
    (pixels.width().min(pixels.height()) / SIDE_TO_LINE).max(THINNEST) as usize
}

/// A text as it fits onto a picture.
struct Fitted {
    letters: String,
    /// Height of a letter.
    letter: usize,
    margin: usize,
    /// Width of all of it, with a margin on both sides.
    width: usize,
}

/// Nothing where not a single letter would fit, or none could be read.
fn fit(pixels: &Pixels, text: &str, margin: usize) -> Option<Fitted> {
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let wished = (pixels.width().min(pixels.height()) / SIDE_TO_LETTER).max(SMALLEST_WISHED) as usize;
    let letters: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let count = letters.chars().count();
    let fits = |letter: &usize| advance(*letter) * count + 2 * margin <= width;
    // First smaller letters, as far as they can be read well; then fewer.
    let smaller = (SMALLEST_WISHED as usize..=wished).rev().find(fits).unwrap_or(SMALLEST_WISHED as usize);
    let letter = smaller.min(height);
    let count = count.min(width.saturating_sub(2 * margin) / advance(letter));
    if letter < SMALLEST || count == 0 {
        return None;
    }
    let letters = letters.chars().take(count).collect();
    Some(Fitted { letters, letter, margin, width: advance(letter) * count + 2 * margin })
}

impl Fitted {
    /// Where it stands at a box, as left, top, right, bottom: above it, below it, or in it, at the first of these that is on the
    /// picture and clear of what is taken; where none is clear, at the first that is on the picture.
    fn place(
        &self,
        pixels: &Pixels,
        [left, top, _, bottom]: [usize; 4],
        line: usize,
        taken: impl Iterator<Item = [usize; 4]> + Clone,
    ) -> [usize; 4] {
        let (width, height) = (pixels.width() as usize, pixels.height() as usize);
        let x = left.min(width - self.width);
        let within = |y: &usize| *y + self.letter <= height;
        let above = top.checked_sub(self.letter);
        let (below, inside) = (Some(bottom).filter(within), (top + line).min(height - self.letter));
        let inside_below = bottom.checked_sub(self.letter + line).filter(|y| *y > inside);
        let at = |y: usize| [x, y, x + self.width, y + self.letter];
        let places = [above, below, Some(inside), inside_below].into_iter().flatten().map(at);
        let clear = |place: &[usize; 4]| !taken.clone().any(|other| overlap(*place, other));
        places.clone().find(clear).or_else(|| places.clone().next()).unwrap_or(at(inside))
    }

    fn write(&self, pixels: &mut Pixels, [x, y]: [usize; 2], colour: Colour, caption: Caption) {
        let ink = match caption {
            Caption::Plate => {
                pixels.fill([x, y, x + self.width, y + self.letter], colour);
                colour.ink()
            }
            Caption::Plain(ink) => ink,
        };
        write(pixels, &self.letters, [x + self.margin, y], self.letter, ink);
    }
}

/// Whether two rectangles share a pixel.
fn overlap(one: [usize; 4], other: [usize; 4]) -> bool {
    one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAPER: u8 = 120;

    fn paper(width: u32, height: u32) -> Pixels {
        Pixels::new(width, height, vec![PAPER; (width * height * 3) as usize]).unwrap()
    }

    fn mark(corners: [f32; 4], text: &str) -> Mark {
        Mark { corners, colour: Colour::BLUE, text: text.to_owned(), caption: Caption::Plate }
    }

    /// The places that are no paper any more, as left, top, right, bottom.
    fn touched(pixels: &Pixels) -> Option<[usize; 4]> {
        let width = pixels.width() as usize;
        let places = pixels.rgb().chunks_exact(3).enumerate().filter(|(_, pixel)| *pixel != [PAPER; 3]);
        places.map(|(at, _)| (at % width, at / width)).fold(None, |all, (x, y)| {
            let [left, top, right, bottom] = all.unwrap_or([x, y, x + 1, y + 1]);
            Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)])
        })
    }

    #[test]
    fn a_box_is_a_frame_and_leaves_what_is_in_it() {
        let mut pixels = paper(640, 480);
        annotate(&mut pixels, &[mark([100., 100., 200., 300.], "")]);
        assert_eq!(touched(&pixels), Some([100, 100, 200, 300]));
        let blue = pixels.rgb().chunks_exact(3).filter(|pixel| *pixel == [0, 0, 255]).count();
        assert_eq!(blue, 2 * 2 * (100 + 200) - 4 * 2 * 2, "two pixels wide");
        let kept = pixels.rgb().chunks_exact(3).filter(|pixel| *pixel == [PAPER; 3]).count();
        assert_eq!(kept + blue, 640 * 480);
    }

    #[test]
    fn lines_and_letters_grow_with_the_picture() {
        for (width, height, line, letter) in [(100, 80, 2, 14), (640, 480, 2, 16), (4000, 3000, 10, 100)] {
            let mut pixels = paper(width, height);
            let [left, top] = [width as f32 / 2.0, height as f32 / 2.0];
            annotate(&mut pixels, &[mark([left, top, left + 60.0, top + 60.0], "x")]);
            let [from, above, _, _] = touched(&pixels).unwrap();
            assert_eq!((from, top as usize - above), (left as usize, letter), "{width}x{height}");
            let row = &pixels.rgb()[((top as usize + 15) * width as usize + left as usize) * 3..];
            let drawn = row.chunks_exact(3).take_while(|pixel| *pixel == [0, 0, 255]).count();
            assert_eq!(drawn, line, "{width}x{height}");
        }
    }

    #[test]
    fn a_text_stays_on_the_picture() {
        // Above it, below it where there is no room above, inside where there is neither; moved to the left at the edge.
        for (corners, expected) in [
            ([50., 50., 60., 60.], [50, 36]),
            ([50., 2., 60., 60.], [50, 60]),
            ([50., 0., 60., 100.], [50, 2]),
            ([190., 50., 199., 60.], [160, 36]),
        ] {
            let mut pixels = paper(200, 100);
            let plain = Mark { caption: Caption::Plain(Colour::RED), ..mark(corners, "cup 9") };
            annotate(&mut pixels, &[plain]);
            let width = 200;
            let red = pixels.rgb().chunks_exact(3).enumerate().filter(|(_, pixel)| pixel[0] > 200 && pixel[1] < 90);
            let places: Vec<_> = red.map(|(at, _)| [at % width, at / width]).collect();
            assert!(places.len() > 40, "{corners:?}: {} red pixels", places.len());
            let [left, top] = expected;
            assert!(
                places.iter().all(|[x, y]| (left..left + 42).contains(x) && (top..top + 14).contains(y)),
                "{corners:?}"
            );
        }
    }

    #[test]
    fn a_list_stands_in_the_corner_and_ends_with_the_picture() {
        let lines: Vec<_> = (0..9).map(|class| (Colour::of_class(class), "12.5% cat".to_owned())).collect();
        let mut pixels = paper(200, 60);
        list(&mut pixels, &lines);
        assert_eq!(touched(&pixels), Some([0, 0, advance(14) * 9 + 4, 4 * 14]), "four lines of nine letters");
        for (width, height) in [(3, 60), (60, 3), (1, 1)] {
            let mut pixels = paper(width, height);
            list(&mut pixels, &lines);
            assert_eq!(touched(&pixels), None, "no room in {width}x{height}");
        }
    }

    #[test]
    fn captions_keep_clear_of_each_other_where_there_is_room() {
        let mut pixels = paper(200, 100);
        let other = Mark { colour: Colour::RED, ..mark([52., 40., 90., 80.], "dog") };
        annotate(&mut pixels, &[mark([50., 40., 90., 80.], "cat"), other]);
        let of = |colour: [u8; 3], top: usize| {
            let rows = pixels.rgb().chunks_exact(200 * 3).skip(top).take(14);
            rows.flat_map(|row| row.chunks_exact(3)).filter(|pixel| *pixel == colour).count()
        };
        assert!(of([0, 0, 255], 26) > 200 && of([255, 0, 0], 26) == 0, "the first one's is above");
        assert!(of([255, 0, 0], 80) > 200, "the other's is below");
    }

    #[test]
    fn the_first_lies_on_top() {
        let mut pixels = paper(100, 100);
        let other = Mark { colour: Colour::RED, ..mark([10., 10., 50., 50.], "") };
        annotate(&mut pixels, &[mark([10., 10., 50., 50.], ""), other]);
        assert!(pixels.rgb().chunks_exact(3).all(|pixel| pixel != [255, 0, 0]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn nothing_makes_it_panic_or_touch_far_pixels(
            size in [1u32..60, 1u32..60], corners in prop::array::uniform4(prop::num::f32::ANY), text in ".{0,40}",
        ) {
            let mut pixels = paper(size[0], size[1]);
            annotate(&mut pixels, &[mark(corners, &text)]);
            prop_assert_eq!((pixels.width(), pixels.height()), (size[0], size[1]));
            prop_assert!(touched(&pixels).is_some(), "at least a pixel says that something was found");
        }
    }
}
