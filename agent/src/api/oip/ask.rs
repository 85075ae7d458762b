//! One question of the protocol, whichever way it travelled.
//!
//! A model takes one input:
//!
//! - `image`: BYTES, `[N]` or `[N, 1]`, an encoded image (JPEG, PNG, WebP, BMP, GIF) each: the bytes as they are or, where
//!   they travel as text, base64.
//! - or `input`: FP32, `[N, C, H, W]`, prepared by the caller as the network was trained.

use adit_common::deadline::Deadline;
use adit_common::id::ModelName;
use adit_common::oip::{InferRequest, InferResponse, OipError, Tensor};
use adit_common::timing::Stopwatch;

use super::super::upload::image;
use super::outputs::{respond, wish};
use crate::error::InferError;
use crate::serving::{self, Choice, Input, Priority, Receipt, Serving};

pub(super) const IMAGE: &str = "image";
const INPUT: &str = "input";

/// Asks a model: the request's own parameters are minded, its inputs are in `input` already. The receipt is to be kept until the
/// answer is written, which is a part of the inference.
pub(super) async fn ask(
    serving: &Serving,
    model: ModelName,
    version: Choice,
    asked: &InferRequest,
    input: Input,
    deadline: Deadline,
    watch: &mut Stopwatch,
) -> Result<(InferResponse, Receipt), InferError> {
    let detects = serving.catalogue().card(&model, &version)?.detects;
    let own = asked.parameters.timeout().map_err(invalid)?;
    let deadline = own.map_or(deadline, |own| deadline.min(Deadline::after(watch.born(), own)));
    let priority = Priority::new(asked.parameters.priority().map_err(invalid)?);
    let wish = wish(asked, &model, detects)?;
    let request = serving::InferRequest { model, version, input, deadline, priority };
    let response = serving.infer(request, watch).await?;
    let answer = respond(asked, wish, &response).map_err(invalid)?;
    Ok((answer, response.receipt))
}

/// The model and version that a request names; no version is the newest.
pub(super) fn named(model: &str, version: Option<&str>) -> Result<(ModelName, Choice), InferError> {
    let choice = version.map(str::parse).transpose();
    let choice = choice.map_err(|error| InferError::Invalid(format!("{error}")))?.unwrap_or_default();
    // What cannot be a name is the name of nothing.
    let unknown = |_| InferError::NotFound { model: model.chars().take(80).collect(), version: None };
    Ok((ModelName::new(model).map_err(unknown)?, choice))
}

/// What the network is to look at.
pub(super) fn input(inputs: &[Tensor]) -> Result<Input, InferError> {
    let [tensor] = inputs else {
        let message = format!("a request has one input, `{IMAGE}` or `{INPUT}`, but this one has {}", inputs.len());
        return Err(InferError::Invalid(message));
    };
    match (tensor.name(), tensor.shape()) {
        (IMAGE | "", [_] | [_, 1]) => {
            Ok(Input::Images(tensor.to_elements().map_err(invalid)?.iter().map(image).collect()))
        }
        (IMAGE | "", shape) => {
            Err(InferError::Invalid(format!("input `{IMAGE}` has the shape {shape:?}, expected [N] or [N, 1]")))
        }
        (INPUT, shape) => Ok(Input::Tensor { shape: shape.to_vec(), elements: tensor.to_floats().map_err(invalid)? }),
        (other, _) => {
            let other: String = other.chars().take(80).collect();
            Err(InferError::Invalid(format!("unknown input `{other}`, expected `{IMAGE}` or `{INPUT}`")))
        }
    }
}

pub(super) fn invalid(error: OipError) -> InferError {
    InferError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(text: &str) -> Result<Input, String> {
        let asked = InferRequest::parse(&Bytes::copy_from_slice(text.as_bytes()), None).unwrap();
        input(&asked.inputs).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_comes_in_each_shape_and_as_base64() {
        for shape in ["[2]", "[2,1]"] {
            let text = format!(
                r#"{{"inputs":[{{"name":"image","datatype":"BYTES","shape":{shape},"data":["iVBORw==","plain text"]}}]}}"#
            );
            let Ok(Input::Images(images)) = read(&text) else { panic!("no images: {text}") };
            assert_eq!(images, [&b"\x89PNG"[..], b"plain text"]);
        }
    }

    #[test]
    fn what_no_model_takes_is_refused_by_name() {
        for (input, because) in [
            (r#"{"name":"image","datatype":"BYTES","shape":[1,2],"data":["a","b"]}"#, "expected [N] or [N, 1]"),
            (r#"{"name":"image","datatype":"FP32","shape":[1],"data":[1]}"#, "not BYTES"),
            (r#"{"name":"picture","datatype":"BYTES","shape":[1],"data":["a"]}"#, "unknown input `picture`"),
            (r#"{"name":"input","datatype":"INT8","shape":[1],"data":[1]}"#, "not FP32"),
        ] {
            let error = read(&format!(r#"{{"inputs":[{input}]}}"#)).unwrap_err();
            assert!(error.contains(because), "{input}: {error}");
        }
        assert!(read(r#"{"inputs":[]}"#).unwrap_err().contains("this one has 0"));
    }
}
