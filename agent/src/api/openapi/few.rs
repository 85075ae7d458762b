//! The simplest of dialects: an image as the whole body, a list of images, and health.

use serde_json::json;

use super::errors::Shape;
use super::operation::{JSON, Told, content};
use super::schema::{Described, IMAGE, base64, binary, choice, list, named, number, object, some, text, whole};

/// The operations, and the schemas that they name.
pub(super) fn told() -> (Vec<Told>, Vec<(&'static str, Described)>) {
    let sentence = object(
        "",
        vec![("inference", text("Such as `Class = 7, Confidence = 1.000`.")), ("message", choice("", &["success"]))],
        vec![],
    );
    let told = vec![
        Told::get("/", "Who asks whom")
            .answers("A line of text.", [("text/html", content(text(""), None))])
            .refuses(Shape::Plain),
        Told::post("/photo", "The class of an image, by the default classifier")
            .about("The body is the encoded image, whatever its content type.")
            .takes(
                true,
                [
                    ("image/*", content(binary("A JPEG, PNG, WebP, BMP or GIF image."), None)),
                    ("application/octet-stream", content(binary("The same."), None)),
                ],
            )
            .answers("A sentence.", [(JSON, content(sentence, None))])
            .refuses(Shape::Plain),
        Told::post("/predictions/{model}", "Boxes on images, in Vertex AI's body")
            .takes(true, [(JSON, content(named("Instances"), Some(json!({ "instances": [{ "data": IMAGE }] }))))])
            .answers("A list of boxes an image.", [(JSON, content(named("Predictions"), None))])
            .refuses(Shape::Plain),
        Told::get("/healthz", "Whether frames are answered")
            .about("Frames themselves are asked on the WebSocket `/ws`.")
            .answers("They are.", [(JSON, content(object("", vec![("status", choice("", &["ok"]))], vec![]), None))])
            .refuses(Shape::Plain),
    ];
    (told, schemas())
}

fn schemas() -> Vec<(&'static str, Described)> {
    let corner = || number("In pixels of the image as it was sent.");
    let found = object(
        "A box.",
        vec![
            ("name", text("")),
            ("class", whole("", 0)),
            ("confidence", number("From 0 to 1.")),
            ("box", object("", vec![("x1", corner()), ("y1", corner()), ("x2", corner()), ("y2", corner())], vec![])),
        ],
        vec![],
    );
    let instance = object("", vec![("data", base64("A JPEG, PNG, WebP, BMP or GIF image."))], vec![]);
    vec![
        ("Instances", object("", vec![("instances", some("", instance, [1, 1024]))], vec![])),
        ("Predictions", object("", vec![("predictions", list("", list("", found)))], vec![])),
    ]
}
