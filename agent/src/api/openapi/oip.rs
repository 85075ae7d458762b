//! The Open Inference Protocol.

use adit_common::oip::{Datatype, HEADER_LENGTH};
use serde_json::json;
use utoipa::openapi::path::ParameterIn;

use super::errors::Shape;
use super::operation::{JSON, Told, content};
use super::schema::{
    Described, IMAGE, always, anything, binary, choice, either, exactly, flag, list, map, named, null, number, object,
    some, text, whole,
};

/// Tensors of one message, and parameters of one object.
const MOST: usize = 64;

/// The operations, and the schemas that they name.
pub(super) fn told() -> (Vec<Told>, Vec<(&'static str, Described)>) {
    let mut told = vec![
        Told::get("/v2", "The server's name, version and extensions")
            .answers("The server.", [(JSON, content(named("ServerMetadata"), None))])
            .refuses(Shape::Plain),
        Told::get("/v2/health/live", "Whether the server lives")
            .answers("It does.", [(JSON, content(object("", vec![("live", always(true, ""))], vec![]), None))])
            .refuses(Shape::Plain),
        Told::get("/v2/health/ready", "Whether models can be asked")
            .answers("They can.", [(JSON, content(object("", vec![("ready", always(true, ""))], vec![]), None))])
            .refuses(Shape::Plain)
            .also(400, "Not yet, or not any more.", named("NotReady")),
        Told::get("/v2/models/stats", "How often all models were asked, and where the time went")
            .about("Through a relay, the sums over all agents. Every number only grows while an agent runs.")
            .answers("One entry per version of a model.", [(JSON, content(named("Statistics"), None))])
            .refuses(Shape::Plain),
        Told::post("/v2/repository/index", "Which models there are")
            .about("Through a relay, those of all agents. A body need not be there.")
            .takes(
                false,
                [(
                    JSON,
                    content(
                        object("", vec![], vec![("ready", flag("Only what can be asked."))]),
                        Some(json!({ "ready": true })),
                    ),
                )],
            )
            .answers("Every version of every model.", [(JSON, content(list("", named("IndexEntry")), None))])
            .refuses(Shape::Plain),
    ];
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        told.extend(of_model(model));
    }
    (told, schemas())
}

fn of_model(model: &str) -> Vec<Told> {
    let binary_tensors = |about: &str| content(binary(about), None);
    vec![
        Told::get(model, "What a model takes and gives")
            .answers("The model.", [(JSON, content(named("ModelMetadata"), None))])
            .refuses(Shape::Plain),
        Told::get(&format!("{model}/ready"), "Whether a model can be asked")
            .answers(
                "It can.",
                [(JSON, content(object("", vec![("name", text("")), ("ready", always(true, ""))], vec![]), None))],
            )
            .refuses(Shape::Plain)
            .also(400, "Not yet, or not any more; or it has no such name.", named("NotReady")),
        Told::get(&format!("{model}/config"), "How a model is served")
            .answers("In the words of Triton's model configuration.", [(JSON, content(named("ModelConfig"), None))])
            .refuses(Shape::Plain),
        Told::get(&format!("{model}/stats"), "How often a model was asked, and where the time went")
            .answers("One entry per version.", [(JSON, content(named("Statistics"), None))])
            .refuses(Shape::Plain),
        Told::post(&format!("{model}/infer"), "Ask a model")
            .about(
                "The one input is `image` (BYTES, `[N]` or `[N, 1]`, encoded images; base64 in JSON) or `input` (FP32, `[N, C, H, W]`, \
                 prepared as the network was trained). A classifier gives `probabilities`, a detector `boxes`, `scores`, `classes` \
                 and `labels`.\n\nAn image may also be the whole body, under a content type `image/...` or with \
                 `inference-header-content-length: 0`: its answer has binary tensors.",
            )
            .parameter(
                ParameterIn::Header,
                HEADER_LENGTH,
                "Of a body with binary tensors behind its JSON: how long the JSON is, in bytes. 0: the body is the one image.",
                whole("", 0),
            )
            .parameter(
                ParameterIn::Header,
                "accept-encoding",
                "`gzip` or `deflate`: answers of 1 KiB and more come so.",
                text(""),
            )
            .takes(
                true,
                [
                    (JSON, content(named("InferRequest"), Some(question()))),
                    ("application/octet-stream", binary_tensors("JSON, and behind it the bytes of all binary tensors.")),
                    ("image/*", binary_tensors("A JPEG, PNG, WebP, BMP or GIF image.")),
                ],
            )
            .answers(
                "What the model says. Binary tensors stand behind the JSON, whose length `inference-header-content-length` tells.",
                [
                    (JSON, content(named("InferResponse"), None)),
                    ("application/octet-stream", binary_tensors("JSON, and behind it the bytes of all binary tensors.")),
                ],
            )
            .refuses(Shape::Plain),
    ]
}

fn question() -> serde_json::Value {
    json!({
        "id": "1",
        "inputs": [{ "name": "image", "datatype": "BYTES", "shape": [1], "data": [IMAGE] }],
        "outputs": [{ "name": "probabilities", "parameters": { "classification": 3 } }],
    })
}

fn datatype() -> Described {
    choice("What a tensor's elements are.", &Datatype::ALL.map(Datatype::name))
}

pub(super) fn parameters(about: &str) -> Described {
    map(about, either("A text, a number, true, false or null.", vec![text(""), number(""), flag(""), null("")]))
}

fn shape() -> Described {
    list("The lengths of its dimensions.", whole("", 0))
}

fn schemas() -> Vec<(&'static str, Described)> {
    let mut schemas = messages();
    schemas.extend(models());
    schemas.extend(statistics());
    schemas
}

fn messages() -> Vec<(&'static str, Described)> {
    let tensor = object(
        "A tensor. Its data are here, or, as `binary_data_size` bytes, behind the JSON.",
        vec![("name", text("")), ("datatype", datatype()), ("shape", shape())],
        vec![
            ("parameters", parameters("`binary_data_size`.")),
            ("data", list("Row by row, flat or nested. Bytes are base64.", anything("An element, or a list of them."))),
        ],
    );
    let requested = object(
        "An output that is wanted.",
        vec![("name", text(""))],
        vec![(
            "parameters",
            parameters(
                "`classification`: how many of the likeliest classes. `binary_data`: not in the JSON but behind it.",
            ),
        )],
    );
    let request = object(
        "A question of a model.",
        vec![("inputs", some("", named("Tensor"), [1, MOST]))],
        vec![
            ("id", text("Comes back in the answer.")),
            (
                "parameters",
                parameters(
                    "`timeout`: microseconds from the body's last byte on. `priority`: 1 is the most urgent, 0 the same as 2, up to \
                     16. `binary_data_output`: all outputs behind the JSON.",
                ),
            ),
            ("outputs", some("Which outputs; all of them where it is left out.", named("RequestedOutput"), [0, MOST])),
        ],
    );
    let response = object(
        "A model's answer.",
        vec![("model_name", text("")), ("outputs", list("", named("Tensor")))],
        vec![("model_version", text("")), ("id", text("The request's own.")), ("parameters", parameters(""))],
    );
    let server = object(
        "A server.",
        vec![
            ("name", text("")),
            ("version", text("")),
            ("extensions", list("What it can beyond the protocol.", text(""))),
        ],
        vec![],
    );
    let unready = object(
        "Why it cannot be asked.",
        vec![("error", text("For people."))],
        vec![("ready", always(false, "")), ("name", text(""))],
    );
    vec![
        ("Tensor", tensor),
        ("RequestedOutput", requested),
        ("InferRequest", request),
        ("InferResponse", response),
        ("ServerMetadata", server),
        ("NotReady", unready),
    ]
}

fn models() -> Vec<(&'static str, Described)> {
    let dims = || list("Without the batch's own; -1 is any length.", whole("", -1));
    let config_type = || choice("What its elements are.", &Datatype::ALL.map(Datatype::config_name));
    let tensor = object(
        "An input or output.",
        vec![("name", text("")), ("datatype", datatype()), ("shape", list("-1 is any length.", whole("", -1)))],
        vec![],
    );
    let metadata = object(
        "What a model takes and gives.",
        vec![
            ("name", text("")),
            ("versions", list("Those that can be asked.", text(""))),
            ("platform", text("What runs it, and its network.")),
            ("inputs", list("", named("TensorMetadata"))),
            ("outputs", list("", named("TensorMetadata"))),
        ],
        vec![("parameters", parameters("`label.stable` is the version that `stable` stands for."))],
    );
    let entry = object(
        "A version of a model.",
        vec![
            ("name", text("")),
            ("version", text("")),
            ("reason", text("Why it cannot be asked, or what else is to be known.")),
        ],
        vec![("state", choice("", &["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]))],
    );
    let policy = exactly(
        "Which versions are served: one of these.",
        vec![
            ("latest", object("", vec![("num_versions", whole("", 0))], vec![])),
            ("all", object("", vec![], vec![])),
            ("specific", object("", vec![("versions", list("", whole("", 0)))], vec![])),
        ],
    );
    let input = object(
        "",
        vec![
            ("name", text("")),
            ("data_type", config_type()),
            ("format", text("")),
            ("dims", dims()),
            ("optional", flag("")),
        ],
        vec![],
    );
    let output = object("", vec![("name", text("")), ("data_type", config_type()), ("dims", dims())], vec![]);
    let group = object("Its workers.", vec![("name", text("")), ("kind", text("")), ("count", whole("", 0))], vec![]);
    let queue = object(
        "How requests wait.",
        vec![
            ("timeout_action", text("")),
            ("default_timeout_microseconds", whole("", 0)),
            ("allow_timeout_override", flag("")),
            ("max_queue_size", whole("Images that may wait.", 0)),
        ],
        vec![],
    );
    let batching = object(
        "How requests share a pass; absent where they do not.",
        vec![
            ("preferred_batch_size", list("Empty where that is found out by measuring.", whole("", 0))),
            ("max_queue_delay_microseconds", whole("", 0)),
            ("priority_levels", whole("", 0)),
            ("default_priority_level", whole("", 0)),
            ("default_queue_policy", queue),
        ],
        vec![],
    );
    let config = object(
        "How a model is served.",
        vec![
            ("name", text("")),
            ("platform", text("")),
            ("backend", text("")),
            ("version_policy", policy),
            ("max_batch_size", whole("Images that one request may have.", 0)),
            ("input", list("", input)),
            ("output", list("", output)),
            ("instance_group", list("", group)),
            ("model_transaction_policy", object("", vec![("decoupled", flag(""))], vec![])),
        ],
        vec![("dynamic_batching", batching)],
    );
    vec![("TensorMetadata", tensor), ("ModelMetadata", metadata), ("IndexEntry", entry), ("ModelConfig", config)]
}

fn statistics() -> Vec<(&'static str, Described)> {
    let duration = || named("StatisticDuration");
    let stages =
        ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"];
    let batch = object(
        "Passes of one size.",
        vec![
            ("batch_size", whole("Images in a pass.", 0)),
            ("compute_input", duration()),
            ("compute_infer", duration()),
            ("compute_output", duration()),
        ],
        vec![],
    );
    let memory = object(
        "What its weights take now.",
        vec![("type", text("`CPU` or `GPU`.")), ("id", whole("", 0)), ("byte_size", whole("", 0))],
        vec![],
    );
    let model = object(
        "What was counted of one version of a model.",
        vec![
            ("name", text("")),
            ("version", text("")),
            ("last_inference", whole("Milliseconds since 1970; 0 for never.", 0)),
            ("inference_count", whole("Images of answered requests.", 0)),
            ("execution_count", whole("Forward passes.", 0)),
            ("inference_stats", object("", stages.map(|stage| (stage, duration())).to_vec(), vec![])),
            ("response_stats", map("Always empty.", anything(""))),
            ("batch_stats", list("", batch)),
            ("memory_usage", list("", memory)),
        ],
        vec![],
    );
    vec![
        (
            "StatisticDuration",
            object(
                "",
                vec![("count", whole("How often.", 0)), ("ns", whole("How long in all, in nanoseconds.", 0))],
                vec![],
            ),
        ),
        ("ModelStatistics", model),
        ("Statistics", object("", vec![("model_stats", list("", named("ModelStatistics")))], vec![])),
    ]
}
