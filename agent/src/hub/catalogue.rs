//! What is known by name: a table that the program carries, `models/catalogue.toml`.

use std::collections::BTreeMap;

use adit_common::daemon::parse;
use adit_common::id::ModelName;
use adit_vision::Architecture;
use adit_vision::image::Preprocess;
use serde::Deserialize;

use super::failure::PullError;

const TABLE: &str = include_str!("../../models/catalogue.toml");

/// The names of ImageNet's thousand classes; see the card beside the file.
const IMAGENET: &str = include_str!("../../models/labels/imagenet1000.txt");

/// All models that are known by name.
#[derive(Debug, Clone)]
pub struct Catalogue(Vec<Published>);

/// One of them: where it is, and what it is.
#[derive(Debug, Clone)]
pub struct Published {
    /// What it is called.
    pub name: ModelName,
    /// Its layers.
    pub architecture: Architecture,
    /// Where it is on the hub: `owner/name`.
    pub repository: String,
    /// The file of its weights.
    pub file: String,
    /// How a picture is prepared for it.
    pub preprocess: Preprocess,
    /// What its classes are called.
    pub classes: Classes,
    /// The licence of the weights.
    pub licence: String,
}

/// Names of classes that the program carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Classes {
    /// ImageNet's thousand.
    #[serde(rename = "imagenet-1k")]
    ImageNet,
}

impl Classes {
    /// Their names, one a line.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ImageNet => IMAGENET,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    preprocess: BTreeMap<String, Preprocess>,
    model: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    architecture: String,
    repository: String,
    #[serde(default = "weights")]
    file: String,
    preprocess: String,
    labels: Classes,
    licence: String,
}

/// The name that nearly all repositories give to their weights.
pub(super) fn weights() -> String {
    "model.safetensors".to_owned()
}

impl Catalogue {
    /// The one that the program carries.
    pub fn built_in() -> Result<Self, PullError> {
        Self::parse(TABLE)
    }

    fn parse(text: &str) -> Result<Self, PullError> {
        let Written { preprocess, model } = parse("catalogue.toml", text)?;
        let published = |line: Line| {
            let wrong = |reason: String| PullError::Wrong(format!("catalogue.toml: {}: {reason}", line.name));
            let settings = preprocess.get(&line.preprocess);
            Ok(Published {
                name: ModelName::new(&line.name).map_err(|error| wrong(error.to_string()))?,
                architecture: line
                    .architecture
                    .parse()
                    .map_err(|error: adit_vision::VisionError| wrong(error.to_string()))?,
                preprocess: settings
                    .cloned()
                    .ok_or_else(|| wrong(format!("no section preprocess.{}", line.preprocess)))?,
                repository: line.repository.clone(),
                file: line.file.clone(),
                classes: line.labels,
                licence: line.licence.clone(),
            })
        };
        model.into_iter().map(published).collect::<Result<_, _>>().map(Self)
    }

    /// All of them, as the file lists them.
    pub fn all(&self) -> &[Published] {
        &self.0
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Result<&Published, PullError> {
        self.0.iter().find(|published| published.name.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = self.0.iter().map(|published| published.name.as_str()).collect();
            PullError::Unknown { name: name.to_owned(), known: known.join(", ") }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use adit_vision::{Device, Labels, Weights};

    use super::*;

    #[test]
    fn every_line_is_a_model_that_can_be_served() {
        let catalogue = Catalogue::built_in().unwrap();
        let names: BTreeSet<_> = catalogue.all().iter().map(|published| published.name.as_str()).collect();
        assert_eq!(names.len(), catalogue.all().len(), "a name stands there twice");
        assert!(names.contains("resnet18"));
        for published in catalogue.all() {
            // Weights of the right shapes: what is wrong with the line otherwise shows.
            let zeros = Weights::made_by("zeros", |_, shape| Some(vec![0.0; shape.iter().product()]));
            let network = published.architecture.build(&zeros, &Device::Cpu).unwrap();
            assert_eq!(network.input(), published.preprocess.shape(), "{}", published.name);
            let labels = Labels::parse(published.classes.text()).unwrap();
            labels.check(network.classes()).unwrap_or_else(|error| panic!("{}: {error}", published.name));
            assert!(published.repository.split('/').count() == 2 && !published.licence.is_empty());
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = Catalogue::built_in().unwrap().find("resnet19").unwrap_err().to_string();
        assert!(error.contains("`resnet19`") && error.contains("resnet18, resnet34"), "{error}");
    }

    #[test]
    fn a_wrong_line_is_pointed_at() {
        let line = "[[model]]\nname = \"a\"\narchitecture = \"lenet\"\nrepository = \"o/r\"\npreprocess = \"p\"\n\
                    labels = \"imagenet-1k\"\nlicence = \"MIT\"\n";
        let whole = format!("[preprocess.p]\nsize = [8, 8]\nresize = \"stretch\"\n{line}");
        assert_eq!(Catalogue::parse(&whole).unwrap().all().len(), 1);
        for (from, to, because) in [
            ("\"lenet\"", "\"lenot\"", "unknown architecture `lenot`"),
            ("preprocess = \"p\"", "preprocess = \"q\"", "no section preprocess.q"),
            ("name = \"a\"", "name = \".a\"", "a: "),
            ("licence", "license", "did you mean `licence`?"),
        ] {
            let error = Catalogue::parse(&whole.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        }
    }
}
