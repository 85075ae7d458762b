//! A `model.toml` for a model that was made here: what [`super::spec`] reads, written.

use adit_vision::Architecture;
use adit_vision::image::Preprocess;
use serde::Serialize;

#[derive(Serialize)]
struct Description<'a> {
    architecture: &'a str,
    preprocess: &'a Preprocess,
}

/// The description of a trained classifier, whose versions and labels lie beside it.
pub fn describe(architecture: Architecture, preprocess: &Preprocess) -> Result<String, String> {
    let text = toml::to_string(&Description { architecture: architecture.name(), preprocess })
        .map_err(|error| format!("cannot write model.toml: {error}"))?;
    Ok(format!(
        "# Trained by adit-agent; pictures are prepared as for the network that the training started from.\n{text}"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::serving::spec::{Kind, Spec};

    #[test]
    fn a_description_reads_back_as_what_it_describes() {
        for section in [
            r#"{ "size": [227, 227], "resize": { "short_side": 256 }, "channels": "bgr", "scale": 1, "mean": [104, 117.5, 123] }"#,
            r#"{ "size": [28, 28], "resize": "digit", "channels": "grey", "invert": "auto" }"#,
            r#"{ "size": [9, 8], "resize": { "letterbox": 114 }, "filter": "bilinear", "scale": 1e-7, "std": [0.1, 1e9, 3] }"#,
        ] {
            let preprocess: Preprocess = serde_json::from_str(section).unwrap();
            let text = describe(Architecture::Resnet18, &preprocess).unwrap();
            let spec =
                Spec::parse(&text, Path::new("models/pets")).unwrap_or_else(|error| panic!("{error} in\n{text}"));
            let Kind::Network { architecture, preprocess: read, .. } = spec.kind else { panic!("a network") };
            assert_eq!((architecture, *read), (Architecture::Resnet18, preprocess));
        }
    }
}
