//! Draws a digit as a hand would: the picture of the demonstration, so that it needs no picture of anybody else's.

use adit_picture::{Format, ImageError, Pixels, encode};

/// Height and width of the picture.
const SIDE: u32 = 320;

/// Where the digit's unit square begins, and how many pixels it spans: a margin all around, as on a note.
const MARGIN: f32 = 70.0;
const SPAN: f32 = 180.0;

/// Half the width of the pen: the stroke is about a tenth of the digit, as MNIST's writers had it.
const RADIUS: f32 = 10.0;

/// Columns by which the top leans to the right.
const SLANT: f32 = 0.16;

/// Warm paper and blue-black ink.
const PAPER: [f32; 3] = [244.0, 241.0, 233.0];
const INK: [f32; 3] = [31.0, 36.0, 64.0];

/// Straight pieces a curve is drawn with; shorter than the pen is wide.
const PIECES: u8 = 24;

type Point = [f32; 2];

/// A piece of a stroke that begins where the last one ended. Points are in a square, x to the right, y down.
enum Piece {
    /// Puts the pen down.
    From(Point),
    /// A straight line.
    Line(Point),
    /// A cubic Bézier curve: two control points and its end.
    Curve(Point, Point, Point),
}

use Piece::{Curve, From, Line};

/// The strokes of each digit.
const DIGITS: [&[Piece]; 10] = [
    &[
        From([0.50, 0.00]),
        Curve([0.05, 0.00], [0.05, 1.00], [0.50, 1.00]),
        Curve([0.95, 1.00], [0.95, 0.00], [0.50, 0.00]),
    ],
    &[From([0.34, 0.20]), Line([0.52, 0.00]), Line([0.50, 1.00])],
    &[
        From([0.16, 0.26]),
        Curve([0.20, -0.10], [0.84, -0.10], [0.82, 0.28]),
        Curve([0.80, 0.55], [0.35, 0.75], [0.14, 1.00]),
        Line([0.90, 0.97]),
    ],
    &[
        From([0.18, 0.12]),
        Curve([0.40, -0.08], [0.84, -0.02], [0.80, 0.24]),
        Curve([0.78, 0.42], [0.58, 0.46], [0.40, 0.47]),
        Curve([0.66, 0.46], [0.90, 0.54], [0.88, 0.74]),
        Curve([0.86, 1.06], [0.36, 1.08], [0.14, 0.88]),
    ],
    &[
        From([0.26, 0.02]),
        Curve([0.20, 0.30], [0.14, 0.46], [0.10, 0.60]),
        Line([0.92, 0.58]),
        From([0.72, 0.06]),
        Line([0.68, 1.00]),
    ],
    &[
        From([0.84, 0.02]),
        Line([0.28, 0.04]),
        Line([0.22, 0.46]),
        Curve([0.50, 0.32], [0.88, 0.42], [0.86, 0.68]),
        Curve([0.84, 1.02], [0.36, 1.08], [0.14, 0.88]),
    ],
    &[
        From([0.72, 0.00]),
        Curve([0.36, 0.12], [0.16, 0.46], [0.18, 0.72]),
        Curve([0.20, 1.10], [0.84, 1.08], [0.82, 0.72]),
        Curve([0.80, 0.44], [0.30, 0.44], [0.19, 0.74]),
    ],
    &[From([0.12, 0.04]), Line([0.86, 0.02]), Curve([0.64, 0.34], [0.50, 0.66], [0.44, 1.00])],
    &[
        From([0.50, 0.46]),
        Curve([0.06, 0.36], [0.16, 0.00], [0.50, 0.00]),
        Curve([0.84, 0.00], [0.94, 0.36], [0.50, 0.46]),
        Curve([-0.02, 0.58], [0.08, 1.00], [0.50, 1.00]),
        Curve([0.92, 1.00], [1.02, 0.58], [0.50, 0.46]),
    ],
    &[
        From([0.80, 0.24]),
        Curve([0.74, -0.08], [0.18, -0.06], [0.20, 0.28]),
        Curve([0.22, 0.58], [0.72, 0.56], [0.80, 0.24]),
        Curve([0.80, 0.50], [0.76, 0.76], [0.66, 1.00]),
    ],
];

/// A digit from 0 to 9 in ink on paper, 320 x 320 pixels, as the bytes of a PNG.
pub fn digit_picture(digit: u8) -> Result<Vec<u8>, ImageError> {
    let strokes = DIGITS
        .get(usize::from(digit))
        .ok_or_else(|| ImageError::Draw(format!("{digit} is not a digit from 0 to 9")))?;
    let lines = lines(strokes);
    let places = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| [x as f32 + 0.5, y as f32 + 0.5]));
    let rgb = places.flat_map(|pixel| {
        let distance = lines.iter().map(|line| distance(pixel, *line)).fold(f32::INFINITY, f32::min);
        // The pen's edge lies inside of one pixel: so much of it is ink.
        let ink = (RADIUS + 0.5 - distance).clamp(0.0, 1.0);
        let mix = |plane: usize| (PAPER[plane] + (INK[plane] - PAPER[plane]) * ink).round() as u8;
        [mix(0), mix(1), mix(2)]
    });
    let picture = Pixels::new(SIDE, SIDE, rgb.collect());
    encode(&picture.ok_or_else(|| ImageError::Draw("no picture".to_owned()))?, Format::Png)
}

/// The strokes as straight lines in pixels.
fn lines(strokes: &[Piece]) -> Vec<[Point; 2]> {
    let mut lines = Vec::new();
    let mut pen = [0.0, 0.0];
    for piece in strokes {
        match piece {
            From(point) => pen = *point,
            Line(end) => {
                lines.push([placed(pen), placed(*end)]);
                pen = *end;
            }
            Curve(first, second, end) => {
                let points: Vec<Point> = (0..=PIECES)
                    .map(|step| placed(bezier([pen, *first, *second, *end], f32::from(step) / f32::from(PIECES))))
                    .collect();
                lines.extend(points.windows(2).map(|pair| [pair[0], pair[1]]));
                pen = *end;
            }
        }
    }
    lines
}

/// From the unit square to pixels, leaning.
fn placed([x, y]: Point) -> Point {
    [MARGIN + (x + SLANT * (0.5 - y)) * SPAN, MARGIN + y * SPAN]
}

fn bezier(points: [Point; 4], part: f32) -> Point {
    let rest = 1.0 - part;
    let weights = [rest * rest * rest, 3.0 * rest * rest * part, 3.0 * rest * part * part, part * part * part];
    let along = |axis: usize| points.iter().zip(weights).map(|(point, weight)| point[axis] * weight).sum();
    [along(0), along(1)]
}

/// From a point to the nearest point of a line.
fn distance(point: Point, [start, end]: [Point; 2]) -> f32 {
    let (across, down) = (end[0] - start[0], end[1] - start[1]);
    let (from_x, from_y) = (point[0] - start[0], point[1] - start[1]);
    let length = across * across + down * down;
    let part = if length > 0.0 { ((from_x * across + from_y * down) / length).clamp(0.0, 1.0) } else { 0.0 };
    (from_x - part * across).hypot(from_y - part * down)
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_picture::{ImageLimits, decode};

    #[test]
    fn every_digit_is_ink_inside_of_paper() {
        for digit in 0..10 {
            let pixels = decode(&digit_picture(digit).unwrap(), &ImageLimits::default()).unwrap();
            let grey = pixels.grey();
            let border_is_paper = (0..320).all(|x| grey[x] > 230 && grey[319 * 320 + x] > 230);
            assert!(border_is_paper, "{digit} touches the border");
            let ink = grey.iter().filter(|byte| **byte < 60).count();
            assert!((2_000..16_000).contains(&ink), "{digit} has {ink} pixels of ink");
        }
    }

    #[test]
    fn ten_is_no_digit() {
        assert!(matches!(digit_picture(10), Err(ImageError::Draw(_))));
    }
}
