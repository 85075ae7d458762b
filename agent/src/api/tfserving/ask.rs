//! One question of the dialect, whichever way it travelled: which model is meant, what it is to look at, and why there is no
//! answer. A [`Status`] is what TensorFlow itself calls an error, so both transports have it.

use std::sync::Arc;

use adit_common::deadline::Deadline;
use adit_common::id::{ModelName, Version};
use adit_common::timing::Stopwatch;
use adit_proto::tensorflow::serving::ModelSpec;
use adit_proto::tensorflow::serving::model_spec::VersionChoice;
use adit_vision::ImageShape;
use tonic::Status;

use super::super::grpc::status;
use super::super::upload::image;
use super::signature::DEFAULT;
use super::tensors::{Tensor, Values};
use crate::error::InferError;
use crate::serving::{Card, Choice, IMAGE, InferRequest, InferResponse, Input, Pixels, Priority, Serving};

/// Far beyond the numbers of any picture, and far below what overflows in a network.
const LARGEST: f32 = 1e6;

/// How much of a name an error quotes.
const QUOTED: usize = 80;

/// The model that a request means.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) model: ModelName,
    pub(super) choice: Choice,
    /// Empty for the default one.
    pub(super) signature: String,
}

impl Wanted {
    /// By a path's segments: a version's number or its label, or nothing for the newest.
    pub(super) fn of_path(model: &str, version: Option<&str>) -> Result<Self, Status> {
        let choice = match version {
            // OpenVINO's client has it so.
            None | Some("0") => Choice::Newest,
            Some(version) => version.parse().map_err(|_| Status::not_found(specific(model, version)))?,
        };
        Self::new(model, choice, String::new())
    }

    /// By a message's field.
    pub(super) fn of_spec(spec: Option<ModelSpec>) -> Result<Self, Status> {
        let spec = spec.ok_or_else(|| Status::invalid_argument("Missing ModelSpec"))?;
        if spec.name.is_empty() {
            return Err(Status::invalid_argument("ModelSpec has no name specified."));
        }
        let choice = match spec.version_choice {
            None | Some(VersionChoice::Version(0)) => Choice::Newest,
            Some(VersionChoice::Version(number)) => match u64::try_from(number) {
                Ok(version) => Choice::Version(Version(version)),
                Err(_) => return Err(Status::not_found(specific(&spec.name, &number.to_string()))),
            },
            // Some clients have one option for both, and send a number as a label.
            Some(VersionChoice::VersionLabel(label)) => label.parse().map_err(|_| unlabelled(&label))?,
        };
        Self::new(&spec.name, choice, spec.signature_name)
    }

    fn new(model: &str, choice: Choice, signature: String) -> Result<Self, Status> {
        let name = ModelName::new(model).map_err(|_| absent(model, &choice))?;
        Ok(Self { model: name, choice, signature })
    }

    /// What is known of the version that is meant.
    pub(super) fn card(&self, serving: &Serving) -> Result<Arc<Card>, Status> {
        let card = serving.catalogue().card(&self.model, &self.choice).cloned();
        card.map_err(|error| self.fault(&error))
    }

    /// An inference's error, in TensorFlow's words where it has some.
    pub(super) fn fault(&self, error: &InferError) -> Status {
        match error {
            InferError::NotFound { .. } => absent(self.model.as_str(), &self.choice),
            InferError::NoLabel { label, .. } => unlabelled(label.as_str()),
            other => status(other),
        }
    }

    /// What is said of the model in an answer.
    pub(super) fn answered_by(&self, version: Version) -> ModelSpec {
        let signature = if self.signature.is_empty() { DEFAULT } else { &self.signature };
        ModelSpec {
            name: self.model.to_string(),
            version_choice: Some(VersionChoice::Version(i64::try_from(version.0).unwrap_or(i64::MAX))),
            signature_name: signature.to_owned(),
        }
    }

    /// Asks the model.
    pub(super) async fn ask(
        &self,
        serving: &Serving,
        input: Input,
        deadline: Deadline,
        watch: &mut Stopwatch,
    ) -> Result<InferResponse, Status> {
        let (model, version) = (self.model.clone(), self.choice.clone());
        let request = InferRequest { model, version, input, deadline, priority: Priority::default() };
        serving.infer(request, watch).await.map_err(|error| self.fault(&error))
    }
}

fn quoted(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(QUOTED).collect()
}

fn specific(model: &str, version: &str) -> String {
    format!("Servable not found for request: Specific({}, {})", quoted(model), quoted(version))
}

fn absent(model: &str, choice: &Choice) -> Status {
    Status::not_found(match choice {
        Choice::Newest => format!("Servable not found for request: Latest({})", quoted(model)),
        Choice::Version(version) => specific(model, &version.to_string()),
        Choice::Label(label) => specific(model, label.as_str()),
    })
}

fn unlabelled(label: &str) -> Status {
    Status::invalid_argument(format!("Unrecognized servable version label: {}", quoted(label)))
}

/// What the network is to look at. A tensor without a name is told by what it is made of.
pub(super) fn input(name: Option<&str>, tensor: Tensor, card: &Card) -> Result<Input, Status> {
    let numbers = card.signature.input();
    let is_image = match name {
        None => matches!(tensor.values, Values::Strings(_)),
        Some(IMAGE) => true,
        Some(name) if name == numbers => false,
        Some(other) => {
            return Err(Status::invalid_argument(format!(
                "input size does not match signature: 1!=1 len({{{0}}}) != len({{{numbers}}}). Sent extra: {{{0}}}. Missing but \
                 required: {{{numbers}}} or {{{IMAGE}}}.",
                quoted(other)
            )));
        }
    };
    match tensor {
        Tensor { shape, values: Values::Strings(images) } if is_image => match shape[..] {
            [] | [_] | [_, 1] => Ok(Input::Images(images.iter().map(image).collect())),
            _ => Err(Status::invalid_argument(format!("`{IMAGE}` has the shape {shape:?}, expected [N]"))),
        },
        _ if is_image => Err(Status::invalid_argument(format!("`{IMAGE}` is DT_STRING: an encoded image each"))),
        other => pixels(other, card),
    }
}

/// Pictures as numbers, of the network's own size.
pub(super) fn pixels(tensor: Tensor, card: &Card) -> Result<Input, Status> {
    let ImageShape { channels, height, width } = card.shape;
    let Some(images) = pictures(&tensor.shape, card.shape) else {
        let name = card.signature.input();
        return Err(Status::invalid_argument(format!(
            "`{name}` has the shape {:?}, expected [N, {height}, {width}, {channels}]",
            tensor.shape
        )));
    };
    // What no picture has would make a network fail, for which the agent would be blamed.
    if let Values::Floats(elements) = &tensor.values
        && let Some(other) = elements.iter().find(|number| !number.is_finite() || number.abs() > LARGEST)
    {
        let name = card.signature.input();
        return Err(Status::invalid_argument(format!("`{name}` has the number {other:e}, which no picture has")));
    }
    let bytes = |elements: Vec<f32>| elements.into_iter().map(|number| number / 255.0).collect();
    Ok(match (tensor.values, card.signature.pixels) {
        (Values::Strings(_), _) => {
            let message = format!("`{}` is DT_FLOAT: the numbers of a picture", card.signature.input());
            return Err(Status::invalid_argument(message));
        }
        (Values::Bytes(elements), _) => {
            let elements = elements.iter().map(|byte| f32::from(*byte) / 255.0).collect();
            Input::Pixels { images, elements }
        }
        (Values::Floats(elements), Pixels::Unit) => Input::Pixels { images, elements },
        (Values::Floats(elements), Pixels::Bytes) => Input::Pixels { images, elements: bytes(elements) },
        (Values::Floats(elements), Pixels::Normalised) => {
            let picture = |picture: &[f32]| -> Vec<f32> {
                (0..channels).flat_map(|plane| picture.iter().skip(plane).step_by(channels)).copied().collect()
            };
            let elements = elements.chunks(card.shape.elements()).flat_map(picture).collect();
            Input::Tensor { shape: vec![images, channels, height, width], elements }
        }
    })
}

/// How many pictures a shape has, where it is one of theirs: `[N, H, W, C]` in any writing that has the same numbers in the same
/// order. Lengths of one come and go, a picture may be one long row, and a single one needs no N.
fn pictures(shape: &[usize], picture: ImageShape) -> Option<usize> {
    let longer = |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|length| *length != 1).collect() };
    let shape = longer(shape);
    let ImageShape { channels, height, width } = picture;
    let rows = longer(&[height, width, channels]);
    let row = longer(&[picture.elements()]);
    let rest = shape.strip_suffix(&rows[..]).or_else(|| shape.strip_suffix(&row[..]))?;
    match rest {
        [] => Some(1),
        [images] => Some(*images),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_known_in_every_writing() {
        let digit = ImageShape::new(1, 28, 28);
        for (shape, images) in [
            (&[1, 28, 28, 1][..], Some(1)),
            (&[28, 28], Some(1)),
            (&[28, 28, 1], Some(1)),
            (&[784], Some(1)),
            (&[5, 28, 28], Some(5)),
            (&[5, 784], Some(5)),
            (&[28, 28, 28], Some(28)),
            (&[0, 28, 28], Some(0)),
            (&[28, 27], None),
            (&[2, 2, 28, 28], None),
            (&[], None),
        ] {
            assert_eq!(pictures(shape, digit), images, "{shape:?}");
        }
        let colour = ImageShape::new(3, 8, 9);
        assert_eq!(pictures(&[4, 8, 9, 3], colour), Some(4));
        assert_eq!(pictures(&[4, 3, 8, 9], colour), None, "channels are last");
        assert_eq!(pictures(&[7], ImageShape::new(1, 1, 1)), Some(7));
    }

    #[test]
    fn a_spec_is_read_as_tensorflow_reads_it() {
        let spec = |name: &str, version_choice| {
            let spec = ModelSpec { name: name.into(), version_choice, signature_name: String::new() };
            Wanted::of_spec(Some(spec)).map(|wanted| wanted.choice).map_err(|status| status.message().to_owned())
        };
        let label = |label: &str| Some(VersionChoice::VersionLabel(label.into()));
        assert_eq!(spec("m", None), Ok(Choice::Newest));
        assert_eq!(spec("m", Some(VersionChoice::Version(0))), Ok(Choice::Newest));
        assert_eq!(spec("m", Some(VersionChoice::Version(3))), Ok(Choice::Version(Version(3))));
        assert_eq!(spec("m", label("3")), Ok(Choice::Version(Version(3))));
        assert!(matches!(spec("m", label("stable")), Ok(Choice::Label(_))));
        let error = |text: &str| Err(text.to_owned());
        assert_eq!(spec("", None), error("ModelSpec has no name specified."));
        assert_eq!(spec("a/b", None), error("Servable not found for request: Latest(a/b)"));
        let missing = error("Servable not found for request: Specific(m, -1)");
        assert_eq!(spec("m", Some(VersionChoice::Version(-1))), missing);
        assert_eq!(spec("m", label("-")), error("Unrecognized servable version label: -"));
        assert_eq!(Wanted::of_spec(None).unwrap_err().message(), "Missing ModelSpec");
    }
}
