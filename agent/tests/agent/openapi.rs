//! The document of the HTTP API against its golden file and against what an agent really answers, and the page that shows it.

use std::path::Path;

use adit_agent::config::Config;
use bytes::Bytes;
use http::Request;
use serde_json::{Map, Value};

use crate::house::{Answer, House, ask, one};

const GOLDEN: &str = "docs/openapi.json";

async fn house() -> House {
    House::new(&[], |config: &mut Config| config.local.control = true).await
}

#[tokio::test]
async fn the_document_is_the_one_that_is_checked_in() {
    let served = house().await.get("/openapi.json").await;
    assert_eq!(served.headers["content-type"], "application/json");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(GOLDEN);
    let there = std::fs::read(&golden).unwrap_or_default();
    if there == served.body {
        return;
    }
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi.json");
    std::fs::write(&made, &served.body).unwrap();
    panic!("{GOLDEN} is not what the agent serves. If that was meant: cp {} {GOLDEN}", made.display());
}

/// Follows a reference, if it is one.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(name) => document.pointer(name.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("no {name}")),
        None => value,
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("an unknown type {other}"),
    }
}

/// What of a value is not as its schema says: as much of JSON Schema as the document uses, and nothing else may be in it.
fn wrong(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolve(document, schema);
    let empty = Map::new();
    for (word, wanted) in schema.as_object().unwrap_or(&empty) {
        let fits = match word.as_str() {
            "type" => is(wanted.as_str().unwrap(), value),
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|value| value >= wanted.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= wanted.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= wanted.as_u64().unwrap()),
            "required" => wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
            "anyOf" => wanted.as_array().unwrap().iter().any(|one| {
                let mut inner = Vec::new();
                wrong(document, one, value, at, &mut inner);
                inner.is_empty()
            }),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    wrong(document, wanted, item, &format!("{at}/{index}"), found);
                }
                true
            }
            "properties" => {
                for (name, field) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        wrong(document, field, value, &format!("{at}/{name}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                let others = value.as_object().into_iter().flatten();
                let others = others.filter(|(name, _)| schema["properties"].get(name.as_str()).is_none());
                for (name, value) in others {
                    if wanted == &Value::Bool(false) {
                        found.push(format!("{at}/{name} is no field"));
                    } else {
                        wrong(document, wanted, value, &format!("{at}/{name}"), found);
                    }
                }
                true
            }
            "description" | "format" | "contentEncoding" => true,
            other => panic!("this test does not know `{other}`"),
        };
        if !fits {
            found.push(format!("{at}: {value} is not {word} {wanted}"));
        }
    }
}

/// Holds an answer against what the document says of an operation.
fn hold(document: &Value, name: &str, operation: &Value, answer: &Answer) {
    let told = operation["responses"].get(answer.status.as_str());
    let told = resolve(document, told.unwrap_or_else(|| panic!("{name}: an answer that is not told of: {answer:?}")));
    for header in told["headers"].as_object().unwrap().keys().filter(|header| header.as_str() != "Retry-After") {
        assert!(answer.headers.contains_key(header), "{name}: no {header} in {answer:?}");
    }
    let Some(content) = told.get("content") else {
        assert!(answer.body.is_empty(), "{name}: {answer:?}");
        return;
    };
    let kind = answer.headers["content-type"].to_str().unwrap().split(';').next().unwrap();
    let told = content.get(kind).unwrap_or_else(|| panic!("{name}: {kind} is not told of: {content}"));
    if kind == "application/json" {
        let mut found = Vec::new();
        wrong(document, &told["schema"], &answer.json(), "", &mut found);
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
}

/// The path with an example for each of its names.
fn filled(path: &str, operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    parameters.filter(|parameter| parameter["in"] == "path").fold(path.to_owned(), |path, parameter| {
        let name = parameter["name"].as_str().unwrap();
        path.replace(&format!("{{{name}}}"), parameter["example"].as_str().unwrap())
    })
}

/// A request for the operation by its example: each kind of body that it takes, or none.
fn requests(document: &Value, method: &str, path: &str, operation: &Value) -> Vec<Request<Bytes>> {
    let builder = || Request::builder().method(method.to_uppercase().as_str()).uri(filled(path, operation));
    let mut requests = Vec::new();
    if operation["requestBody"]["required"] != true {
        requests.push(builder().body(Bytes::new()).unwrap());
    }
    for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let (kind, body) = match (kind.as_str(), content.get("example")) {
            ("application/json", Some(example)) => {
                let mut found = Vec::new();
                wrong(document, &content["schema"], example, "", &mut found);
                assert!(found.is_empty(), "the example of {path}: {found:#?}");
                ("application/json", example.to_string().into_bytes())
            }
            ("multipart/form-data", Some(example)) => {
                let mut body = Vec::new();
                for (name, value) in example.as_object().unwrap() {
                    let is_model = name == "model";
                    let file = if is_model { "" } else { "; filename=\"one.bmp\"" };
                    let head = format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
                    body.extend_from_slice(head.as_bytes());
                    body.extend(if is_model { value.as_str().unwrap().as_bytes().to_vec() } else { one() });
                    body.extend_from_slice(b"\r\n");
                }
                body.extend_from_slice(b"--x--\r\n");
                ("multipart/form-data; boundary=x", body)
            }
            ("image/*", _) => ("image/bmp", one()),
            ("application/octet-stream", _) => ("application/octet-stream", b"{}".to_vec()),
            _ => ("application/json", b"{}".to_vec()),
        };
        requests.push(builder().header("content-type", kind).body(body.into()).unwrap());
    }
    requests
}

#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let house = house().await;
    let document = house.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut answered = 0;
    let mut well = Vec::new();
    let operations = |document: &Value| -> Vec<(String, String, Value)> {
        let paths = document["paths"].as_object().unwrap().clone();
        let of = |(path, item): (String, Value)| {
            let item = item.as_object().unwrap().clone();
            item.into_iter().map(move |(method, operation)| (method, path.clone(), operation))
        };
        let mut all: Vec<_> = paths.into_iter().flat_map(of).collect();
        // What takes the model away comes last.
        all.sort_by_key(|(_, path, _)| path.ends_with("/unload"));
        all
    };
    for (method, path, operation) in operations(&document) {
        for request in requests(&document, &method, &path, &operation) {
            let name = format!("{method} {path}");
            let answer = ask(house.address(), request).await;
            hold(&document, &name, &operation, &answer);
            if answer.status.is_success() {
                well.push(name);
            }
            answered += 1;
        }
    }
    // The same again for a model that is not there: the errors of each dialect.
    for (method, path, operation) in operations(&document) {
        if !path.contains("{model}") {
            continue;
        }
        let nobody = path.replace("{model}", "nobody%FF");
        for request in requests(&document, &method, &nobody, &operation) {
            let answer = ask(house.address(), request).await;
            hold(&document, &format!("{method} {nobody}"), &operation, &answer);
            answered += 1;
        }
    }
    assert!(answered > 100, "{answered}");
    for name in [
        "post /v2/models/{model}/infer",
        "post /v1/models/{model}:predict",
        "post /v1/models/{model}:classify",
        "get /v2/models/{model}/config",
        "post /v1/vision/scene",
        "post /photo",
        "post /v2/repository/models/{model}/unload",
    ] {
        assert!(well.iter().any(|well| well == name), "{name} is not among {well:#?}");
    }
}

#[tokio::test]
async fn the_page_and_all_its_files_come_from_the_agent() {
    let house = house().await;
    let page = house.get("/docs").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'self'"));
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    let files: Vec<_> = ["href=\"", "src=\""].into_iter().flat_map(|word| text.split(word).skip(1)).collect();
    assert_eq!(files.len(), 5);
    for file in files {
        let file = file.split('"').next().unwrap();
        assert!(file.starts_with("docs/"), "{file}");
        let answer = house.get(&format!("/{file}")).await;
        assert!(answer.status.is_success() && !answer.body.is_empty(), "{file}: {:?}", answer.status);
        let kind = answer.headers["content-type"].to_str().unwrap();
        let expected = match file.rsplit('.').next().unwrap() {
            "css" => "text/css",
            "js" => "text/javascript",
            _ => "image/png",
        };
        assert_eq!(kind, expected, "{file}");
        if file.ends_with("initializer.js") {
            assert!(String::from_utf8_lossy(&answer.body).contains("\"url\": \"openapi.json\""));
        }
    }
    assert!(house.get("/docs/index.html").await.error().contains("no such file"));
    assert!(house.get("/docs/%2e%2e%2fCargo.toml").await.error().contains("no such file"));
}

#[tokio::test]
async fn a_path_that_is_no_text_is_answered_in_its_dialect() {
    let house = house().await;
    assert!(house.get("/v2/models/%FF").await.error().contains("unknown model"));
    assert!(house.get("/v1/models/%FF/metadata").await.error().starts_with("Servable not found"));
    assert_eq!(house.get("/models/%FF/labels").await.json()["error"], "Model not found");
    assert!(house.get("/%FF").await.error().contains("there is nothing at"));
}
