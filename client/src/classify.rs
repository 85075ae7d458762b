//! `adit classify`: the classes of images, and the path that each request took.

use std::io::Write;

use adit_common::daemon::Shutdown;
use adit_common::oip::Classification;
use adit_picture::{Colour, Pixels, list};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::answer::{Answer, classify};
use crate::args::ClassifyArgs;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::gallery::{Gallery, Question, printable};
use crate::model::Model;
use crate::waterfall::blocks;

/// Classifies each image over one connection and writes what came of it; what failed for one image goes to `errors` and
/// the next is tried. Says whether all went well. What would fail for every image is an error at once.
pub async fn classify_images(
    args: &ClassifyArgs,
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
    gallery.walk(&Classes { top: args.top.into() }, scope, out, errors).await
}

/// The likeliest classes of an image.
struct Classes {
    top: usize,
}

impl Question for Classes {
    type Found = Classification;

    fn fits(&self, model: &Model) -> Result<(), ClientError> {
        if model.detects() {
            return Err(ClientError::OtherKind { model: model.name().to_string(), detects: true });
        }
        Ok(())
    }

    async fn ask(&self, connection: &mut Connection, model: &Model, image: Bytes) -> Result<Answer, ClientError> {
        classify(connection, model, image, self.top).await
    }

    fn line(&self, class: &Classification) -> String {
        let percent = f64::from(class.value) * 100.0;
        // Twenty columns for a probability; a value that is none has no bar.
        let length = if (0.0..=100.0).contains(&percent) { (percent * 1.6).round() as usize } else { 0 };
        let label = class.label.as_deref().map(printable).unwrap_or_default();
        format!("{percent:>6.2} %  {:<20}  {:>4}  {label}", blocks(length), class.index)
    }

    fn value(&self, class: &Classification) -> Value {
        json!({ "label": class.label, "index": class.index, "probability": class.value })
    }

    fn draw(pixels: &mut Pixels, classes: &[Classification]) {
        let line = |class: &Classification| {
            let label = class.label.clone().unwrap_or_else(|| format!("class {}", class.index));
            (Colour::of_class(class.index), format!("{:.1}% {label}", class.value * 100.0))
        };
        list(pixels, &classes.iter().map(line).collect::<Vec<_>>());
    }
}
