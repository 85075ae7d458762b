//! Detection in an envelope: `/models/{model}/predict` and its kin, `/detect`, `/load`, `/get_labels`.
//!
//! Most answers are `{"data": ..., "error": "", "success": true}`; the three oldest paths answer without it. What the original has
//! a sentence for is answered with status 200, that sentence and `success: false`, for its clients look at nothing else; what it
//! does not know (too busy, too long, too late) has the status of HTTP and the same envelope.
//!
//! What of the original is not kept: unknown models were status 500 in two places, and all drawn pictures were one file that
//! concurrent requests overwrote. What is kept though it is wrong: a drawn picture is called `image/jpg` and is a PNG, unless the
//! request says which it wants.

use std::collections::BTreeMap;
use std::sync::Arc;

use adit_common::id::ModelName;
use adit_common::manifest::{Dialect, Gather, Naming};
use adit_common::timing::Stage;
use adit_picture::Format;
use adit_vision::Detection;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::super::paths::Paths;
use super::super::reply::{Refusal, bytes, json, refusal_as, timed};
use super::super::router::{Api, text};
use super::boxes::{self, Sight, mark, sight};
use super::form::Posted;
use super::uuid;
use crate::error::{ControlError, InferError};
use crate::serving::Choice;

/// What may be asked in this dialect.
pub(crate) fn paths() -> Paths {
    let model = || Naming::Form("model".into());
    Paths::of(Dialect::Boxes)
        .get("/load", load_all)
        .gathered(Gather::Union)
        .post("/detect", detect)
        .named(model())
        .post("/get_labels", label_ids)
        .named(model())
        .get("/models", models)
        .gathered(Gather::Union)
        .get("/models/{model}/load", load)
        .gathered(Gather::Every)
        .get("/models/{model}/labels", labels)
        .get("/models/{model}/config", config)
        .post("/models/{model}/predict", predict)
        .post("/models/{model}/predict_batch", predict_batch)
        .post("/models/{model}/predict_image", predict_image)
}

#[derive(Debug, Serialize)]
struct Envelope<T: Serialize> {
    data: Option<T>,
    error: String,
    success: bool,
}

fn success<T: Serialize>(data: T) -> Response<Body> {
    json(StatusCode::OK, &Envelope { data: Some(data), error: String::new(), success: true })
}

/// Why there is no answer.
#[derive(Debug)]
enum Fault {
    /// In the envelope, under this status.
    Told(StatusCode, String),
    /// A form lacks a field.
    Missing(&'static str),
}

impl Fault {
    /// What the original has a sentence for.
    fn known(sentence: impl Into<String>) -> Self {
        Self::Told(StatusCode::OK, sentence.into())
    }

    fn answer(&self) -> Response<Body> {
        match self {
            Self::Told(status, error) => {
                refusal_as(*status, &Envelope::<()> { data: None, error: error.clone(), success: false })
            }
            Self::Missing(field) => {
                let detail =
                    json!([{ "loc": ["body", field], "msg": "field required", "type": "value_error.missing" }]);
                json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "detail": detail }))
            }
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Told(refusal.status, refusal.message)
    }
}

impl From<InferError> for Fault {
    fn from(error: InferError) -> Self {
        match error {
            InferError::NotFound { .. } | InferError::NoLabel { .. } => Self::known("Model not found"),
            InferError::NotReady { .. } | InferError::NoMemory { .. } => Self::known("Error loading model"),
            InferError::Invalid(_) => Self::known("Invalid input data: corrupted image"),
            InferError::Backend { .. } => Self::known("unexpected server error"),
            other => Refusal::from(other).into(),
        }
    }
}

/// A box, in whole pixels of the image as it was sent.
#[derive(Debug, Serialize)]
struct Found {
    #[serde(rename = "ObjectClassName")]
    name: String,
    /// From 0 to 100.
    confidence: f64,
    coordinates: Coordinates,
    #[serde(rename = "ObjectClassId")]
    class: usize,
}

#[derive(Debug, Serialize)]
struct Coordinates {
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

#[derive(Debug, Serialize)]
struct Boxes {
    #[serde(rename = "bounding-boxes")]
    boxes: Vec<Found>,
    #[serde(rename = "ImageName", skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

impl Boxes {
    fn of(row: &[Detection], image: Option<String>) -> Self {
        let found = |detection: &Detection| {
            let [left, top, right, bottom] = boxes::corners(detection);
            Found {
                name: detection.label.to_string(),
                confidence: f64::from(detection.score) * 100.0,
                coordinates: Coordinates { left, top, right, bottom },
                class: detection.class,
            }
        };
        Self { boxes: row.iter().map(found).collect(), image }
    }
}

/// The model of this name, or with this UUID.
fn resolve(api: &Api, asked: &str) -> Result<ModelName, Fault> {
    let catalogue = api.serving.catalogue();
    let named = |name: &&ModelName| name.as_str() == asked || uuid::of_model(name.as_str()) == asked;
    let known = catalogue.entries().map(|(name, ..)| name).find(named).cloned();
    known.ok_or_else(|| Fault::known("Model not found"))
}

/// A model that finds boxes.
fn detector(api: &Api, asked: &str) -> Result<ModelName, Fault> {
    let name = resolve(api, asked)?;
    match sight(api, &name)? {
        Sight::Boxes => Ok(name),
        Sight::Classes => {
            Err(Fault::known(format!("Invalid model configuration: {name} is a classifier, not a detector")))
        }
    }
}

/// `GET /load`: looks for models that are new or have changed, and tells the UUIDs of all that can be asked. One that was unloaded
/// on purpose stays so: whoever may only ask must not undo it.
async fn load_all(State(api): State<Arc<Api>>) -> Response<Body> {
    if let Err(error) = api.serving.rescan().await {
        return Fault::from(error).answer();
    }
    let catalogue = api.serving.catalogue();
    let ready = catalogue.entries().filter(|(_, _, entry)| entry.card().is_some());
    let ids: BTreeMap<_, _> = ready.map(|(name, ..)| (name.as_str(), uuid::of_model(name.as_str()))).collect();
    json(StatusCode::OK, &ids)
}

impl From<ControlError> for Fault {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Unknown(_) => Self::known("Model not found"),
            ControlError::Failed { .. } => Self::known("Error loading model"),
            ControlError::Busy => Self::Told(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
    }
}

/// `GET /models/{model}/load`, with or without `?force=true`: whatever of the model has changed on disk is loaded either way.
async fn load(State(api): State<Arc<Api>>, Path(model): Path<String>) -> Response<Body> {
    let loaded = async {
        api.serving.rescan().await?;
        let name = resolve(&api, &model)?;
        sight(&api, &name)?;
        Ok(json(StatusCode::OK, &Envelope::<()> { data: None, error: String::new(), success: true }))
    };
    loaded.await.unwrap_or_else(|fault: Fault| fault.answer())
}

/// `GET /models`
async fn models(State(api): State<Arc<Api>>) -> Response<Body> {
    let catalogue = api.serving.catalogue();
    let mut names: Vec<_> = catalogue.entries().map(|(name, ..)| name.as_str()).collect();
    names.dedup();
    success(json!({ "models": names }))
}

fn labels_of(api: &Api, asked: &str) -> Result<(ModelName, Vec<String>), Fault> {
    let name = resolve(api, asked)?;
    let labels = api.serving.catalogue().card(&name, &Choice::Newest)?.labels.kinds().map(str::to_owned).collect();
    Ok((name, labels))
}

/// `GET /models/{model}/labels`
async fn labels(State(api): State<Arc<Api>>, Path(model): Path<String>) -> Response<Body> {
    labels_of(&api, &model).map_or_else(|fault| fault.answer(), |(_, labels)| success(labels))
}

/// `GET /models/{model}/config`
async fn config(State(api): State<Arc<Api>>, Path(model): Path<String>) -> Response<Body> {
    let told = || {
        let name = resolve(&api, &model)?;
        let catalogue = api.serving.catalogue();
        let card = catalogue.card(&name, &Choice::Newest)?;
        // `candle_yolox_nano`: what runs it, and the network.
        let (framework, network) = card.platform.split_once('_').unwrap_or((&card.platform, &card.platform));
        let kind = if card.detects { "detection" } else { "classification" };
        Ok(success(json!({ "framework": framework, "type": kind, "network": network })))
    };
    told().unwrap_or_else(|fault: Fault| fault.answer())
}

/// `POST /get_labels`
async fn label_ids(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let told = async {
        let posted = Posted::take(&api, request).await?;
        let asked = posted.form.text("model").ok_or(Fault::Missing("model"))?;
        let (name, labels) = labels_of(&api, asked)?;
        let ids: BTreeMap<_, _> =
            labels.iter().map(|label| (label.as_str(), uuid::of_label(name.as_str(), label))).collect();
        Ok(json(StatusCode::OK, &ids))
    };
    told.await.unwrap_or_else(|fault: Fault| fault.answer())
}

/// The images of a form and what is found on them.
struct Looked {
    posted: Posted,
    images: Vec<(String, Bytes)>,
    rows: Vec<Vec<Detection>>,
}

/// Takes a form in and asks a detector about the images in its field `files`; the model is `named`, or in the field `model`.
async fn look(api: &Api, request: Request, named: Option<&str>, files: &'static str) -> Result<Looked, Fault> {
    let mut posted = Posted::take(api, request).await?;
    let asked = named.or_else(|| posted.form.text("model")).ok_or(Fault::Missing("model"))?;
    let images: Vec<_> = posted.form.files(files).map(|(name, image)| (name.to_owned(), image.clone())).collect();
    if images.is_empty() {
        return Err(Fault::Missing(files));
    }
    let model = detector(api, asked)?;
    let encoded: Vec<_> = images.iter().map(|(_, image)| image.clone()).collect();
    let rows = boxes::detect(api, &model, &encoded, posted.deadline, &mut posted.watch).await?;
    Ok(Looked { posted, images, rows })
}

/// The answer with its timing, or why there is none.
fn told(looked: Result<Looked, Fault>, tell: impl FnOnce(&Looked) -> Response<Body>) -> Response<Body> {
    match looked {
        Ok(mut looked) => {
            let response = tell(&looked);
            looked.posted.watch.lap(Stage::Encode);
            timed(response, looked.posted.watch)
        }
        Err(fault) => fault.answer(),
    }
}

/// The boxes of the one image that a form has.
fn first(looked: &Looked) -> Boxes {
    Boxes::of(looked.rows.first().map_or(&[], Vec::as_slice), None)
}

/// `POST /detect`
async fn detect(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    told(look(&api, request, None, "image").await, |looked| json(StatusCode::OK, &first(looked)))
}

/// `POST /models/{model}/predict`
async fn predict(State(api): State<Arc<Api>>, Path(model): Path<String>, request: Request) -> Response<Body> {
    told(look(&api, request, Some(&model), "input_data").await, |looked| success(first(looked)))
}

/// `POST /models/{model}/predict_batch`
async fn predict_batch(State(api): State<Arc<Api>>, Path(model): Path<String>, request: Request) -> Response<Body> {
    told(look(&api, request, Some(&model), "input_data").await, |looked| {
        let images = looked.images.iter().zip(&looked.rows);
        success(images.map(|((name, _), row)| Boxes::of(row, Some(name.clone()))).collect::<Vec<_>>())
    })
}

/// `POST /models/{model}/predict_image`
async fn predict_image(State(api): State<Arc<Api>>, Path(model): Path<String>, request: Request) -> Response<Body> {
    let (format, kind) = wanted(request.headers());
    let drawn = async {
        let mut looked = look(&api, request, Some(&model), "input_data").await?;
        // Of several images the first, as in the original.
        let row = looked.rows.first().map_or(&[][..], Vec::as_slice);
        let image = looked.images.first().map(|(_, image)| image.clone()).unwrap_or_default();
        let marks = row.iter().map(mark).collect();
        let drawn = api.serving.draw(vec![(image, marks)], format, looked.posted.deadline).await?;
        let response = bytes(StatusCode::OK, HeaderValue::from_static(kind), drawn.concat().into());
        looked.posted.watch.lap(Stage::Encode);
        Ok(timed(response, looked.posted.watch))
    };
    drawn.await.unwrap_or_else(|fault: Fault| fault.answer())
}

/// What a drawn picture is to be, and to be called. Who does not say which of the two it wants gets what the original gives.
fn wanted(headers: &HeaderMap) -> (Format, &'static str) {
    let accept = text(headers, header::ACCEPT.as_str()).unwrap_or_default().to_ascii_lowercase();
    let kinds = accept.split(',').filter_map(|range| {
        let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
        let quality =
            parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q=")?.parse::<f32>().ok());
        Some((kind.trim(), quality.unwrap_or(1.0))).filter(|(_, quality)| *quality > 0.0)
    });
    let wish = |kind: &str| match kind {
        "image/png" => Some((Format::Png, Format::Png.mime())),
        "image/jpeg" | "image/jpg" => Some((Format::Jpeg, Format::Jpeg.mime())),
        _ => None,
    };
    let wishes = kinds.filter_map(|(kind, quality)| Some((wish(kind)?, quality)));
    // Of equals the first.
    let best = wishes.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or((Format::Png, "image/jpg"), |(wish, _)| wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_what_is_asked_for() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wanted(&headers)
        };
        let (png, jpeg) = ((Format::Png, "image/png"), (Format::Jpeg, "image/jpeg"));
        for (accept, expected) in [
            ("image/png", png),
            ("image/jpeg", jpeg),
            ("image/jpeg;q=0.5, image/png", png),
            ("image/jpeg, image/png", jpeg),
            ("image/png;q=0, image/JPEG;q=0.1", jpeg),
            ("*/*", (Format::Png, "image/jpg")),
            ("image/*, text/html;q=x", (Format::Png, "image/jpg")),
        ] {
            assert_eq!(of(accept), expected, "{accept}");
        }
        assert_eq!(wanted(&HeaderMap::new()), (Format::Png, "image/jpg"));
    }
}
