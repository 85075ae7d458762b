//! What models give, as TensorFlow's models of the same trade do.
//!
//! A classifier has one output, `[N, classes]`, probabilities, under the name that its description gives it. A detector has those of
//! TensorFlow's detection models, of one row an image; M is the largest number of detections of an image in the request, and the
//! places that an image does not fill are zeros and empty names:
//!
//! - `detection_boxes`: DT_FLOAT, `[N, M, 4]`: top, left, bottom, right, from 0 to 1 of the image's height and width;
//! - `detection_scores`: DT_FLOAT, `[N, M]`, from 0 to 1, the surest first;
//! - `detection_classes`: DT_FLOAT, `[N, M]`, numbers of classes from 1, as in TensorFlow's maps of labels, where 0 is nothing;
//! - `detection_class_entities`: DT_STRING, `[N, M]`, their names;
//! - `num_detections`: DT_FLOAT, `[N]`.

use adit_proto::tensorflow::serving::{Class, ClassificationResult, Classifications};
use adit_vision::Detection;
use bytes::Bytes;
use tonic::Status;

use super::tensors::{Tensor, Values};
use crate::serving::{Card, Findings, InferResponse};

pub(super) const BOXES: &str = "detection_boxes";
pub(super) const SCORES: &str = "detection_scores";
pub(super) const CLASSES: &str = "detection_classes";
pub(super) const ENTITIES: &str = "detection_class_entities";
pub(super) const NUMBER: &str = "num_detections";

/// In a shape: as many as there are.
pub(super) const MANY: i64 = -1;

/// An output with its name.
pub(super) type Named = (String, Tensor);

/// Refuses outputs that the model has not.
pub(super) fn check(card: &Card, filter: &[String]) -> Result<(), Status> {
    let known =
        if card.detects { vec![BOXES, SCORES, CLASSES, ENTITIES, NUMBER] } else { vec![card.signature.output()] };
    let Some(other) = filter.iter().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let other: String = other.chars().take(80).collect();
    let known = known.join(",");
    Err(Status::invalid_argument(format!(
        "output tensor alias not found in signature: {other} Outputs expected to be in the set {{{known}}}."
    )))
}

/// All that was found, or those outputs that were asked for.
pub(super) fn outputs(card: &Card, response: InferResponse, filter: &[String]) -> Vec<Named> {
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|wanted| wanted == name);
    match response.findings {
        Findings::Probabilities(rows) => {
            let shape = vec![rows.len(), rows.first().map_or(0, Vec::len)];
            vec![(card.signature.output().to_owned(), Tensor { shape, values: Values::Floats(rows.concat()) })]
        }
        Findings::Detections(rows) => {
            let mut all = detections(&rows, &response.sizes);
            all.retain(|(name, _)| wanted(name));
            all
        }
    }
}

fn detections(rows: &[Vec<Detection>], sizes: &[[u32; 2]]) -> Vec<Named> {
    let (images, most) = (rows.len(), rows.iter().map(Vec::len).max().unwrap_or(0));
    let places = || rows.iter().zip(sizes).flat_map(|(row, size)| (0..most).map(move |place| (row.get(place), size)));
    let of_picture = |(found, size): (Option<&Detection>, &[u32; 2])| {
        let [width, height] = size.map(|side| side.max(1) as f32);
        found.map_or([0.0; 4], |Detection { corners: [left, top, right, bottom], .. }| {
            [top / height, left / width, bottom / height, right / width]
        })
    };
    let number = |of: fn(&Detection) -> f32| places().map(|(found, _)| found.map_or(0.0, of)).collect();
    let name = |found: &Detection| Bytes::copy_from_slice(found.label.as_bytes());
    let names = places().map(|(found, _)| found.map_or_else(Bytes::new, name)).collect();
    let tensor = |name: &str, shape: &[usize], values| (name.to_owned(), Tensor { shape: shape.to_vec(), values });
    vec![
        tensor(BOXES, &[images, most, 4], Values::Floats(places().flat_map(of_picture).collect())),
        tensor(ENTITIES, &[images, most], Values::Strings(names)),
        tensor(CLASSES, &[images, most], Values::Floats(number(|found| found.class as f32 + 1.0))),
        tensor(SCORES, &[images, most], Values::Floats(number(|found| found.score))),
        tensor(NUMBER, &[images], Values::Floats(rows.iter().map(|row| row.len() as f32).collect())),
    ]
}

/// A classifier's findings as `Classify` tells them: all classes of each image, in the model's order.
pub(super) fn classes(response: InferResponse) -> Result<ClassificationResult, Status> {
    let Findings::Probabilities(rows) = response.findings else {
        return Err(Status::internal("a classifier has told boxes"));
    };
    let row = |row: &Vec<f32>| Classifications {
        classes: response
            .labels
            .all()
            .iter()
            .zip(row)
            .map(|(label, score)| Class { label: label.to_string(), score: *score })
            .collect(),
    };
    Ok(ClassificationResult { classifications: rows.iter().map(row).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_told_in_parts_of_their_image() {
        let found =
            |class: usize, label: &str, score, corners| Detection { class, label: label.into(), score, corners };
        let rows = vec![
            vec![found(1, "dog", 0.75, [10.0, 20.0, 30.0, 60.0]), found(0, "cat", 0.5, [0.0, 0.0, 100.0, 80.0])],
            vec![],
        ];
        let outputs = detections(&rows, &[[100, 80], [5, 5]]);
        let output = |name: &str| outputs.iter().find(|(other, _)| other == name).unwrap().1.clone();
        let boxes = output(BOXES);
        assert_eq!(boxes.shape, [2, 2, 4]);
        let expected = vec![0.25, 0.1, 0.75, 0.3, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(boxes.values, Values::Floats(expected));
        assert_eq!(output(SCORES).values, Values::Floats(vec![0.75, 0.5, 0.0, 0.0]));
        assert_eq!(output(CLASSES).values, Values::Floats(vec![2.0, 1.0, 0.0, 0.0]));
        assert_eq!(output(NUMBER), Tensor { shape: vec![2], values: Values::Floats(vec![2.0, 0.0]) });
        let names = ["dog", "cat", "", ""].map(Bytes::from).to_vec();
        assert_eq!(output(ENTITIES).values, Values::Strings(names));
    }
}
