//! `POST /predictions/{model}`: the body of Vertex AI and TorchServe, `{"instances": [{"data": "<base64>"}]}`, answered with a list
//! of boxes an image. Errors are `{"error": "..."}`.

use std::sync::Arc;

use adit_common::manifest::Dialect;
use adit_common::timing::Stage;
use adit_vision::Detection;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::paths::Paths;
use super::super::reply::{Refusal, json, timed};
use super::super::router::{Api, arrived, deadline};
use super::boxes::{self, Sight, sight};
use super::few::Few;

/// What is kept of a list of instances: more than any agent takes.
const MOST: usize = 1024;

/// What may be asked in this dialect.
pub(crate) fn paths() -> Paths {
    Paths::of(Dialect::Oip).post("/predictions/{model}", predict)
}

#[derive(Deserialize)]
struct Asked {
    instances: Few<Instance, MOST>,
}

#[derive(Deserialize)]
struct Instance {
    data: String,
}

/// A box, in pixels of the image as it was sent.
#[derive(Debug, Serialize)]
struct Found {
    name: String,
    class: usize,
    confidence: f32,
    #[serde(rename = "box")]
    corners: Corners,
}

#[derive(Debug, Serialize)]
struct Corners {
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
}

impl From<&Detection> for Found {
    fn from(detection: &Detection) -> Self {
        let [x1, y1, x2, y2] = detection.corners;
        Self {
            name: detection.label.to_string(),
            class: detection.class,
            confidence: detection.score,
            corners: Corners { x1, y1, x2, y2 },
        }
    }
}

/// `POST /predictions/{model}`
async fn predict(State(api): State<Arc<Api>>, Path(model): Path<String>, request: Request) -> Response<Body> {
    let (arrived, deadline) = (arrived(&request), deadline(&request));
    let upload = match api.take(request).await {
        Ok(upload) => upload,
        Err(refusal) => return refusal.answer(),
    };
    let mut watch = upload.watch(arrived);
    let body = upload.bytes.clone();
    let most = api.serving.max_images();
    let answered = async {
        let name = boxes::name(&model)?;
        if sight(&api, &name)? == Sight::Classes {
            return Err(invalid(format!("`{name}` is a classifier and finds no boxes")));
        }
        let read = tokio::task::spawn_blocking(move || read(&body, most)).await;
        let images = read.map_err(|_| invalid("the request cannot be read"))??;
        watch.lap(Stage::Decode);
        let rows = boxes::detect(&api, &name, &images, deadline, &mut watch).await?;
        let predictions: Vec<Vec<Found>> = rows.iter().map(|row| row.iter().map(Found::from).collect()).collect();
        Ok(json(StatusCode::OK, &json!({ "predictions": predictions })))
    };
    let response = answered.await.unwrap_or_else(|refusal: Refusal| refusal.answer());
    drop(upload);
    watch.lap(Stage::Encode);
    timed(response, watch)
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}

/// The images of a body, at most so many.
fn read(body: &[u8], most: usize) -> Result<Vec<Bytes>, Refusal> {
    let asked: Asked =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the JSON of the message is wrong: {error}")))?;
    let Few { first, all } = asked.instances;
    if all == 0 || all > most.min(MOST) {
        return Err(invalid(format!("{all} instances in one request, from 1 to {} are taken", most.min(MOST))));
    }
    let image = |(place, Instance { mut data }): (usize, Instance)| {
        data.retain(|letter| !letter.is_ascii_whitespace());
        let bytes = STANDARD.decode(data).map_err(|_| invalid(format!("instance {place}: `data` is not base64")))?;
        Ok(Bytes::from(bytes))
    };
    first.into_iter().enumerate().map(image).collect()
}
