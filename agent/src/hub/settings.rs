//! `config.json` of a repository: how its network was trained, as timm and transformers write it.

use std::collections::BTreeMap;

use adit_vision::image::Preprocess;
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalogue::Classes;

/// What the file says of pictures and classes.
#[derive(Debug)]
pub(super) struct Settings {
    /// How a picture is prepared, or why that cannot be told from the file.
    pub(super) preprocess: Result<Preprocess, String>,
    /// What the classes are called, in order.
    pub(super) classes: Option<Names>,
}

/// Where the names of classes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// In the file.
    Listed(Vec<String>),
    /// In the program.
    Known(Classes),
}

#[derive(Default, Deserialize)]
struct Written {
    /// timm's.
    pretrained_cfg: Option<Value>,
    /// timm's: names of the classes, or their synsets.
    label_names: Option<Value>,
    /// timm's: what synsets mean.
    label_descriptions: Option<BTreeMap<String, String>>,
    /// transformers'.
    id2label: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Trained {
    input_size: [usize; 3],
    interpolation: String,
    crop_pct: f64,
    #[serde(default = "centre")]
    crop_mode: String,
    mean: Vec<f64>,
    std: Vec<f64>,
    num_classes: Option<usize>,
    tag: Option<String>,
}

fn centre() -> String {
    "center".to_owned()
}

impl Settings {
    /// Reads the file; whatever it is, something is told of it.
    pub(super) fn read(text: &[u8]) -> Self {
        let written: Written = match serde_json::from_slice(text) {
            Ok(written) => written,
            Err(error) => return Self::unknown(format!("its config.json: {error}")),
        };
        let trained = match &written.pretrained_cfg {
            None => Err("its config.json has no `pretrained_cfg`, where timm says it".to_owned()),
            Some(value) => {
                Trained::deserialize(value).map_err(|error| format!("`pretrained_cfg` of its config.json: {error}"))
            }
        };
        let classes = written.names().map(Names::Listed).or_else(|| {
            // timm names the training set last in its tags, and leaves out the names of this one.
            let trained = trained.as_ref().ok()?;
            let imagenet = trained.num_classes == Some(1000) && trained.tag.as_ref()?.ends_with("in1k");
            imagenet.then_some(Names::Known(Classes::ImageNet))
        });
        Self { preprocess: trained.and_then(|trained| trained.preprocess()), classes }
    }

    /// A repository that does not say it.
    pub(super) const fn unknown(reason: String) -> Self {
        Self { preprocess: Err(reason), classes: None }
    }
}

impl Written {
    fn names(&self) -> Option<Vec<String>> {
        if let Some(Value::Array(names)) = &self.label_names {
            let meanings = self.label_descriptions.as_ref();
            let name = |name: &Value| {
                let name = name.as_str()?;
                Some(meanings.and_then(|meanings| meanings.get(name)).map_or(name, String::as_str).to_owned())
            };
            return names.iter().map(name).collect();
        }
        let numbered = self.id2label.as_ref()?;
        (0..numbered.len()).map(|class| numbered.get(&class.to_string()).cloned()).collect()
    }
}

impl Trained {
    /// timm's evaluation: the short side to input / crop, of which the middle is taken.
    fn preprocess(&self) -> Result<Preprocess, String> {
        let [channels, height, width] = self.input_size;
        if height != width || !(self.crop_pct > 0.0 && self.crop_pct <= 1.0) {
            return Err(format!("timm's crop of {} to {height} x {width} is not known here", self.crop_pct));
        }
        let resize = match self.crop_mode.as_str() {
            "center" => json!({ "short_side": (height as f64 / self.crop_pct).floor() as usize }),
            "squash" if self.crop_pct == 1.0 => json!("stretch"),
            other => return Err(format!("timm's crop mode `{other}` is not known here")),
        };
        let mut section = json!({ "size": [height, width], "resize": resize, "mean": self.mean, "std": self.std });
        if channels == 1 {
            section["channels"] = json!("grey");
        }
        // Pillow's filters have their names; the bilinear one is the one without a word.
        if self.interpolation != "bilinear" {
            section["filter"] = json!(self.interpolation);
        }
        serde_json::from_value(section)
            .map_err(|error| format!("what its config.json asks for is not known here: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use adit_vision::image::{Filter, Resize};

    use super::*;

    /// As timm writes it.
    fn timm() -> Value {
        json!({
            "architecture": "resnet18", "num_classes": 1000, "num_features": 512,
            "pretrained_cfg": {
                "tag": "tv_in1k", "custom_load": false, "input_size": [3, 224, 224], "fixed_input_size": false,
                "interpolation": "bilinear", "crop_pct": 0.875, "crop_mode": "center",
                "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 1000,
                "pool_size": [7, 7], "first_conv": "conv1", "classifier": "fc"
            }
        })
    }

    fn read(value: &Value) -> Settings {
        Settings::read(value.to_string().as_bytes())
    }

    #[test]
    fn timm_says_how_it_was_trained() {
        let settings = read(&timm());
        let preprocess = settings.preprocess.unwrap();
        assert_eq!(preprocess.resize(), Resize::ShortSide(256));
        assert_eq!(preprocess.filter(), Filter::Antialias);
        let shape = preprocess.shape();
        assert_eq!((shape.channels, shape.height, shape.width), (3, 224, 224));
        assert_eq!(settings.classes, Some(Names::Known(Classes::ImageNet)));
        let mut sharper = timm();
        sharper["pretrained_cfg"]["interpolation"] = json!("bicubic");
        assert_eq!(read(&sharper).preprocess.unwrap().filter(), Filter::Bicubic);
    }

    #[test]
    fn classes_are_named_in_either_way() {
        let mut named = timm();
        named["label_names"] = json!(["n01", "dog"]);
        named["label_descriptions"] = json!({ "n01": "tench, Tinca tinca" });
        let names = |list: &[&str]| Some(Names::Listed(list.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!(read(&named).classes, names(&["tench, Tinca tinca", "dog"]));
        let numbered = json!({ "id2label": { "1": "b", "0": "a", "10": "k", "2": "c" } });
        assert_eq!(read(&numbered).classes, None, "one is missing");
        let numbered = json!({ "id2label": { "1": "b", "0": "a" } });
        assert_eq!(read(&numbered).classes, names(&["a", "b"]));
        let mut other = timm();
        other["pretrained_cfg"]["tag"] = json!("webvision");
        assert_eq!(read(&other).classes, None);
    }

    #[test]
    fn what_cannot_be_told_is_said_not_guessed() {
        for (key, value, because) in [
            ("crop_mode", json!("border"), "`border`"),
            ("crop_pct", json!(0.0), "crop of 0"),
            ("crop_pct", json!(1.5), "crop of 1.5"),
            ("input_size", json!([3, 224, 192]), "224 x 192"),
            ("input_size", json!([3, 1u64 << 40, 1u64 << 40]), "size"),
            ("interpolation", json!("lanczos"), "lanczos"),
            ("std", json!([0, 0, 0]), "`std`"),
            ("mean", json!("grey"), "expected a sequence"),
        ] {
            let mut odd = timm();
            odd["pretrained_cfg"][key] = value;
            let error = read(&odd).preprocess.unwrap_err();
            assert!(error.contains(because), "{key}: {error}");
        }
        assert!(read(&json!({})).preprocess.unwrap_err().contains("pretrained_cfg"));
        assert!(Settings::read(b"<html>").preprocess.unwrap_err().contains("config.json"));
    }
}
