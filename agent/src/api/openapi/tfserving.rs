//! TensorFlow Serving.

use serde_json::json;

use super::errors::Shape;
use super::operation::{JSON, Told, content};
use super::schema::{Described, IMAGE, anything, choice, either, flag, list, map, named, null, object, text};

const PRECONDITION: &str = "FAILED_PRECONDITION.";
const EXHAUSTED: &str = "RESOURCE_EXHAUSTED: everything is full.";
const UNIMPLEMENTED: &str = "UNIMPLEMENTED.";

/// The operations, and the schemas that they name.
pub(super) fn told() -> (Vec<Told>, Vec<(&'static str, Described)>) {
    let mut told = Vec::new();
    for model in ["/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{version}"]
    {
        told.extend(of_model(model).map(coded));
    }
    (told, schemas())
}

fn coded(told: Told) -> Told {
    let error = || named(Shape::Plain.name());
    told.refuses(Shape::Plain).also(412, PRECONDITION, error()).also(429, EXHAUSTED, error()).also(
        501,
        UNIMPLEMENTED,
        error(),
    )
}

fn of_model(model: &str) -> [Told; 6] {
    [
        Told::get(model, "The state of a model's versions")
            .answers("Each version with its state.", [(JSON, content(named("ModelVersionStatuses"), None))]),
        Told::post(model, "Nothing: a question needs a verb")
            .about("Always 400: ask with `:predict`, `:classify` or `:regress` behind the last segment."),
        Told::get(&format!("{model}/metadata"), "A model's signatures")
            .answers("As protobuf's JSON has them.", [(JSON, content(named("SignatureMetadata"), None))]),
        Told::post(&format!("{model}:predict"), "Ask a model")
            .about(
                "In row form (`instances`) or column form (`inputs`), of which there is exactly one. An image is `{\"b64\": \"...\"}`; \
                 numbers are nested lists of red, green and blue from 0 to 1. `NaN` and `Infinity` are read and written as TensorFlow \
                 Serving does, though JSON has not got them.",
            )
            .takes(
                true,
                [(JSON, content(named("PredictRequest"), Some(json!({ "instances": [{ "b64": IMAGE }] }))))],
            )
            .answers("In the form of the question.", [(JSON, content(named("PredictResponse"), None))]),
        Told::post(&format!("{model}:classify"), "Ask a model for classes")
            .takes(
                true,
                [(
                    JSON,
                    content(
                        named("ClassifyRequest"),
                        Some(json!({ "signature_name": "serving_classify", "examples": [{ "image": { "b64": IMAGE } }] })),
                    ),
                )],
            )
            .answers("Of each example, its classes with their scores.", [(JSON, content(named("ClassifyResponse"), None))]),
        Told::post(&format!("{model}:regress"), "Ask a model for a number")
            .about("Always an error: no model tells a number.")
            .takes(true, [(JSON, content(named("ClassifyRequest"), None))]),
    ]
}

fn schemas() -> Vec<(&'static str, Described)> {
    let tensor = || anything("A number, a text, `{\"b64\": \"...\"}`, or a list of them, up to eight deep.");
    let signature_name =
        || ("signature_name", either("Which signature; `serving_default` unless given.", vec![text(""), null("")]));
    let status = object(
        "A version.",
        vec![
            ("version", text("Its number.")),
            ("state", choice("", &["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"])),
            ("status", object("", vec![("error_code", text("")), ("error_message", text(""))], vec![])),
        ],
        vec![],
    );
    let dimension = object("", vec![("size", text("-1 is any length.")), ("name", text(""))], vec![]);
    let shape = object("", vec![("dim", list("", dimension)), ("unknown_rank", flag(""))], vec![]);
    let info = || {
        let shape = shape.clone();
        map("", object("", vec![("dtype", text("")), ("tensor_shape", shape), ("name", text(""))], vec![]))
    };
    let signature = object("", vec![("inputs", info()), ("outputs", info()), ("method_name", text(""))], vec![]);
    let metadata = object(
        "A model's signatures.",
        vec![
            (
                "model_spec",
                object("", vec![("name", text("")), ("signature_name", text("")), ("version", text(""))], vec![]),
            ),
            (
                "metadata",
                object(
                    "",
                    vec![("signature_def", object("", vec![("signature_def", map("", signature))], vec![]))],
                    vec![],
                ),
            ),
        ],
        vec![],
    );
    let features = || map("Features by name.", tensor());
    vec![
        ("ModelVersionStatuses", object("", vec![("model_version_status", list("", status))], vec![])),
        ("SignatureMetadata", metadata),
        (
            "PredictRequest",
            object(
                "A question, as `instances` or as `inputs`.",
                vec![],
                vec![
                    signature_name(),
                    ("instances", anything("A list of an element an image; each may be an object of the one input.")),
                    ("inputs", anything("The whole tensor, or an object of the one input.")),
                ],
            ),
        ),
        (
            "PredictResponse",
            object(
                "A single output goes without its name, several are an object.",
                vec![],
                vec![
                    ("predictions", list("To `instances`: an element an image.", anything("Its outputs."))),
                    ("outputs", anything("To `inputs`: the outputs.")),
                ],
            ),
        ),
        (
            "ClassifyRequest",
            object(
                "Examples, which are features by name.",
                vec![],
                vec![signature_name(), ("context", features()), ("examples", list("", features()))],
            ),
        ),
        (
            "ClassifyResponse",
            object(
                "",
                vec![(
                    "results",
                    list(
                        "An element an example.",
                        list("", list("A label and its score.", anything("The label, or the score."))),
                    ),
                )],
                vec![],
            ),
        ),
    ]
}
