//! Batches of images that come back annotated: `POST /request`, in which every person has a box and its score.
//!
//! The body is `{"input": [{"image": "<base64 of a JPEG or PNG>", "id": ...}, ...]}`, of at most sixteen images. What of it is no
//! such image, or larger than 5,000,000 bytes, is named among the errors, and the rest is answered. An image without a person comes
//! back as it was. The detector is the default one if it knows persons, else the first that does.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use adit_common::deadline::Deadline;
use adit_common::id::ModelName;
use adit_common::manifest::Dialect;
use adit_common::timing::{Stage, Stopwatch};
use adit_picture::{Caption, Colour, Format, Mark};
use adit_vision::Detection;
use axum::body::Body;
use axum::extract::{Request, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Response, StatusCode};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::{Value, json};

use super::super::paths::{Need, Paths};
use super::super::reply::{Refusal, bytes, json, refusal_as, timed};
use super::super::router::{Api, arrived, deadline};
use super::boxes;
use super::few::Few;
use crate::error::InferError;

/// Images in one request.
const MOST: usize = 16;

/// The longest image file, in bytes.
const LONGEST: usize = 5_000_000;

const PERSON: &str = "person";

/// From this score on somebody is a person.
const SURE: f32 = 0.5;

const TOO_MANY: &str = "Maximum limit for batch processing is 16 images in single req.";
const NONE_VALID: &str = "Inputs Batch must have atleast single valid request, valid image: JPEG or PNG (< 5MB).";
const SOME_INVALID: &str = "Valid Image: JPEG or PNG (<5MB).";
const BROKEN: &str = "Internal Server Error. TF-Serving corrupted or Switched OFF.";

/// What may be asked in this dialect.
pub(crate) fn paths() -> Paths {
    Paths::of(Dialect::Annotated).post("/request", request).needing(Need::Detector)
}

/// The body, as it is written.
#[derive(Deserialize)]
struct Asked {
    input: Option<Few<Item, { MOST + 1 }>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default, deserialize_with = "said")]
    image: Field,
    #[serde(default, deserialize_with = "said")]
    id: Field,
}

/// A field that is to be a string; a number is as good as one.
#[derive(Debug, Default)]
enum Field {
    #[default]
    Missing,
    Text(String),
    Null,
    Other,
}

fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Field, D::Error> {
    struct Reader;

    impl<'de> Visitor<'de> for Reader {
        type Value = Field;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a string or a number")
        }

        fn visit_str<E>(self, text: &str) -> Result<Field, E> {
            Ok(Field::Text(text.to_owned()))
        }

        fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
            Ok(Field::Text(number.to_string()))
        }

        fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
            Ok(Field::Text(number.to_string()))
        }

        fn visit_f64<E>(self, number: f64) -> Result<Field, E> {
            // As Python writes it: 1.0, not 1.
            Ok(Field::Text(format!("{number:?}")))
        }

        fn visit_bool<E>(self, truth: bool) -> Result<Field, E> {
            Ok(Field::Text(if truth { "True" } else { "False" }.to_owned()))
        }

        fn visit_unit<E>(self) -> Result<Field, E> {
            Ok(Field::Null)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Field, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Field::Other)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Field::Other)
        }
    }

    from.deserialize_any(Reader)
}

impl Field {
    /// Its text, or what FastAPI would say of it.
    fn take(self, place: usize, name: &str, details: &mut Vec<Value>) -> Option<String> {
        let (message, kind) = match self {
            Self::Text(text) => return Some(text),
            Self::Missing => ("field required", "value_error.missing"),
            Self::Null => ("none is not an allowed value", "type_error.none.not_allowed"),
            Self::Other => ("str type expected", "type_error.str"),
        };
        details.push(json!({ "loc": ["body", "input", place, name], "msg": message, "type": kind }));
        None
    }
}

/// One image of a request.
#[derive(Debug)]
struct Sent {
    id: String,
    /// Nothing where it is no JPEG or PNG, or too long.
    image: Option<Bytes>,
}

/// Why there is no answer.
#[derive(Debug)]
enum Fault {
    Told(StatusCode, Cow<'static, str>),
    /// Not a single image can be used; these are their ids.
    NoneValid(Vec<String>),
    /// The body has another shape than it should.
    Schema(Vec<Value>),
}

impl Fault {
    fn answer(&self) -> Response<Body> {
        match self {
            Self::Told(status, message) => refusal_as(*status, &json!({ "message": message })),
            Self::NoneValid(ids) => {
                refusal_as(StatusCode::BAD_REQUEST, &json!({ "message": NONE_VALID, "error_ids": ids }))
            }
            Self::Schema(details) => json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "detail": details })),
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Told(refusal.status, refusal.message.into())
    }
}

impl From<InferError> for Fault {
    fn from(error: InferError) -> Self {
        match error {
            InferError::Backend { .. } => Self::Told(StatusCode::INTERNAL_SERVER_ERROR, BROKEN.into()),
            other => Refusal::from(other).into(),
        }
    }
}

/// `POST /request`
async fn request(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let (arrived, deadline) = (arrived(&request), deadline(&request));
    let upload = match api.take(request).await {
        Ok(upload) => upload,
        Err(refusal) => return Fault::from(refusal).answer(),
    };
    let mut watch = upload.watch(arrived);
    let response =
        answer(&api, upload.bytes.clone(), deadline, &mut watch).await.unwrap_or_else(|fault| fault.answer());
    drop(upload);
    watch.lap(Stage::Encode);
    timed(response, watch)
}

async fn answer(api: &Api, body: Bytes, deadline: Deadline, watch: &mut Stopwatch) -> Result<Response<Body>, Fault> {
    // Megabytes of base64: too long for the runtime's threads.
    let sent = tokio::task::spawn_blocking(move || read(&body)).await;
    let sent = sent.map_err(|_| Fault::Told(StatusCode::BAD_REQUEST, "the request cannot be read".into()))??;
    if sent.iter().all(|sent| sent.image.is_none()) {
        return Err(Fault::NoneValid(sent.into_iter().map(|sent| sent.id).collect()));
    }
    let knows_persons = |labels: &adit_vision::Labels| labels.kinds().any(|label| label == PERSON);
    let Some(model) = api.serving.default_detector(knows_persons) else {
        return Err(if api.serving.catalogue().is_settled() {
            Fault::Told(StatusCode::INTERNAL_SERVER_ERROR, BROKEN.into())
        } else {
            Fault::Told(StatusCode::SERVICE_UNAVAILABLE, "models are being loaded".into())
        });
    };
    watch.lap(Stage::Decode);
    let found = find(api, &model, &sent, deadline, watch).await?;

    // Those that have nobody on them go back as they came.
    let (mut output, mut bad) = (Vec::new(), Vec::new());
    let (mut drawn, mut places) = (Vec::new(), Vec::new());
    for (Sent { id, image }, row) in sent.into_iter().zip(found) {
        let (Some(image), Some(row)) = (image, row) else {
            bad.push(id);
            continue;
        };
        let marks: Vec<_> =
            row.iter().filter(|found| &*found.label == PERSON && found.score >= SURE).map(mark).collect();
        if !marks.is_empty() {
            places.push(output.len());
            drawn.push((image.clone(), marks));
        }
        output.push((id, image));
    }
    if output.is_empty() {
        return Err(Fault::NoneValid(bad));
    }
    for (place, image) in places.into_iter().zip(api.serving.draw(drawn, Format::Jpeg, deadline).await?) {
        output[place].1 = image;
    }
    let written = tokio::task::spawn_blocking(move || write(output, bad)).await;
    let written = written.ok().flatten();
    let written = written.ok_or_else(|| Fault::Told(StatusCode::INTERNAL_SERVER_ERROR, BROKEN.into()))?;
    Ok(bytes(StatusCode::OK, HeaderValue::from_static("application/json"), written))
}

/// The images of a body.
fn read(body: &[u8]) -> Result<Vec<Sent>, Fault> {
    let detail = |loc: Value, message: &str, kind: &str| {
        Fault::Schema(vec![json!({ "loc": loc, "msg": message, "type": kind })])
    };
    let asked: Asked = serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => detail(json!(["body"]), &error.to_string(), "type_error"),
        _ => detail(json!(["body", error.column()]), &error.to_string(), "value_error.jsondecode"),
    })?;
    let input = asked.input.ok_or_else(|| detail(json!(["body", "input"]), "field required", "value_error.missing"))?;
    let (mut sent, mut details) = (Vec::new(), Vec::new());
    for (place, Item { image, id }) in input.first.into_iter().enumerate() {
        let (image, id) = (image.take(place, "image", &mut details), id.take(place, "id", &mut details));
        if let (Some(image), Some(id)) = (image, id) {
            sent.push(Sent { id, image: picture(image) });
        }
    }
    if !details.is_empty() {
        return Err(Fault::Schema(details));
    }
    if input.all > MOST {
        return Err(Fault::Told(StatusCode::NOT_ACCEPTABLE, TOO_MANY.into()));
    }
    Ok(sent)
}

/// The file in a base64 text, if it may be a picture.
fn picture(mut text: String) -> Option<Bytes> {
    // Some encoders break lines.
    text.retain(|letter| !letter.is_ascii_whitespace());
    let file = STANDARD.decode(text).ok()?;
    let known = file.starts_with(b"\xff\xd8\xff") || file.starts_with(b"\x89PNG\r\n\x1a\n");
    (known && file.len() <= LONGEST).then(|| Bytes::from(file))
}

/// What is found on each image; nothing where it turns out to be none. All are one inference; only when one of them is broken
/// each is its own, to find out which.
async fn find(
    api: &Api,
    model: &ModelName,
    sent: &[Sent],
    deadline: Deadline,
    watch: &mut Stopwatch,
) -> Result<Vec<Option<Vec<Detection>>>, InferError> {
    let images: Vec<Bytes> = sent.iter().filter_map(|sent| sent.image.clone()).collect();
    let rows = match boxes::detect(api, model, &images, deadline, watch).await {
        Ok(rows) => rows.into_iter().map(Some).collect(),
        Err(InferError::Invalid(_)) => {
            let alone = images.into_iter().map(async |image| {
                let mut own = Stopwatch::start();
                match boxes::detect(api, model, &[image], deadline, &mut own).await {
                    Ok(rows) => Ok(rows.into_iter().next()),
                    Err(InferError::Invalid(_)) => Ok(None),
                    Err(other) => Err(other),
                }
            });
            let rows = join_all(alone).await.into_iter().collect::<Result<Vec<_>, _>>()?;
            watch.lap(Stage::Forward);
            rows
        }
        Err(other) => return Err(other),
    };
    let mut rows = rows.into_iter();
    Ok(sent.iter().map(|sent| sent.image.as_ref().and_then(|_| rows.next().flatten())).collect())
}

/// A person as the original draws it.
fn mark(detection: &Detection) -> Mark {
    Mark {
        corners: detection.corners,
        colour: Colour::BLUE,
        text: format!("{:.3}", detection.score),
        caption: Caption::Plain(Colour::RED),
    }
}

#[derive(Serialize)]
struct Answer {
    output: Vec<Annotated>,
    errors: Errors,
}

#[derive(Serialize)]
struct Annotated {
    id: String,
    annotated_image: String,
}

#[derive(Serialize)]
struct Errors {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    error_ids: Vec<Option<String>>,
}

fn write(output: Vec<(String, Bytes)>, bad: Vec<String>) -> Option<Bytes> {
    let annotated = |(id, image): (String, Bytes)| Annotated { id, annotated_image: STANDARD.encode(image) };
    let output = output.into_iter().map(annotated).collect();
    let errors = if bad.is_empty() {
        // Its clients look for the null.
        Errors { message: None, error_ids: vec![None] }
    } else {
        Errors { message: Some(SOME_INVALID), error_ids: bad.into_iter().map(Some).collect() }
    };
    serde_json::to_vec(&Answer { output, errors }).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Result<Vec<(String, bool)>, (u16, String)> {
        read(text.as_bytes())
            .map(|sent| sent.into_iter().map(|sent| (sent.id, sent.image.is_some())).collect())
            .map_err(|fault| {
                let status = fault.answer().status().as_u16();
                (status, format!("{fault:?}"))
            })
    }

    #[test]
    fn ids_may_be_numbers_and_images_must_be_jpeg_or_png() {
        let text = r#"{"input":[{"image":"/9j/4AAQ","id":"a"},{"image":"iVBORw0KGgo=","id":7},{"image":"R0lGODlh","id":1.5},
                       {"image":"%%","id":-3},{"image":"/9j/\n4AAQ","id":true}],"more":[{}]}"#;
        let expected = [("a", true), ("7", true), ("1.5", false), ("-3", false), ("True", true)];
        assert_eq!(ids(text).unwrap(), expected.map(|(id, valid)| (id.to_owned(), valid)));
        assert_eq!(ids(r#"{"input":[]}"#).unwrap(), []);
    }

    #[test]
    fn an_image_may_have_five_million_bytes() {
        let image = |length: usize| {
            let mut file = vec![0; length];
            file[..3].copy_from_slice(b"\xff\xd8\xff");
            picture(STANDARD.encode(file)).is_some()
        };
        assert!(image(LONGEST) && !image(LONGEST + 1));
    }

    #[test]
    fn another_shape_is_told_as_its_framework_tells_it() {
        for (text, status, because) in [
            ("{", 422, "value_error.jsondecode"),
            ("[]", 422, "type_error"),
            ("{}", 422, "\"input\""),
            (r#"{"input":{}}"#, 422, "type_error"),
            (r#"{"input":[{"id":1}]}"#, 422, "value_error.missing"),
            (r#"{"input":[{"id":null,"image":[1]}]}"#, 422, "type_error.str"),
        ] {
            let (found, told) = ids(text).unwrap_err();
            assert!(found == status && told.contains(because), "{text}: {found} {told}");
        }
        let many = format!(r#"{{"input":[{}]}}"#, [r#"{"image":"","id":1}"#; 17].join(","));
        assert_eq!(ids(&many).unwrap_err().0, 406);
        let sixteen = format!(r#"{{"input":[{}]}}"#, [r#"{"image":"","id":1}"#; 16].join(","));
        assert_eq!(ids(&sixteen).unwrap().len(), 16);
    }
}
