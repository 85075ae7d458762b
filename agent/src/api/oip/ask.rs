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
use crate::serving::{self, Choice, Input, Priority, Serving};

pub(super) const IMAGE: &str = "image";
const INPUT: &str = "input";

/// Asks a model: the request's own parameters are minded, its inputs are in `input` already.
pub(super) async fn ask(
    serving: &Serving,
    model: ModelName,
    version: Choice,
    asked: &InferRequest,
    input: Input,
    deadline: Deadline,
    watch: &mut Stopwatch,
) -> Result<InferResponse, InferError> {
    let detects = serving.catalogue().card(&model, &version)?.detects;
    let own = asked.parameters.timeout().map_err(invalid)?;
    let deadline = own.map_or(deadline, |own| deadline.min(Deadline::after(watch.born(), own)));
    let priority = Priority::new(asked.parameters.priority().map_err(invalid)?);
    let wish = wish(asked, &model, detects)?;
    let request = serving::InferRequest { model, version, input, deadline, priority };
    let response = serving.infer(request, watch).await?;
    respond(asked, wish, &response).map_err(invalid)
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
