//! DeepStack and CodeProject.AI.

use serde_json::json;

use super::errors::Shape;
use super::operation::{FORM, JSON, Told, content};
use super::schema::{Described, always, binary, file, list, named, number, object, some, text, whole};

/// Predictions of one answer.
const MOST: usize = 20;

/// The operations, and the schemas that they name.
pub(super) fn told() -> (Vec<Told>, Vec<(&'static str, Described)>) {
    let asks = |path: &str, summary: &str, answer: &str| {
        Told::post(path, summary)
            .takes(true, [(FORM, content(named("DeepstackForm"), Some(json!({ "image": file() }))))])
            .answers("What was found.", [(JSON, content(named(answer), None))])
            .refuses(Shape::Deepstack)
    };
    let lists = |path: &str, summary: &str, of: Described| {
        let fields = vec![("success", always(true, "")), ("models", list("", of)), ("duration", whole("Always 0.", 0))];
        Told::post(path, summary)
            .answers("The detectors.", [(JSON, content(object("", fields, vec![("code", whole("", 0))]), None))])
            .refuses(Shape::Deepstack)
    };
    let size = number("What its weights take, in megabytes.");
    let told = vec![
        asks("/v1/vision/detection", "Objects, by the default detector", "DeepstackPredictions"),
        asks("/v1/vision/custom/{model}", "Objects, by this detector", "DeepstackPredictions"),
        asks("/v1/vision/face", "Faces, by a detector that knows nothing else", "DeepstackPredictions"),
        asks("/v1/vision/scene", "The class of the whole image, by the default classifier", "DeepstackScene"),
        lists("/v1/vision/custom/list", "The detectors, as CodeProject.AI lists them", text("")),
        lists(
            "/v1/vision/listmodels",
            "The detectors, as DeepStack lists them",
            object("", vec![("name", text("")), ("size", size)], vec![]),
        ),
    ];
    (told, schemas())
}

fn schemas() -> Vec<(&'static str, Described)> {
    // CodeProject.AI's fields.
    let extras = || {
        vec![
            ("message", text("For people.")),
            ("duration", whole("Always 0.", 0)),
            ("code", whole("The status.", 0)),
            ("command", text("")),
            ("moduleId", text("The model.")),
            ("moduleName", text("")),
            ("inferenceDevice", text("Such as `CPU`.")),
            ("inferenceMs", whole("The forward pass.", 0)),
            ("processMs", whole("All of the work.", 0)),
            ("analysisRoundTripMs", whole("Since the request's head was there.", 0)),
        ]
    };
    let with_extras = |fields: Vec<(&'static str, Described)>| fields.into_iter().chain(extras()).collect();
    let score = || number("From 0 to 1.");
    let pixels = |about| whole(about, 0);
    let prediction = object(
        "A box, in whole pixels of the image as it was sent.",
        vec![
            ("confidence", score()),
            ("label", text("")),
            ("y_min", pixels("Top.")),
            ("x_min", pixels("Left.")),
            ("y_max", pixels("Bottom.")),
            ("x_max", pixels("Right.")),
        ],
        vec![],
    );
    vec![
        (
            "DeepstackForm",
            object(
                "",
                vec![("image", binary("A JPEG, PNG, WebP, BMP or GIF image."))],
                vec![("min_confidence", text("From 0 to 1; 0.4 unless given."))],
            ),
        ),
        (
            "DeepstackPredictions",
            object(
                "What was found, the surest first.",
                with_extras(vec![
                    ("success", always(true, "")),
                    ("predictions", some("", prediction, [0, MOST])),
                    ("count", whole("", 0)),
                ]),
                vec![],
            ),
        ),
        (
            "DeepstackScene",
            object(
                "What the image shows.",
                with_extras(vec![("success", always(true, "")), ("label", text("")), ("confidence", score())]),
                vec![],
            ),
        ),
    ]
}
