//! Detectors, as the dialects of boxes ask them: images in, rows of detections out.

use std::time::Duration;

use adit_common::deadline::Deadline;
use adit_common::id::ModelName;
use adit_common::timing::{Stage, Stopwatch};
use adit_picture::{Caption, Colour, Mark};
use adit_vision::Detection;
use bytes::Bytes;

use super::super::router::Api;
use crate::error::InferError;
use crate::serving::{Choice, Findings, InferRequest, Input, Priority};

/// What a model is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// It tells classes of whole images.
    Classes,
    /// It tells boxes.
    Boxes,
}

/// What a model that can be asked is good for; an error says why it cannot.
pub(super) fn sight(api: &Api, model: &ModelName) -> Result<Sight, InferError> {
    let catalogue = api.serving.catalogue();
    let card = catalogue.card(model, &Choice::Newest)?;
    Ok(if card.detects { Sight::Boxes } else { Sight::Classes })
}

/// The name in a path or a form; what cannot be a name is the name of nothing.
pub(super) fn name(text: &str) -> Result<ModelName, InferError> {
    ModelName::new(text).map_err(|_| InferError::NotFound { model: text.chars().take(80).collect(), version: None })
}

/// What a detector finds, a row an image, in pixels of the image as it was sent, the surest first. More images than one inference
/// takes are several, one after another.
pub(super) async fn detect(
    api: &Api,
    model: &ModelName,
    images: &[Bytes],
    deadline: Deadline,
    watch: &mut Stopwatch,
) -> Result<Vec<Vec<Detection>>, InferError> {
    let mut rows = Vec::with_capacity(images.len());
    for part in images.chunks(api.serving.max_images().max(1)) {
        let request = InferRequest {
            model: model.clone(),
            version: Choice::Newest,
            input: Input::Images(part.to_vec()),
            deadline,
            priority: Priority::default(),
        };
        match api.serving.infer(request, watch).await?.findings {
            Findings::Detections(found) => rows.extend(found),
            // It was looked at before; a model that has become another one meanwhile is as good as gone.
            Findings::Probabilities(_) => {
                return Err(InferError::Invalid(format!("`{model}` is a classifier and finds no boxes")));
            }
        }
    }
    Ok(rows)
}

/// Left, top, right, bottom in whole pixels, cut as the dialects' originals do it.
pub(super) fn corners(detection: &Detection) -> [i64; 4] {
    // Boxes lie in their picture.
    detection.corners.map(|side| side as i64)
}

/// What is drawn of a detection unless a dialect says otherwise: its class's colour, its label and its score in percent.
pub(super) fn mark(detection: &Detection) -> Mark {
    Mark {
        corners: detection.corners,
        colour: Colour::of_class(detection.class),
        text: format!("{} {:.0}%", detection.label, detection.score * 100.0),
        caption: Caption::Plate,
    }
}

/// Milliseconds of the forward pass, and of everything since the request was whole.
pub(super) fn millis(watch: &Stopwatch) -> (u64, u64) {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let forward = watch.finish().stage(Stage::Forward).unwrap_or_default();
    (ms(forward), ms(watch.elapsed()))
}
