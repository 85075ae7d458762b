//! What models give: the outputs that can be asked for, and how findings become their tensors.
//!
//! A classifier has one output:
//!
//! - `probabilities`: FP32, `[N, classes]`; with the parameter `classification: k` the k likeliest classes instead, BYTES
//!   `[N, k]`, each `PROBABILITY:INDEX:LABEL`.
//!
//! A detector has four, of one row an image. M is the largest number of detections of an image in the request; the places
//! that an image does not fill have a box of zeros, score 0, class -1 and an empty label:
//!
//! - `boxes`: FP32, `[N, M, 4]`, left, top, right, bottom in pixels of the image as it was sent;
//! - `scores`: FP32, `[N, M]`, from 0 to 1, the surest first;
//! - `classes`: INT64, `[N, M]`, numbers of classes;
//! - `labels`: BYTES, `[N, M]`, their names.

use adit_common::id::ModelName;
use adit_common::oip::{
    Classification, Datatype, Encoded, InferRequest, InferResponse, OipError, Tensor, TensorMetadata,
};
use adit_vision::Detection;
use bytes::Bytes;

use crate::error::InferError;
use crate::serving::{self, Findings};

const PROBABILITIES: &str = "probabilities";
const BOXES: &str = "boxes";
const SCORES: &str = "scores";
const CLASSES: &str = "classes";
const LABELS: &str = "labels";

/// What a caller wants of the findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// All that there is.
    All,
    /// So many classes instead of all probabilities.
    Likeliest(usize),
}

/// The outputs of a model with so many classes, as its metadata tells them.
pub(super) fn outputs(classes: usize, detects: bool) -> Vec<TensorMetadata> {
    let tensor =
        |name: &str, datatype, shape: &[i64]| TensorMetadata { name: name.into(), datatype, shape: shape.into() };
    if detects {
        return vec![
            tensor(BOXES, Datatype::Fp32, &[-1, -1, 4]),
            tensor(SCORES, Datatype::Fp32, &[-1, -1]),
            tensor(CLASSES, Datatype::Int64, &[-1, -1]),
            tensor(LABELS, Datatype::Bytes, &[-1, -1]),
        ];
    }
    vec![tensor(PROBABILITIES, Datatype::Fp32, &[-1, i64::try_from(classes).unwrap_or(-1)])]
}

/// What is wanted of a model. Refuses what it does not give before anything is computed.
pub(super) fn wish(asked: &InferRequest, model: &ModelName, detects: bool) -> Result<Wish, InferError> {
    let invalid = |error: OipError| InferError::Invalid(error.to_string());
    let known: &[&str] = if detects { &[BOXES, SCORES, CLASSES, LABELS] } else { &[PROBABILITIES] };
    let expected = || known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if let Some(other) = asked.outputs.iter().flatten().find(|output| !known.contains(&output.name.as_str())) {
        let other: String = other.name.chars().take(80).collect();
        let message = if detects && other == PROBABILITIES {
            format!("`{model}` finds objects and has no `{PROBABILITIES}`: ask for {}", expected())
        } else {
            format!("unknown output `{other}`, expected {}", expected())
        };
        return Err(InferError::Invalid(message));
    }
    let mut likeliest = None;
    for name in known {
        asked.wants_binary(name).map_err(invalid)?;
        let count = asked.requested(name).map(|output| output.parameters.classification()).transpose();
        // Zero classes are no classification.
        likeliest = likeliest.or(count.map_err(invalid)?.flatten().filter(|count| *count > 0));
    }
    match likeliest {
        Some(_) if detects => Err(InferError::Invalid(format!(
            "`{model}` finds objects and does not classify: ask for {}, without `classification`",
            expected()
        ))),
        Some(count) => Ok(Wish::Likeliest(count)),
        None => Ok(Wish::All),
    }
}

/// The answer, with those outputs that were asked for.
pub(super) fn respond(
    asked: &InferRequest,
    wish: Wish,
    response: &serving::InferResponse,
) -> Result<InferResponse, OipError> {
    let outputs = match (&response.findings, wish) {
        (Findings::Detections(rows), _) => detections(rows, |output| asked.wants(output))?,
        (Findings::Probabilities(rows), Wish::All) => {
            let classes = rows.first().map_or(0, Vec::len);
            vec![Tensor::floats(PROBABILITIES, &[rows.len(), classes], &rows.concat())?]
        }
        (Findings::Probabilities(rows), Wish::Likeliest(top)) => {
            let classes: Vec<_> = rows.iter().flat_map(|row| best(row, top, response)).collect();
            vec![Tensor::bytes(PROBABILITIES, &[rows.len(), classes.len() / rows.len().max(1)], classes)?]
        }
    };
    Ok(InferResponse {
        model_name: response.model.to_string(),
        model_version: Some(response.version.to_string()),
        id: asked.id.clone(),
        outputs,
        ..InferResponse::default()
    })
}

/// The answer as JSON, with those outputs behind it that are wanted so.
pub(super) fn encode(asked: &InferRequest, answer: &InferResponse) -> Result<Encoded, OipError> {
    let mut binary = Vec::new();
    for output in &answer.outputs {
        if asked.wants_binary(output.name())? {
            binary.push(output.name());
        }
    }
    answer.encode(|name| binary.contains(&name))
}

fn best(row: &[f32], top: usize, response: &serving::InferResponse) -> Vec<Bytes> {
    let found = adit_vision::top(row, &response.labels, top).unwrap_or_default();
    let class = |found: adit_vision::Prediction| {
        let class =
            Classification { value: found.probability, index: found.index, label: Some(found.label.to_string()) };
        Bytes::from(class.to_string())
    };
    found.into_iter().map(class).collect()
}

/// The tensors of a row of detections an image, of which those are made that are wanted.
fn detections(rows: &[Vec<Detection>], wanted: impl Fn(&str) -> bool) -> Result<Vec<Tensor>, OipError> {
    let (images, most) = (rows.len(), rows.iter().map(Vec::len).max().unwrap_or(0));
    let places = || rows.iter().flat_map(|row| (0..most).map(|place| row.get(place)));
    let mut outputs = Vec::new();
    if wanted(BOXES) {
        let corners: Vec<f32> = places().flat_map(|found| found.map_or([0.0; 4], |found| found.corners)).collect();
        outputs.push(Tensor::floats(BOXES, &[images, most, 4], &corners)?);
    }
    if wanted(SCORES) {
        let scores: Vec<f32> = places().map(|found| found.map_or(0.0, |found| found.score)).collect();
        outputs.push(Tensor::floats(SCORES, &[images, most], &scores)?);
    }
    if wanted(CLASSES) {
        let class =
            |found: Option<&Detection>| found.map_or(-1, |found| i64::try_from(found.class).unwrap_or(i64::MAX));
        let classes: Vec<u8> = places().flat_map(|found| class(found).to_le_bytes()).collect();
        outputs.push(Tensor::numbers(CLASSES, Datatype::Int64, &[images, most], classes.into())?);
    }
    if wanted(LABELS) {
        let label = |found: &Detection| Bytes::copy_from_slice(found.label.as_bytes());
        let labels: Vec<Bytes> = places().map(|found| found.map_or_else(Bytes::new, label)).collect();
        outputs.push(Tensor::bytes(LABELS, &[images, most], labels)?);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use adit_common::id::Version;
    use adit_vision::Labels;
    use serde_json::{Value, json};

    use super::*;
    use crate::serving::Receipt;

    fn asked(rest: Value) -> InferRequest {
        let mut text = json!({ "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [1], "data": ["a"] }] });
        text.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        InferRequest::parse(&text.to_string().into(), None).unwrap()
    }

    fn response(findings: Findings) -> serving::InferResponse {
        let labels = Arc::new(Labels::parse("cat\ndog\ncup").unwrap());
        let (model, receipt) = (ModelName::new("m").unwrap(), Receipt::default());
        serving::InferResponse { model, version: Version(3), findings, labels, receipt, sizes: vec![] }
    }

    fn found(class: usize, label: &str, score: f32, corners: [f32; 4]) -> Detection {
        Detection { class, label: label.into(), score, corners }
    }

    fn written(asked: &InferRequest, response: serving::InferResponse) -> Encoded {
        encode(asked, &respond(asked, Wish::All, &response).unwrap()).unwrap()
    }

    /// Two things in the first image, none in the second, one in the third.
    fn three() -> serving::InferResponse {
        response(Findings::Detections(vec![
            vec![found(1, "dog", 0.75, [1.0, 2.0, 3.0, 4.5]), found(0, "cat", 0.5, [0.0, 0.0, 9.0, 8.0])],
            vec![],
            vec![found(2, "cup", 0.25, [5.0, 6.0, 7.0, 8.0])],
        ]))
    }

    #[test]
    fn detections_fill_rows_of_one_length() {
        let encoded = written(&asked(json!({ "id": "7" })), three());
        assert_eq!(encoded.header_length, None);
        let expected = json!({ "model_name": "m", "model_version": "3", "id": "7", "outputs": [
            { "name": "boxes", "datatype": "FP32", "shape": [3, 2, 4], "data": [
                1.0, 2.0, 3.0, 4.5, 0.0, 0.0, 9.0, 8.0, 0.0, 0.0, 0.0, 0.0,
                0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0, 0.0, 0.0] },
            { "name": "scores", "datatype": "FP32", "shape": [3, 2], "data": [0.75, 0.5, 0.0, 0.0, 0.25, 0.0] },
            { "name": "classes", "datatype": "INT64", "shape": [3, 2], "data": [1, 0, -1, -1, 2, -1] },
            { "name": "labels", "datatype": "BYTES", "shape": [3, 2], "data": ["dog", "cat", "", "", "cup", ""] },
        ] });
        assert_eq!(serde_json::from_slice::<Value>(&encoded.body).unwrap(), expected);
    }

    #[test]
    fn outputs_come_as_they_were_asked_for() {
        let wishes = json!({ "outputs": [
            { "name": "labels", "parameters": { "binary_data": true } }, { "name": "classes" },
        ], "parameters": { "binary_data_output": false } });
        let encoded = written(&asked(wishes), three());
        let answer = InferResponse::parse(&encoded.body, encoded.header_length).unwrap();
        assert_eq!(answer.outputs.iter().map(Tensor::name).collect::<Vec<_>>(), [CLASSES, LABELS]);
        assert_eq!(answer.output(LABELS).unwrap().to_elements().unwrap()[4], "cup");
        let json: Value = serde_json::from_slice(&encoded.body[..encoded.header_length.unwrap()]).unwrap();
        assert!(json["outputs"][0]["data"].is_array() && json["outputs"][1]["data"].is_null(), "{json}");
    }

    #[test]
    fn an_image_with_nothing_in_it_has_an_answer_too() {
        for binary in [false, true] {
            let asked = asked(json!({ "parameters": { "binary_data_output": binary } }));
            let encoded = written(&asked, response(Findings::Detections(vec![vec![]])));
            let answer = InferResponse::parse(&encoded.body, encoded.header_length).unwrap();
            assert_eq!(answer.output(BOXES).unwrap().shape(), [1, 0, 4]);
            assert_eq!(answer.output(LABELS).unwrap().shape(), [1, 0]);
        }
    }

    #[test]
    fn what_a_model_does_not_give_is_refused_before_it_runs() {
        let model = ModelName::new("m").unwrap();
        let wish = |outputs: Value, detects| {
            wish(&asked(json!({ "outputs": outputs })), &model, detects).map_err(|error| error.to_string())
        };
        let classification =
            |name: &str, count: u32| json!([{ "name": name, "parameters": { "classification": count } }]);
        assert_eq!(wish(classification(PROBABILITIES, 3), false), Ok(Wish::Likeliest(3)));
        assert_eq!(wish(classification(PROBABILITIES, 0), false), Ok(Wish::All));
        assert_eq!(wish(json!([{ "name": "boxes" }, { "name": "scores" }]), true), Ok(Wish::All));
        assert_eq!(wish(json!([]), true), Ok(Wish::All));
        for (outputs, detects, because) in [
            (json!([{ "name": "boxes" }]), false, "unknown output `boxes`, expected `probabilities`"),
            (json!([{ "name": "box" }]), true, "unknown output `box`, expected `boxes`, `scores`, `classes`, `labels`"),
            (
                json!([{ "name": "probabilities" }]),
                true,
                "`m` finds objects and has no `probabilities`: ask for `boxes`",
            ),
            (classification("boxes", 5), true, "`m` finds objects and does not classify: ask for `boxes`, `scores`"),
        ] {
            let error = wish(outputs.clone(), detects).unwrap_err();
            assert!(error.contains(because), "{outputs}: {error}");
        }
    }
}
