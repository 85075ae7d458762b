//! Colours that can be told apart.

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

impl Colour {
    /// Black.
    pub const BLACK: Self = Self([0, 0, 0]);
    /// White.
    pub const WHITE: Self = Self([255, 255, 255]);
    /// Red.
    pub const RED: Self = Self([255, 0, 0]);
    /// Blue.
    pub const BLUE: Self = Self([0, 0, 255]);

    /// The colour of a class, always the same one: bright, and far from those of the classes before it.
    #[must_use]
    pub fn of_class(class: usize) -> Self {
        // Steps of the golden section never come back to where they were, and keep their distance.
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let hue = (class as f64 * GOLDEN).fract() * 6.0;
        let rising = hue.fract();
        // One channel full, one low, one in between.
        let (low, up, down) = (0.15, 0.15 + 0.85 * rising, 1.0 - 0.85 * rising);
        let [red, green, blue] = match hue as u8 {
            0 => [1.0, up, low],
            1 => [down, 1.0, low],
            2 => [low, 1.0, up],
            3 => [low, down, 1.0],
            4 => [up, low, 1.0],
            _ => [1.0, low, down],
        };
        Self([red, green, blue].map(|part: f64| (part * 255.0).round() as u8))
    }

    /// Black or white, whichever is read more easily on this colour.
    #[must_use]
    pub fn ink(self) -> Self {
        let [red, green, blue] = self.0.map(f32::from);
        // Brightness as ITU-R 601 has it.
        if 0.299 * red + 0.587 * green + 0.114 * blue > 140.0 { Self::BLACK } else { Self::WHITE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_classes_can_be_told_apart() {
        for class in 0..200 {
            let colour = Colour::of_class(class);
            for other in class + 1..class + 6 {
                let apart: u32 =
                    colour.0.iter().zip(Colour::of_class(other).0).map(|(a, b)| u32::from(a.abs_diff(b))).sum();
                assert!(apart > 60, "{class} and {other} are {apart} apart");
            }
        }
        assert_eq!(Colour::of_class(0), Colour([255, 38, 38]));
        assert_ne!(Colour::of_class(usize::MAX), Colour::BLACK);
    }

    #[test]
    fn ink_is_legible() {
        assert_eq!(Colour([255, 255, 38]).ink(), Colour::BLACK);
        assert_eq!(Colour([38, 38, 255]).ink(), Colour::WHITE);
    }
}
