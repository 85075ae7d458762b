//! DeepStack and CodeProject.AI: what cameras' recorders and home automation ask.
//!
//! A form with the field `image`, and `min_confidence` (from 0 to 1, 0.4 unless given). Answers have the fields of both systems:
//! DeepStack's clients read `success` and `predictions`, CodeProject's the rest. They are sorted by confidence and at most
//! twenty, because there are clients that stop reading at the first one that they do not care for. `api_key` is for the relay.

use std::sync::Arc;

use adit_common::id::ModelName;
use adit_common::manifest::{Dialect, Gather};
use adit_common::timing::Stage;
use adit_vision::{Detection, Labels};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::super::paths::{Need, Paths};
use super::super::reply::{Refusal, json, refusal_as, timed};
use super::super::router::Api;
use super::boxes::{self, Sight, sight};
use super::form::Posted;
use crate::error::InferError;
use crate::serving::{Choice, Findings, InferRequest, Input, Priority};

/// Predictions of one answer: more than a recorder draws.
const MOST: usize = 20;

/// Unless a request says otherwise.
const CONFIDENCE: f32 = 0.4;

/// What may be asked in this dialect.
pub(crate) fn paths() -> Paths {
    Paths::of(Dialect::Deepstack)
        .post("/v1/vision/detection", detection)
        .needing(Need::Detector)
        .post("/v1/vision/custom/list", names)
        .gathered(Gather::Union)
        .post("/v1/vision/custom/{model}", custom)
        .post("/v1/vision/face", face)
        .needing(Need::Detector)
        .post("/v1/vision/scene", scene)
        .needing(Need::Classifier)
        .post("/v1/vision/listmodels", models)
        .gathered(Gather::Union)
}

/// Why there is no answer, as the originals say it.
#[derive(Debug)]
struct Fault {
    status: StatusCode,
    error: String,
    /// What CodeProject.AI would say to a person.
    message: String,
}

impl Fault {
    fn new(status: StatusCode, error: &str) -> Self {
        Self { status, error: error.to_owned(), message: error.to_owned() }
    }

    fn answer(&self) -> Response<Body> {
        #[derive(Serialize)]
        struct Failure<'a> {
            success: bool,
            error: &'a str,
            message: &'a str,
            code: u16,
            duration: u8,
        }
        let body = Failure {
            success: false,
            error: &self.error,
            message: &self.message,
            code: self.status.as_u16(),
            duration: 0,
        };
        refusal_as(self.status, &body)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status, &refusal.message)
    }
}

impl From<InferError> for Fault {
    fn from(error: InferError) -> Self {
        let refusal = Refusal::from(error.clone());
        match error {
            InferError::Invalid(message) => {
                Self { message, ..Self::new(StatusCode::BAD_REQUEST, "invalid image file") }
            }
            InferError::DeadlineExceeded => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed to process request before timeout")
            }
            _ => refusal.into(),
        }
    }
}

/// A box, in whole pixels of the image as it was sent.
#[derive(Debug, Serialize)]
struct Prediction {
    confidence: f32,
    label: String,
    y_min: i64,
    x_min: i64,
    y_max: i64,
    x_max: i64,
}

impl From<&Detection> for Prediction {
    fn from(detection: &Detection) -> Self {
        let [x_min, y_min, x_max, y_max] = boxes::corners(detection);
        Self { confidence: detection.score, label: detection.label.to_string(), y_min, x_min, y_max, x_max }
    }
}

/// What every answer ends with: CodeProject.AI's fields.
#[derive(Debug, Serialize)]
struct Extras {
    message: String,
    duration: u8,
    code: u16,
    command: &'static str,
    #[serde(rename = "moduleId")]
    module_id: String,
    #[serde(rename = "moduleName")]
    module_name: &'static str,
    #[serde(rename = "inferenceDevice")]
    inference_device: String,
    #[serde(rename = "inferenceMs")]
    inference: u64,
    #[serde(rename = "processMs")]
    process: u64,
    #[serde(rename = "analysisRoundTripMs")]
    round_trip: u64,
}

fn extras(posted: &Posted, model: &ModelName, command: &'static str, message: String) -> Extras {
    let timing = posted.watch.finish();
    // `cpu b=1`: what it ran on, and with how many others.
    let device = timing.note().and_then(|note| note.split(' ').next()).unwrap_or_default();
    let (inference, process) = boxes::millis(&posted.watch);
    Extras {
        message,
        duration: 0,
        code: StatusCode::OK.as_u16(),
        command,
        module_id: model.to_string(),
        module_name: "Adit",
        inference_device: device.to_ascii_uppercase(),
        inference,
        process,
        round_trip: u64::try_from(posted.arrived.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// `POST /v1/vision/detection`: whatever the default detector finds.
async fn detection(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let detector = |api: &Api| api.serving.default_detector(|_| true).ok_or_else(|| inactive(api, "Detection"));
    found(&api, request, "detect", detector).await
}

/// `POST /v1/vision/face`: what a detector finds that knows faces and nothing else.
async fn face(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let tells_faces = |labels: &Labels| labels.kinds().eq(["face"]);
    let detector = |api: &Api| api.serving.default_detector(tells_faces).ok_or_else(|| inactive(api, "Face"));
    found(&api, request, "detect", detector).await
}

/// `POST /v1/vision/custom/{model}`
async fn custom(State(api): State<Arc<Api>>, Path(model): Path<String>, request: Request) -> Response<Body> {
    let detector = |api: &Api| {
        let name = boxes::name(&model)?;
        match sight(api, &name)? {
            Sight::Boxes => Ok(name),
            Sight::Classes => {
                let message = format!("`{name}` is a classifier and finds no boxes");
                Err(Fault::new(StatusCode::BAD_REQUEST, &message))
            }
        }
    };
    found(&api, request, "custom", detector).await
}

/// There is nobody to ask.
fn inactive(api: &Api, what: &str) -> Fault {
    if api.serving.catalogue().is_settled() {
        Fault::new(StatusCode::FORBIDDEN, &format!("{what} endpoint not activated"))
    } else {
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "models are being loaded")
    }
}

async fn found(
    api: &Api,
    request: Request,
    command: &'static str,
    detector: impl Fn(&Api) -> Result<ModelName, Fault>,
) -> Response<Body> {
    #[derive(Serialize)]
    struct Found {
        success: bool,
        predictions: Vec<Prediction>,
        count: usize,
        #[serde(flatten)]
        extras: Extras,
    }
    let mut posted = match Posted::take(api, request).await {
        Ok(posted) => posted,
        Err(refusal) => return Fault::from(refusal).answer(),
    };
    let answered = async {
        let (image, least) = (image(&posted)?, least(&posted)?);
        let model = detector(api)?;
        let rows = boxes::detect(api, &model, &[image], posted.deadline, &mut posted.watch).await?;
        let sure = rows.iter().flatten().filter(|detection| detection.score >= least);
        let predictions: Vec<Prediction> = sure.take(MOST).map(Prediction::from).collect();
        let labels: Vec<_> = predictions.iter().map(|prediction| &*prediction.label).collect();
        let message =
            if labels.is_empty() { "No objects found".to_owned() } else { format!("Found {}", labels.join(", ")) };
        let extras = extras(&posted, &model, command, message);
        Ok(json(StatusCode::OK, &Found { success: true, count: predictions.len(), predictions, extras }))
    };
    let response = answered.await.unwrap_or_else(|fault: Fault| fault.answer());
    posted.watch.lap(Stage::Encode);
    timed(response, posted.watch)
}

fn image(posted: &Posted) -> Result<bytes::Bytes, Fault> {
    let image = posted.form.bytes("image").filter(|image| !image.is_empty()).cloned();
    image.ok_or_else(|| Fault::new(StatusCode::BAD_REQUEST, "No valid image file found"))
}

fn least(posted: &Posted) -> Result<f32, Fault> {
    let Some(bytes) = posted.form.bytes("min_confidence") else { return Ok(CONFIDENCE) };
    let read = std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse::<f32>().ok());
    let invalid = || Fault::new(StatusCode::BAD_REQUEST, "Invalid value for min_confidence");
    read.filter(|least| (0.0..=1.0).contains(least)).ok_or_else(invalid)
}

/// `POST /v1/vision/scene`: the class of the whole image, by the default classifier.
async fn scene(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    #[derive(Serialize)]
    struct Scene {
        success: bool,
        label: String,
        confidence: f32,
        #[serde(flatten)]
        extras: Extras,
    }
    let mut posted = match Posted::take(&api, request).await {
        Ok(posted) => posted,
        Err(refusal) => return Fault::from(refusal).answer(),
    };
    let answered = async {
        let image = image(&posted)?;
        let model = api.serving.default_model().ok_or_else(|| inactive(&api, "Scene"))?;
        if sight(&api, &model)? == Sight::Boxes {
            return Err(inactive(&api, "Scene"));
        }
        let request = InferRequest {
            model: model.clone(),
            version: Choice::Newest,
            input: Input::Images(vec![image]),
            deadline: posted.deadline,
            priority: Priority::default(),
        };
        let response = api.serving.infer(request, &mut posted.watch).await?;
        let Findings::Probabilities(rows) = &response.findings else { return Err(inactive(&api, "Scene")) };
        let best = rows.first().and_then(|row| adit_vision::top(row, &response.labels, 1).ok()?.into_iter().next());
        let best =
            best.ok_or_else(|| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the model's answer makes no sense"))?;
        let label = best.label.to_string();
        let extras = extras(&posted, &model, "classify", format!("Found {label}"));
        Ok(json(StatusCode::OK, &Scene { success: true, label, confidence: best.probability, extras }))
    };
    let response = answered.await.unwrap_or_else(|fault: Fault| fault.answer());
    posted.watch.lap(Stage::Encode);
    timed(response, posted.watch)
}

/// `POST /v1/vision/listmodels`: the detectors with what their weights take in megabytes, as DeepStack lists them.
async fn models(State(api): State<Arc<Api>>) -> Response<Body> {
    let catalogue = api.serving.catalogue();
    let models = catalogue.detectors().map(|card| {
        let size = (card.bytes as f64 / 1e4).round() / 100.0;
        json!({ "name": card.name.as_str(), "size": size })
    });
    json(StatusCode::OK, &json!({ "success": true, "models": models.collect::<Vec<_>>(), "duration": 0 }))
}

/// `POST /v1/vision/custom/list`: their names, as CodeProject.AI lists them.
async fn names(State(api): State<Arc<Api>>) -> Response<Body> {
    let catalogue = api.serving.catalogue();
    let models: Vec<_> = catalogue.detectors().map(|card| card.name.as_str()).collect();
    json(StatusCode::OK, &json!({ "success": true, "models": models, "code": 200, "duration": 0 }))
}
