//! The digits model that is part of the program, so that an agent without a folder of models has something to show.
//!
//! Its files are a model folder like any other; how it was trained and how good it is stands in the card beside them.

use std::path::Path;

use adit_common::id::Version;

use super::model::Origin;
use super::spec::Spec;

/// Its name.
pub(super) const NAME: &str = "digits";

/// Its version.
pub(super) const VERSION: Version = Version(1);

const SPEC: &str = include_str!("../../models/digits/model.toml");

/// Where its parts come from.
pub(super) const ORIGIN: Origin = Origin::Embedded {
    weights: include_bytes!("../../models/digits/1/model.safetensors"),
    labels: include_str!("../../models/digits/labels.txt"),
};

/// Its description.
pub(super) fn spec() -> Result<Spec, String> {
    Spec::parse(SPEC, Path::new("models/digits"))
}
