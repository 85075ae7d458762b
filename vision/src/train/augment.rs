//! Slightly other versions of a digit: turned, scaled, sheared and shifted as another hand might have written it.

use rand::Rng;

use crate::train::dataset::{PIXELS, SIDE};

/// Radians: 12 degrees to either side. More, and a 6 and a 9 begin to look alike.
const TURN: f32 = 0.21;

/// Part by which height and width grow or shrink, each for itself.
const SCALE: f32 = 0.1;

/// How far a stroke leans: columns a row.
const SHEAR: f32 = 0.15;

/// Pixels in each direction. MNIST is centred by mass; a photographed digit only nearly so.
const SHIFT: f32 = 2.0;

/// Draws a random version of `image` (784 bytes) into `target` (784 numbers from 0 to 1).
pub(crate) fn vary(image: &[u8], random: &mut impl Rng, target: &mut [f32]) {
    debug_assert_eq!((image.len(), target.len()), (PIXELS, PIXELS));
    let mut within = |bound: f32| random.random_range(-bound..=bound);
    let (sin, cos) = within(TURN).sin_cos();
    let (wide, high) = (1.0 + within(SCALE), 1.0 + within(SCALE));
    let shear = within(SHEAR);
    let (right, down) = (within(SHIFT), within(SHIFT));
    let middle = (SIDE as f32 - 1.0) / 2.0;
    for (index, element) in target.iter_mut().enumerate() {
        // Where in the original this pixel comes from: the inverse is as random as the transformation itself.
        let (x, y) = ((index % SIDE) as f32 - middle - right, (index / SIDE) as f32 - middle - down);
        let (x, y) = (x + shear * y, y);
        let (x, y) = ((cos * x - sin * y) * wide + middle, (sin * x + cos * y) * high + middle);
        *element = sample(image, x, y) / 255.0;
    }
}

/// The brightness between four pixels; outside it is dark.
fn sample(image: &[u8], x: f32, y: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (right_part, low_part) = (x - left, y - top);
    let pixel = |x: f32, y: f32| {
        let inside = (0.0..SIDE as f32).contains(&x) && (0.0..SIDE as f32).contains(&y);
        if inside { f32::from(image[y as usize * SIDE + x as usize]) } else { 0.0 }
    };
    let upper = pixel(left, top) * (1.0 - right_part) + pixel(left + 1.0, top) * right_part;
    let lower = pixel(left, top + 1.0) * (1.0 - right_part) + pixel(left + 1.0, top + 1.0) * right_part;
    upper * (1.0 - low_part) + lower * low_part
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_version_keeps_most_of_the_ink_and_the_seed_decides_it() {
        // A bar in the middle, far enough from the border to stay inside.
        let image: Vec<u8> = (0..PIXELS)
            .map(|i| if (10..18).contains(&(i % SIDE)) && (8..20).contains(&(i / SIDE)) { 255 } else { 0 })
            .collect();
        let drawn = |seed| {
            let mut target = vec![0.0; PIXELS];
            vary(&image, &mut StdRng::seed_from_u64(seed), &mut target);
            target
        };
        for seed in 0..20 {
            let version = drawn(seed);
            let ink: f32 = version.iter().sum();
            assert!((70.0..130.0).contains(&ink), "{ink} of 96 pixels");
            assert!(version.iter().all(|element| (0.0..=1.0).contains(element)));
        }
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }
}
