//! `adit detect`: the objects in images, and the path that each request took.

use std::io::Write;

use adit_common::daemon::Shutdown;
use adit_picture::{Caption, Colour, Mark, Pixels, annotate};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::answer::{Answer, Found, detect};
use crate::args::DetectArgs;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::gallery::{Gallery, Question, printable};
use crate::model::Model;
use crate::waterfall::blocks;

/// Finds the objects in each image over one connection and writes what came of it, as
/// [`classify_images`](crate::classify_images) does.
pub async fn detect_images(
    args: &DetectArgs,
    environment_key: Option<&str>,
    scope: &Shutdown,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<bool, ClientError> {
    let gallery = Gallery {
        connection: &args.connection,
        key: environment_key,
        model: &args.model,
        version: args.version,
        json: args.json,
        out: args.out.as_deref(),
        images: &args.images,
    };
    gallery.walk(&Objects { least: args.confidence }, scope, out, errors).await
}

/// The objects in an image.
struct Objects {
    /// The least score that is told.
    least: f32,
}

impl Question for Objects {
    type Found = Found;

    fn fits(&self, model: &Model) -> Result<(), ClientError> {
        if !model.detects() {
            return Err(ClientError::OtherKind { model: model.name().to_string(), detects: false });
        }
        Ok(())
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        model: &Model,
        image: Bytes,
    ) -> Result<Answer<Found>, ClientError> {
        let mut answer = detect(connection, model, image).await?;
        answer.predictions.retain(|found| found.score >= self.least);
        Ok(answer)
    }

    fn line(&self, found: &Found) -> String {
        let percent = f64::from(found.score) * 100.0;
        let length = if (0.0..=100.0).contains(&percent) { (percent * 1.6).round() as usize } else { 0 };
        let [left, top, right, bottom] = found.corners.map(|side| side.round());
        let label = printable(&found.label);
        format!(
            "{percent:>6.2} %  {:<20}  {:>4}  {label}  {left},{top} to {right},{bottom}",
            blocks(length),
            found.class
        )
    }

    fn value(&self, found: &Found) -> Value {
        let Found { label, class, score, corners } = found;
        json!({ "label": label, "index": class, "score": score, "box": corners })
    }

    fn draw(pixels: &mut Pixels, found: &[Found]) {
        let mark = |found: &Found| Mark {
            corners: found.corners,
            colour: Colour::of_class(found.class),
            text: format!("{} {:.0}%", found.label, found.score * 100.0),
            caption: Caption::Plate,
        };
        annotate(pixels, &found.iter().map(mark).collect::<Vec<_>>());
    }
}
