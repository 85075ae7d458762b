//! The digits model that is part of the program, so that an agent without a folder of models has something to show.
//!
//! Its files are a model folder like any other; how it was trained and how good it is stands in the card beside them.

use std::path::Path;

use adit_common::id::Version;

use super::model::Origin;
use super::spec::Spec;

/// Its name.
pub const NAME: &str = "digits";

/// Its version.
pub const VERSION: Version = Version(1);

const SPEC: &str = include_str!("../../models/digits/model.toml");

/// Its weights, a safetensors file.
pub const WEIGHTS: &[u8] = include_bytes!("../../models/digits/1/model.safetensors");

/// Its labels.
pub const LABELS: &str = include_str!("../../models/digits/labels.txt");

/// Where its parts come from.
pub(super) const ORIGIN: Origin = Origin::Embedded { weights: WEIGHTS, labels: LABELS };

/// Its description.
pub fn spec() -> Result<Spec, String> {
    Spec::parse(SPEC, Path::new("models/digits"))
}
