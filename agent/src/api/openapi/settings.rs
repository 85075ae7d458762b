//! What changes an agent: its log, its traces, its models; and shared memory, which there cannot be.

use serde_json::json;
use utoipa::openapi::Content;

use super::errors::Shape;
use super::oip::parameters;
use super::operation::{JSON, Told, content};
use super::schema::{Described, anything, either, exactly, flag, list, named, null, object, text, whole};

/// The operations, and the schemas that they name.
pub(super) fn told() -> (Vec<Told>, Vec<(&'static str, Described)>) {
    let mut told = vec![
        Told::get("/v2/logging", "What the agent logs")
            .answers("The log's settings.", [(JSON, content(named("LogSettings"), None))])
            .refuses(Shape::Plain),
        Told::post("/v2/logging", "Change what the agent logs")
            .about(
                "Until it is restarted. Errors, warnings, `info` and the verbose levels are one scale: each needs those before it. \
                 Through a relay, all agents change.",
            )
            .takes(false, [(JSON, content(named("LogUpdate"), Some(json!({ "log_verbose_level": 0 }))))])
            .answers("The settings as they are now.", [(JSON, content(named("LogSettings"), None))])
            .refuses(Shape::Plain),
    ];
    for path in ["/v2/trace/setting", "/v2/models/{model}/trace/setting"] {
        told.push(
            Told::get(path, "What is traced to files: nothing")
                .answers("The settings.", [(JSON, content(named("TraceSettings"), None))])
                .refuses(Shape::Plain),
        );
        told.push(
            Told::post(path, "Change traces, which is refused")
                .about("What asks for no change is answered with the settings, everything else with 400.")
                .takes(false, [(JSON, content(named("TraceUpdate"), Some(json!({ "trace_level": ["OFF"] }))))])
                .answers("The settings, unchanged.", [(JSON, content(named("TraceSettings"), None))])
                .refuses(Shape::Plain),
        );
    }
    told.push(change(
        Told::post("/v2/repository/models/{model}/load", "Load a model")
            .about(
                "Loads what its folder has and is not served yet, and answers when that is done. No parameter is taken: a model is \
                 what its folder says.",
            )
            .takes(false, [(JSON, content(named("LoadRequest"), Some(json!({}))))]),
    ));
    told.push(change(
        Told::post("/v2/repository/models/{model}/unload", "Unload a model")
            .about("Answers at once; requests that the model has already are answered.")
            .takes(false, [(JSON, content(named("UnloadRequest"), Some(json!({}))))]),
    ));
    for memory in ["/v2/systemsharedmemory", "/v2/cudasharedmemory"] {
        for (get, path) in [
            (true, "status"),
            (true, "region/{region}/status"),
            (false, "region/{region}/register"),
            (false, "region/{region}/unregister"),
            (false, "unregister"),
        ] {
            let summary = "Shared memory, which there cannot be between two machines";
            let path = format!("{memory}/{path}");
            let told_of = if get { Told::get(&path, summary) } else { Told::post(&path, summary) };
            told.push(told_of.about("Always 400.").refuses(Shape::Plain));
        }
    }
    (told, schemas())
}

fn change(told: Told) -> Told {
    told.answers("Done; empty.", [] as [(&str, Content); 0]).refuses(Shape::Plain)
}

fn schemas() -> Vec<(&'static str, Described)> {
    let maybe = |one: Described| either("", vec![one, null("")]);
    let log = || {
        vec![
            ("log_file", text("Empty: it goes to standard error.")),
            ("log_info", flag("What is worth knowing.")),
            ("log_warning", flag("")),
            ("log_error", flag("")),
            ("log_verbose_level", whole("1: details; 2 and more: every detail.", 0)),
            ("log_format", text("")),
        ]
    };
    let update = log().into_iter().map(|(name, field)| (name, maybe(field))).collect();
    let trace = || {
        vec![
            ("trace_level", list("", text(""))),
            ("trace_rate", text("")),
            ("trace_count", text("")),
            ("log_frequency", text("")),
            ("trace_file", text("")),
            ("trace_mode", text("")),
        ]
    };
    let setting = "A value, or a list of them; null changes nothing.";
    let traces = trace().into_iter().map(|(name, _)| (name, anything(setting))).collect();
    let with = |parameters| object("", vec![], vec![("parameters", parameters)]);
    vec![
        ("LogSettings", object("What is logged.", log(), vec![])),
        ("LogUpdate", exactly("What is to change; the rest stays.", update)),
        ("TraceSettings", object("What is traced.", trace(), vec![])),
        ("TraceUpdate", exactly("What is to change; the rest stays.", traces)),
        ("LoadRequest", with(exactly("None is taken.", vec![]))),
        ("UnloadRequest", with(parameters("Not minded."))),
    ]
}
