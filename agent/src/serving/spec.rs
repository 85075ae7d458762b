//! `model.toml`: what a folder of weights is.
//!
//! ```toml
//! architecture = "googlenet_bn"
//! versions = "../../weights/googlenet_bn"  # the folder of <version>/model.safetensors; this folder unless given
//! labels = "../../weights/labels.txt"      # one label a line; labels.txt in this folder unless given
//! device = "cuda:1"                        # "auto", "cpu" or "cuda:N"; `[serving] device` of agent.toml unless given
//! precision = "f16"                        # "f32", "f16", "bf16" or "int8": what it computes in; f32 unless given
//! kernels = "off"                          # whose loops compute: "auto", fused kernels where there are some, unless given
//!
//! [version_policy]  # latest = 1 unless given
//! latest = 1        # or: all = true, or: specific = [1, 3]
//!
//! [version_labels]  # names that may stand in a path instead of a number; what has a label is served, whatever the policy
//! stable = 3
//! canary = 4
//!
//! [preprocess]      # how the network was trained
//! size = [224, 224]
//! resize = { short_side = 256 }
//! mean = [0.485, 0.456, 0.406]
//! std = [0.229, 0.224, 0.225]
//!
//! [detect]          # of a detector only: which boxes are told
//! confidence = 0.3
//! iou = 0.45
//! max_detections = 100
//!
//! [signature]       # what clients of TensorFlow Serving call its tensors
//! input = "x"       # pictures as numbers, [N, H, W, C]; `input` unless given
//! output = "dense"  # of a classifier; `probabilities` unless given
//! pixels = "unit"   # from 0 to 1, which is what it is unless given; or: "bytes", from 0 to 255; or: "normalised"
//!
//! [batching]        # how requests share the network; without it, what is measured decides
//! max_batch = 8     # images that are run together at most; 1 switches batches off
//! max_delay = "2ms" # how long a request may wait for company; 0 unless given
//! instances = 2     # batches that are run at one time; one a core unless given
//! threads = 1       # of each of them; the cores shared out among those that run unless given
//! ```
//!
//! Paths are relative to the folder of the file, so that a folder of nothing but `model.toml` files can serve weights that
//! lie elsewhere. The places that it names are watched as the folder itself is, and a changed `model.toml` takes effect without
//! a restart: `[preprocess]`, `[detect]`, `[signature]`, `[batching]` and `labels` on the weights that are loaded, `architecture`, `versions`,
//! `device`, `precision`, `kernels` and the policy by loading what they ask for. One that has become wrong is reported, and the one before stays in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use adit_common::daemon::parse;
use adit_common::id::{Version, VersionLabel};
use adit_vision::image::{Preprocess, Resize};
use adit_vision::{Architecture, DetectOptions, DeviceChoice, Execution, Kernels, Precision};
use serde::Deserialize;

use super::batching::Batching;
use super::signature::Signature;
use super::stand_in::{self, StandIn};

/// A model's description, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// What runs.
    pub kind: Kind,
    /// Which versions are served.
    pub policy: VersionPolicy,
    /// What versions are called besides their numbers.
    pub labels: BTreeMap<VersionLabel, Version>,
    /// How requests share the network.
    pub batching: Batching,
}

/// What runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A network with weights.
    Network {
        /// Its layers.
        architecture: Architecture,
        /// The folder of its versions.
        versions: PathBuf,
        /// The file of its labels.
        labels: PathBuf,
        /// How an image is prepared for it.
        preprocess: Box<Preprocess>,
        /// Which boxes a detector tells; nothing for a classifier.
        detect: Option<DetectOptions>,
        /// Where it computes; nothing where all models do that say nothing.
        device: Option<DeviceChoice>,
        /// What it computes in, and by whose loops.
        execution: Execution,
        /// What its tensors are called.
        signature: Signature,
    },
    /// Set times instead of a network.
    StandIn(StandIn),
}

/// Which versions of a model are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenPolicy")]
pub enum VersionPolicy {
    /// The newest so many.
    Latest(usize),
    /// All that are there.
    All,
    /// Just these.
    Specific(Vec<Version>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

impl VersionPolicy {
    /// The versions to serve of those that are there; may name some that are not.
    pub fn choose(&self, mut there: Vec<Version>) -> Vec<Version> {
        there.sort_unstable();
        there.dedup();
        match self {
            Self::Latest(count) => there.split_off(there.len().saturating_sub(*count)),
            Self::All => there,
            Self::Specific(wanted) => wanted.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPolicy {
    latest: Option<usize>,
    all: Option<bool>,
    specific: Option<Vec<Version>>,
}

impl TryFrom<WrittenPolicy> for VersionPolicy {
    type Error = &'static str;

    fn try_from(written: WrittenPolicy) -> Result<Self, Self::Error> {
        match (written.latest, written.all, written.specific) {
            (Some(count), None, None) if count > 0 => Ok(Self::Latest(count)),
            (None, Some(true), None) => Ok(Self::All),
            (None, None, Some(wanted)) if !wanted.is_empty() => Ok(Self::Specific(wanted)),
            _ => Err(
                "a version policy is one of `latest` = a number from 1, `all` = true, `specific` = a list of versions",
            ),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    architecture: String,
    versions: Option<PathBuf>,
    labels: Option<PathBuf>,
    #[serde(default)]
    version_policy: VersionPolicy,
    #[serde(default)]
    version_labels: BTreeMap<VersionLabel, Version>,
    preprocess: Option<Preprocess>,
    detect: Option<DetectOptions>,
    stand_in: Option<StandIn>,
    device: Option<DeviceChoice>,
    precision: Option<Precision>,
    kernels: Option<Kernels>,
    signature: Option<Signature>,
    #[serde(default)]
    batching: Batching,
}

impl Spec {
    /// Reads a `model.toml`; an error says what is wrong and where in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read model.toml: {error}"))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// As [`Spec::read`], of the text of a file that lies in `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let written: Written = parse("model.toml", text).map_err(|error| error.to_string())?;
        let (policy, labels, batching) = (written.version_policy, written.version_labels, written.batching);
        if written.architecture == stand_in::ARCHITECTURE {
            if written.device.is_some() || written.precision.is_some() || written.kernels.is_some() {
                return Err("a stand-in computes nothing: it has no device, precision or kernels".to_owned());
            }
            let rest = (written.versions, written.labels, written.preprocess, written.detect, written.signature);
            return match rest {
                (None, None, None, None, None) => {
                    Ok(Self { kind: Kind::StandIn(written.stand_in.unwrap_or_default()), policy, labels, batching })
                }
                _ => Err("a stand-in has no versions, labels, preprocess, detect or signature".to_owned()),
            };
        }
        if written.stand_in.is_some() {
            return Err(format!("[stand_in] is for architecture = \"{}\"", stand_in::ARCHITECTURE));
        }
        let architecture = written
            .architecture
            .parse::<Architecture>()
            .map_err(|error| format!("{error}, {}", stand_in::ARCHITECTURE))?;
        let preprocess = written.preprocess.ok_or("the section [preprocess] is missing")?;
        let detect = detect(architecture, written.detect, &preprocess)?;
        let signature = written.signature.unwrap_or_default();
        if detect.is_some() && signature.names_output() {
            return Err(
                "[signature] `output` is for classifiers: a detector's outputs have names of their own".to_owned()
            );
        }
        Ok(Self {
            kind: Kind::Network {
                architecture,
                versions: folder.join(written.versions.unwrap_or_default()),
                labels: folder.join(written.labels.unwrap_or_else(|| "labels.txt".into())),
                preprocess: Box::new(preprocess),
                detect,
                device: written.device,
                execution: Execution {
                    precision: written.precision.unwrap_or_default(),
                    kernels: written.kernels.unwrap_or_default(),
                },
                signature,
            },
            policy,
            labels,
            batching,
        })
    }
}

/// What `[detect]` comes to: a detector has one, written or not, and nobody else may.
fn detect(
    architecture: Architecture,
    written: Option<DetectOptions>,
    preprocess: &Preprocess,
) -> Result<Option<DetectOptions>, String> {
    match (architecture.is_detector(), written) {
        (true, options) => match preprocess.resize() {
            Resize::Stretch | Resize::Letterbox(_) => Ok(Some(options.unwrap_or_default())),
            // What is cut off would never be found, and a digit's place in the picture is not known.
            _ => Err(format!("{architecture} is a detector: its `resize` is \"stretch\" or {{ letterbox = BYTE }}")),
        },
        (false, Some(_)) => Err(format!("[detect] is for detectors, and {architecture} is a classifier")),
        (false, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LEAST: &str =
        "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"\nchannels = \"grey\"\n";

    fn parse_in(text: &str) -> Result<Spec, String> {
        Spec::parse(text, Path::new("/models/digits"))
    }

    const DETECTOR: &str =
        "architecture = \"yolox_nano\"\n[preprocess]\nsize = [416, 416]\nresize = { letterbox = 114 }\n";

    #[test]
    fn a_detector_has_options_whether_it_says_so_or_not() {
        let options = |text: &str| match parse_in(text).unwrap().kind {
            Kind::Network { detect, .. } => detect,
            Kind::StandIn(_) => panic!("a network"),
        };
        assert_eq!(options(LEAST), None);
        assert_eq!(options(DETECTOR), Some(DetectOptions::default()));
        let written = options(&format!("{DETECTOR}[detect]\nconfidence = 0.5\nmax_detections = 7\n"));
        assert_eq!(written, Some(DetectOptions { confidence: 0.5, max_detections: 7, ..DetectOptions::default() }));
    }

    #[test]
    fn a_model_may_choose_its_device_its_precision_and_its_kernels() {
        let chosen = |text: &str| match parse_in(text).unwrap().kind {
            Kind::Network { device, execution, .. } => (device, execution),
            Kind::StandIn(_) => panic!("a network"),
        };
        assert_eq!(chosen(LEAST), (None, Execution::default()));
        let written = format!("device = \"cuda:1\"\nprecision = \"bf16\"\nkernels = \"off\"\n{LEAST}");
        let execution = Execution { precision: Precision::Bf16, kernels: Kernels::Off };
        assert_eq!(chosen(&written), (Some(DeviceChoice::Cuda(1)), execution));
    }

    #[test]
    fn what_is_not_said_lies_beside_the_file() {
        let spec = parse_in(LEAST).unwrap();
        assert_eq!(spec.policy, VersionPolicy::Latest(1));
        let Kind::Network { versions, labels, .. } = spec.kind else { panic!("a network") };
        assert_eq!(versions, Path::new("/models/digits"));
        assert_eq!(labels, Path::new("/models/digits/labels.txt"));
        let elsewhere = parse_in(&format!("versions = \"../w\"\nlabels = \"/l.txt\"\n{LEAST}")).unwrap();
        let Kind::Network { versions, labels, .. } = elsewhere.kind else { panic!("a network") };
        assert_eq!((versions.to_str(), labels.to_str()), (Some("/models/digits/../w"), Some("/l.txt")));
    }

    #[test]
    fn policies_choose_among_what_is_there() {
        let policy = |text: &str| parse_in(&format!("{LEAST}[version_policy]\n{text}\n")).map(|spec| spec.policy);
        let there = || vec![Version(3), Version(10), Version(1)];
        assert_eq!(policy("latest = 2").unwrap().choose(there()), [Version(3), Version(10)]);
        assert_eq!(policy("latest = 9").unwrap().choose(there()), [Version(1), Version(3), Version(10)]);
        assert_eq!(policy("all = true").unwrap().choose(there()).len(), 3);
        assert_eq!(policy("specific = [1, 2]").unwrap().choose(there()), [Version(1), Version(2)]);
        for wrong in ["", "latest = 0", "all = false", "specific = []", "latest = 1\nall = true", "newest = 1"] {
            assert!(policy(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_are_names_of_versions() {
        let spec = parse_in(&format!("{LEAST}[version_labels]\nstable = 3\ncanary = 4\n")).unwrap();
        let labels: Vec<_> = spec.labels.iter().map(|(label, version)| (label.as_str(), version.0)).collect();
        assert_eq!(labels, [("canary", 4), ("stable", 3)]);
        let error = parse_in(&format!("{LEAST}[version_labels]\n2nd = 3\n")).unwrap_err();
        assert!(error.contains("is not a version's label"), "{error}");
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (text, because) in [
            (
                "architecture = \"resnet\"\n[preprocess]\nsize = [1, 1]\nresize = \"stretch\"",
                "unknown architecture `resnet`",
            ),
            ("architecture = \"lenet\"", "[preprocess] is missing"),
            ("architectur = \"lenet\"", "did you mean `architecture`?"),
            (
                "architecture = \"lenet\"\n[preprocess]\nsize = [28, 28]\nresize = \"digit\"",
                "model.toml:2:1: preprocessing",
            ),
            ("architecture = \"lenet\"\n[stand_in]\n", "[stand_in] is for"),
            ("architecture = \"stand_in\"\nlabels = \"x\"", "a stand-in has no"),
            ("architecture = \"stand_in\"\nprecision = \"f16\"", "a stand-in computes nothing"),
            (&format!("device = \"gpu\"\n{LEAST}"), "model.toml:1:10: unknown device `gpu`: it is `auto`, `cpu` or"),
            (&format!("precision = \"fp16\"\n{LEAST}"), "expected one of `f32`, `f16`, `bf16`"),
            (&format!("kernels = \"on\"\n{LEAST}"), "expected `auto` or `off`"),
            ("architecture = \"stand_in\"\nkernels = \"off\"", "a stand-in computes nothing"),
            ("architecture = \"stand_in\"\n[detect]\niou = 0.5", "a stand-in has no"),
            ("architecture = \"stand_in\"\n[signature]\ninput = \"x\"", "a stand-in has no"),
            (&format!("{LEAST}[signature]\ninput = \"image\""), "encoded pictures"),
            (&format!("{DETECTOR}[signature]\noutput = \"boxes\""), "is for classifiers"),
            (&format!("{LEAST}[detect]\niou = 0.5"), "lenet is a classifier"),
            (&format!("{DETECTOR}[detect]\niou = 2.0"), "`iou` must be from 0 to 1"),
            (
                "architecture = \"yolox_nano\"\n[preprocess]\nsize = [416, 416]\nresize = { short_side = 416 }",
                "yolox_nano is a detector: its `resize` is",
            ),
        ] {
            let error = parse_in(text).unwrap_err();
            assert!(error.contains(because), "{text}: {error}");
        }
    }

    #[test]
    fn a_stand_in_has_times() {
        let spec = parse_in("architecture = \"stand_in\"\n[stand_in]\nforward = \"30ms\"\n").unwrap();
        let Kind::StandIn(times) = spec.kind else { panic!("a stand-in") };
        assert_eq!(times, StandIn { forward: Duration::from_millis(30), ..StandIn::default() });
    }
}
