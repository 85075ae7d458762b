//! Batches of images that come back annotated.

use serde_json::json;

use super::errors::{Shape, fields};
use super::operation::{JSON, Told, content};
use super::schema::{Described, IMAGE, base64, either, list, named, null, number, object, text};

/// The operations, and the schemas that they name.
pub(super) fn told() -> (Vec<Told>, Vec<(&'static str, Described)>) {
    let told = Told::post("/request", "Mark the persons on up to 16 images")
        .about(
            "JPEG or PNG of at most 5,000,000 bytes each. An image without a person comes back as it was, one with comes back as JPEG \
             of the same size. 400: not one is an image. 500, besides: no detector knows persons.",
        )
        .takes(
            true,
            [(JSON, content(named("AnnotateRequest"), Some(json!({ "input": [{ "image": IMAGE, "id": "a" }] }))))],
        )
        .answers("The images; those that are none are named.", [(JSON, content(named("AnnotateResponse"), None))])
        .refuses(Shape::Message)
        .also(406, "More than 16 images.", named(Shape::Message.name()))
        .also(422, "The body has another shape.", fields());
    (vec![told], schemas())
}

fn schemas() -> Vec<(&'static str, Described)> {
    let sent = object(
        "",
        vec![
            ("image", base64("A JPEG or PNG image.")),
            ("id", either("Comes back as a text.", vec![text(""), number("")])),
        ],
        vec![],
    );
    let annotated = object("", vec![("id", text("")), ("annotated_image", base64("A JPEG or PNG image."))], vec![]);
    let errors = object(
        "",
        vec![(
            "error_ids",
            list("The images that are none; one null where there are none.", either("", vec![text(""), null("")])),
        )],
        vec![("message", text("What an image has to be."))],
    );
    vec![
        ("AnnotateRequest", object("", vec![("input", list("", sent))], vec![])),
        ("AnnotateResponse", object("", vec![("output", list("", annotated)), ("errors", errors)], vec![])),
    ]
}
