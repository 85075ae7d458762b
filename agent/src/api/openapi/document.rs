//! The document: every endpoint that is declared and speaks plain HTTP, with what is told of it.
//!
//! gRPC is described by its own reflection, and a WebSocket has no place in OpenAPI: the frames' socket is told of in prose.

use adit_common::manifest::{Dialect, Endpoint, Scope};
use serde_json::json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::PathsBuilder;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem, ServerBuilder,
};

use super::operation::Told;
use super::schema::{Described, text};
use super::{annotated, boxes, deepstack, errors, few, oip, page, settings, tfserving};

const ABOUT: &str = "What an agent answers, through a relay at `https://RELAY` or on its own local listener: one server, in the \
    dialects of several systems, so that their clients can be pointed here as they are.\n\n\
    Through a relay every request carries an API key, as `Authorization: Bearer KEY` or as `x-api-key: KEY`; which scope it needs is \
    told with each operation. An agent's local listener asks for no key.\n\n\
    Every answer tells in `Server-Timing` where its time went. Bodies may be compressed (`content-encoding: gzip` or `deflate`). \
    gRPC (the Open Inference Protocol, TensorFlow Serving, health and reflection) is on the same port and describes itself by \
    reflection. `/ws` is a WebSocket: a message a frame, a JPEG compressed by zlib, is answered with a message of JSON.";

/// What is told under one heading.
struct Chapter {
    name: &'static str,
    about: &'static str,
    told: Vec<Told>,
    schemas: Vec<(&'static str, Described)>,
}

fn chapters() -> Vec<Chapter> {
    let chapter = |name, about, (told, schemas)| Chapter { name, about, told, schemas };
    vec![
        chapter(
            "Open Inference Protocol",
            "Models, their state, and asking them: KServe's version 2, as Triton speaks it.",
            oip::told(),
        ),
        chapter("Settings", "What an agent writes down, and models loaded and unloaded.", settings::told()),
        chapter("TensorFlow Serving", "Its REST API, version 1.", tfserving::told()),
        chapter("DeepStack", "DeepStack and CodeProject.AI: what cameras' recorders ask.", deepstack::told()),
        chapter("Detection in an envelope", "Boxes by model, with drawn images.", boxes::told()),
        chapter("Annotated batches", "Images that come back with the persons on them marked.", annotated::told()),
        chapter("The simplest", "An image as the whole body, Vertex AI's body, and health.", few::told()),
        chapter("This document", "What you are reading.", page::told()),
    ]
}

/// The document of these endpoints.
pub(super) fn document(endpoints: &[Endpoint]) -> OpenApi {
    let (mut paths, mut tags) = (PathsBuilder::new(), Vec::new());
    let mut components = ComponentsBuilder::new().schemas_from_iter(errors::schemas());
    for Chapter { name, about, told, schemas } in chapters() {
        tags.push(TagBuilder::new().name(name).description(Some(about)).build());
        components = components.schemas_from_iter(schemas);
        for Told { method, path, operation, .. } in told {
            // What nobody offers is not told of.
            let Some(endpoint) = endpoints.iter().find(|endpoint| is_of(endpoint, &method, &path)) else { continue };
            let operation = operation.tag(name).operation_id(Some(id(&endpoint.method, &path)));
            let operation = operation.securities(Some(keys(endpoint.scope)));
            paths = paths.path(path, PathItem::new(method, operation));
        }
    }
    let told = |about: &str, example: &str| {
        HeaderBuilder::new().schema(Some(text(""))).description(Some(about)).example(Some(json!(example))).build()
    };
    let components = components
        .responses_from_iter(errors::answers())
        .header(
            "ServerTiming",
            told(
                "Where the time went, in milliseconds. Through a relay: `admit`, `pick`, `upload`, `transit` are its own; `decode`, \
                 `prepare`, `queue`, `forward`, `interpret`, `encode` the agent's, `upstream` that of a server behind it; `other` is what no stage covers, `total` the sum of \
                 these. `receive` overlaps `upload`. Stages that a request did not pass are left out.",
                "decode;dur=0.577, prepare;dur=1.002, queue;dur=0.148, forward;dur=0.503;desc=\"cpu b=1\", interpret;dur=0.063, \
                 encode;dur=0.016, other;dur=0.006, receive;dur=0.113, total;dur=2.315",
            ),
        )
        .header("RequestId", told("The request's own `x-request-id`, or one that was made for it.", "a9a642e871d0e082"))
        .security_scheme(
            "bearer",
            SecurityScheme::Http(
                HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key of the relay.")).build(),
            ),
        )
        .security_scheme(
            "x-api-key",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "x-api-key",
                "An API key of the relay, for clients that cannot send a bearer.",
            ))),
        );
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Adit")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(ABOUT))
                .license(Some(license))
                .build(),
        )
        .servers(Some([ServerBuilder::new().url("/").description(Some("Wherever this document is from")).build()]))
        .paths(paths)
        .components(Some(components.build()))
        .tags(Some(tags))
        .build()
}

/// Whether OpenAPI can describe it.
fn is_plain(endpoint: &Endpoint) -> bool {
    endpoint.dialect != Dialect::Grpc && endpoint.method != "CONNECT"
}

/// Whether this is what answers there. A verb is not part of what is declared.
fn is_of(endpoint: &Endpoint, method: &HttpMethod, path: &str) -> bool {
    let declared = path.split_once(':').map_or(path, |(declared, _)| declared);
    is_plain(endpoint) && endpoint.method == verb(method) && endpoint.path == declared
}

const fn verb(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Post => "POST",
        // Nothing else is told of.
        _ => "GET",
    }
}

/// Such as `post_v2_models_model_infer`.
fn id(method: &str, path: &str) -> String {
    let words = path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words = std::iter::once(method).chain(words);
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

/// Either key, with the scope; or none, on a local listener.
fn keys(scope: Scope) -> Vec<SecurityRequirement> {
    let scope = match scope {
        Scope::Infer => "infer",
        Scope::Control => "control",
    };
    let keys = ["bearer", "x-api-key"].map(|scheme| SecurityRequirement::new(scheme, [scope]));
    keys.into_iter().chain([SecurityRequirement::default()]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use adit_common::oip::{IndexRequest, InferRequest, LogUpdate};
    use bytes::Bytes;
    use serde_json::Value;

    use super::super::super::router::declared;
    use super::*;

    fn written(endpoints: &[Endpoint]) -> Value {
        serde_json::to_value(document(endpoints)).unwrap()
    }

    /// Of each operation of the document, its method, its path as it is declared, and its scope.
    fn told(document: &Value) -> BTreeMap<(String, String), String> {
        let mut found = BTreeMap::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let declared = path.split(':').next().unwrap().to_owned();
                let scope = operation["security"][0]["bearer"][0].as_str().unwrap().to_owned();
                found.insert((method.to_uppercase(), declared), scope);
            }
        }
        found
    }

    #[test]
    fn every_endpoint_is_told_of_and_nothing_else() {
        let endpoints = declared();
        let plain = endpoints.iter().filter(|endpoint| is_plain(endpoint));
        let expected: BTreeMap<_, _> = plain
            .map(|endpoint| {
                let scope = if endpoint.scope == Scope::Control { "control" } else { "infer" };
                ((endpoint.method.clone(), endpoint.path.clone()), scope.to_owned())
            })
            .collect();
        let document = written(&endpoints);
        assert_eq!(told(&document), expected);
        // What is described here and nowhere declared would be left out in silence.
        let described: usize = chapters().iter().map(|chapter| chapter.told.len()).sum();
        let there: usize =
            document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
        assert_eq!(described, there);
        assert!(told(&written(&[])).is_empty());
    }

    #[test]
    fn every_name_that_is_used_is_there_and_the_other_way_round() {
        fn uses(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").map(|name| name.as_str().unwrap().to_owned()));
                    fields.values().for_each(|field| uses(field, found));
                }
                Value::Array(items) => items.iter().for_each(|item| uses(item, found)),
                _ => {}
            }
        }
        let document = written(&declared());
        let mut used = BTreeSet::new();
        uses(&document, &mut used);
        let mut there = BTreeSet::new();
        for kind in ["schemas", "responses", "headers"] {
            let names = document["components"][kind].as_object().unwrap().keys();
            there.extend(names.map(|name| format!("#/components/{kind}/{name}")));
        }
        assert!(used.is_subset(&there), "{:?}", used.difference(&there));
        let unused: Vec<_> = there.difference(&used).filter(|name| name.contains("schemas")).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document = written(&declared());
        let items = document["paths"].as_object().unwrap().values();
        let ids: Vec<_> =
            items.flat_map(|item| item.as_object().unwrap().values().map(|told| &told["operationId"])).collect();
        assert_eq!(ids.iter().map(|id| id.as_str().unwrap()).collect::<BTreeSet<_>>().len(), ids.len());
    }

    #[test]
    fn examples_are_read_by_the_types_that_read_requests() {
        let document = written(&declared());
        let example = |path: &str| {
            let example = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"];
            assert!(example.is_object(), "{path}");
            example.to_string()
        };
        let infer = Bytes::from(example("/v2/models/{model}/infer"));
        assert_eq!(InferRequest::parse(&infer, None).unwrap().inputs.len(), 1);
        assert!(serde_json::from_str::<IndexRequest>(&example("/v2/repository/index")).unwrap().ready);
        assert_eq!(serde_json::from_str::<LogUpdate>(&example("/v2/logging")).unwrap().log_verbose_level, Some(0));
    }
}
