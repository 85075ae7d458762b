//! `[signature]` of a `model.toml`: what clients that speak in named tensors call a model's input and output.
//!
//! The Open Inference Protocol has its own names here. TensorFlow's clients bring the names of the layers that a model was once
//! made of, and pictures as TensorFlow keeps them; a model that takes another one's place is told so.

use serde::Deserialize;

/// The input of encoded pictures, which every model has.
pub const IMAGE: &str = "image";

/// Unless a description says otherwise.
const INPUT: &str = "input";

/// Unless a description says otherwise.
const OUTPUT: &str = "probabilities";

/// A name is at most this long, in bytes.
const LONGEST: usize = 128;

/// What tensors are called, and what the numbers of a picture are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Written")]
pub struct Signature {
    input: Option<String>,
    output: Option<String>,
    /// What the numbers of a picture are.
    pub pixels: Pixels,
}

/// What the numbers of a picture are that is sent as a tensor of floats: height before width before channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pixels {
    /// From 0 to 1; `[preprocess]` makes of them what the network was trained on.
    #[default]
    Unit,
    /// From 0 to 255; likewise.
    Bytes,
    /// Normalised already, as the network was trained.
    Normalised,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    input: Option<String>,
    output: Option<String>,
    #[serde(default)]
    pixels: Pixels,
}

impl TryFrom<Written> for Signature {
    type Error = String;

    fn try_from(Written { input, output, pixels }: Written) -> Result<Self, String> {
        for name in input.iter().chain(&output) {
            if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
                return Err(format!("the name of a tensor has 1 to {LONGEST} bytes and no control characters"));
            }
        }
        if input.as_deref() == Some(IMAGE) {
            return Err(format!("`{IMAGE}` is the input of encoded pictures: call that of numbers something else"));
        }
        Ok(Self { input, output, pixels })
    }
}

impl Signature {
    /// The input that takes pictures as numbers.
    pub fn input(&self) -> &str {
        self.input.as_deref().unwrap_or(INPUT)
    }

    /// The output of a classifier.
    pub fn output(&self) -> &str {
        self.output.as_deref().unwrap_or(OUTPUT)
    }

    /// Whether the description names the input of numbers: then its clients send numbers, and are told of them first.
    pub const fn names_input(&self) -> bool {
        self.input.is_some()
    }

    /// Whether the description names the output.
    pub(super) const fn names_output(&self) -> bool {
        self.output.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Signature, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_the_descriptions_or_the_houses() {
        let none = parse("").unwrap();
        assert_eq!((none.input(), none.output(), none.pixels), ("input", "probabilities", Pixels::Unit));
        assert!(!none.names_input());
        let keras = parse("input = \"flatten_input\"\noutput = \"dense\"\npixels = \"bytes\"").unwrap();
        assert_eq!((keras.input(), keras.output(), keras.pixels), ("flatten_input", "dense", Pixels::Bytes));
        assert!(keras.names_input());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (text, because) in [
            ("input = \"\"", "1 to 128 bytes"),
            ("output = \"a\\nb\"", "control characters"),
            ("input = \"image\"", "encoded pictures"),
            ("pixels = \"hex\"", "unknown variant"),
            ("inputs = \"x\"", "unknown field"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(because), "{text}: {error}");
        }
    }
}
