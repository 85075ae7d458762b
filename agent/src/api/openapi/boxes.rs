//! Detection in an envelope.

use serde_json::json;
use utoipa::openapi::path::ParameterIn;

use super::errors::{Shape, fields};
use super::operation::{FORM, JSON, Told, content};
use super::schema::{
    Described, always, binary, choice, either, file, list, map, named, null, number, object, text, whole,
};

const FIELD: &str = "A field of the form is missing.";

/// The operations, and the schemas that they name.
pub(super) fn told() -> (Vec<Told>, Vec<(&'static str, Described)>) {
    let or_error = |one: Described| {
        either(
            "What was asked for; or, with status 200 too, an error that its clients have words for.",
            vec![one, named(Shape::Envelope.name())],
        )
    };
    let enveloped = |data: Described| {
        or_error(object("", vec![("data", data), ("error", text("Empty.")), ("success", always(true, ""))], vec![]))
    };
    let told_as = |schema: Described| [(JSON, content(schema, None))];
    let ids = |about: &str| map(about, text("A UUID, made of the name: the same on all agents."));
    let form = |model: bool, image: Option<&'static str>| {
        let model = model.then(|| ("model", text("A model's name or UUID.")));
        let image = image.map(|field| (field, binary("A JPEG, PNG, WebP, BMP or GIF image.")));
        let example = model.iter().map(|(name, _)| ((*name).to_owned(), json!("digits")));
        let example: serde_json::Map<_, _> =
            example.chain(image.iter().map(|(name, _)| ((*name).to_owned(), file()))).collect();
        [(FORM, content(object("", model.into_iter().chain(image).collect(), vec![]), Some(example.into())))]
    };
    let files = object("", vec![("input_data", list("The images.", binary("")))], vec![]);
    let model = |rest: &str| format!("/models/{{model}}/{rest}");
    let told = vec![
        Told::get("/load", "The UUIDs of all models that can be asked")
            .about("Looks for new ones first.")
            .answers("By name.", told_as(or_error(ids(""))))
            .refuses(Shape::Envelope),
        Told::post("/detect", "Boxes, by the model that the form names")
            .takes(true, form(true, Some("image")))
            .answers("Without an envelope.", told_as(or_error(named("Boxes"))))
            .refuses(Shape::Envelope)
            .also(422, FIELD, fields()),
        Told::post("/get_labels", "The UUIDs of a model's labels")
            .takes(true, form(true, None))
            .answers("By label.", told_as(or_error(ids(""))))
            .refuses(Shape::Envelope)
            .also(422, FIELD, fields()),
        Told::get("/models", "All models")
            .answers("Their names.", told_as(enveloped(object("", vec![("models", list("", text("")))], vec![]))))
            .refuses(Shape::Envelope),
        Told::get(&model("load"), "Load what has changed on disk")
            .parameter(ParameterIn::Query, "force", "Not minded.", text(""))
            .answers("Nothing: `data` is null.", told_as(enveloped(null(""))))
            .refuses(Shape::Envelope),
        Told::get(&model("labels"), "A model's labels").answers("Their texts.", told_as(enveloped(list("", text("")))))
            .refuses(Shape::Envelope),
        Told::get(&model("config"), "What a model is").answers("In few words.", told_as(enveloped(named("BoxesConfig"))))
            .refuses(Shape::Envelope),
        Told::post(&model("predict"), "Boxes on an image")
            .takes(true, form(false, Some("input_data")))
            .answers("The boxes.", told_as(enveloped(named("Boxes"))))
            .refuses(Shape::Envelope)
            .also(422, FIELD, fields()),
        Told::post(&model("predict_batch"), "Boxes on several images")
            .takes(true, [(FORM, content(files, Some(json!({ "input_data": [file()] }))))])
            .answers("Of each image, in their order.", told_as(enveloped(list("", named("Boxes")))))
            .refuses(Shape::Envelope)
            .also(422, FIELD, fields()),
        Told::post(&model("predict_image"), "An image with its boxes drawn on it")
            .about(
                "A PNG under the name `image/jpg`, as its clients know it; with `Accept: image/png` or `image/jpeg` it is what it is \
                 called.",
            )
            .parameter(ParameterIn::Header, "accept", "`image/png` or `image/jpeg`.", text(""))
            .takes(true, form(false, Some("input_data")))
            .answers("The image; or, with status 200 too, an error that its clients have words for.", [
                ("image/jpg", content(binary("A PNG."), None)),
                ("image/png", content(binary(""), None)),
                ("image/jpeg", content(binary(""), None)),
                (JSON, content(named(Shape::Envelope.name()), None)),
            ])
            .refuses(Shape::Envelope)
            .also(422, FIELD, fields()),
    ];
    (told, schemas())
}

fn schemas() -> Vec<(&'static str, Described)> {
    let pixels = |about| whole(about, 0);
    let found = object(
        "A box.",
        vec![
            ("ObjectClassName", text("")),
            ("confidence", number("From 0 to 100.")),
            (
                "coordinates",
                object(
                    "In whole pixels of the image as it was sent.",
                    vec![("left", pixels("")), ("top", pixels("")), ("right", pixels("")), ("bottom", pixels(""))],
                    vec![],
                ),
            ),
            ("ObjectClassId", whole("", 0)),
        ],
        vec![],
    );
    vec![
        (
            "Boxes",
            object(
                "",
                vec![("bounding-boxes", list("", found))],
                vec![("ImageName", text("Of several images, which."))],
            ),
        ),
        (
            "BoxesConfig",
            object(
                "",
                vec![
                    ("framework", text("")),
                    ("type", choice("", &["detection", "classification"])),
                    ("network", text("")),
                ],
                vec![],
            ),
        ),
    ]
}
