//! Serves the document, and Swagger UI, which is part of the program: nothing is fetched from elsewhere.
//!
//! The page's own frame is here and not Swagger UI's, whose files would have to lie beside it: `/docs` has them below.

use std::sync::{Arc, LazyLock};

use adit_common::manifest::Dialect;
use axum::body::Body;
use axum::extract::Path;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use utoipa_swagger_ui::{Config, SwaggerFile, serve};

use super::super::paths::Paths;
use super::super::reply::{bytes, refusal};
use super::super::router::declared;
use super::document::document;
use super::errors::Shape;
use super::operation::{JSON, Told, content};
use super::schema::{Described, binary, object, text};

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Adit: the HTTP API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/swagger-ui-standalone-preset.js"></script>
<script src="docs/swagger-initializer.js"></script>
</body>
</html>
"#;

/// A page that shows what others have written asks nobody else. Swagger UI sets styles in its elements and has images in its text.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:");

/// The document's text: the same for as long as the program runs.
static DOCUMENT: LazyLock<serde_json::Result<Bytes>> =
    LazyLock::new(|| document(&declared()).to_pretty_json().map(|text| Bytes::from(text + "\n")));

/// What may be asked.
pub(in super::super) fn paths() -> Paths {
    Paths::of(Dialect::Oip).get("/openapi.json", openapi).get("/docs", page).get("/docs/{file}", asset)
}

/// `GET /openapi.json`
async fn openapi() -> Response<Body> {
    match &*DOCUMENT {
        Ok(text) => bytes(StatusCode::OK, HeaderValue::from_static("application/json"), text.clone()),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &format!("the document cannot be written: {error}")),
    }
}

/// `GET /docs`
async fn page() -> Response<Body> {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let mut response = bytes(StatusCode::OK, kind, Bytes::from_static(PAGE.as_bytes()));
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// `GET /docs/{file}`
async fn asset(Path(name): Path<String>) -> Response<Body> {
    let config = Config::from("openapi.json").use_base_layout().try_it_out_enabled(true);
    // Its own page would ask for its files in another place.
    let found = if name == "index.html" { Ok(None) } else { serve(&name, Arc::new(config)) };
    match found {
        Ok(Some(SwaggerFile { bytes: file, content_type, .. })) => match HeaderValue::from_str(&content_type) {
            Ok(kind) => bytes(StatusCode::OK, kind, Bytes::from(file.into_owned())),
            Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the file is of no known kind"),
        },
        Ok(None) => refusal(StatusCode::NOT_FOUND, "there is no such file of the page"),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be made"),
    }
}

/// The operations of this file.
pub(super) fn told() -> (Vec<Told>, Vec<(&'static str, Described)>) {
    let told = vec![
        Told::get("/openapi.json", "This document")
            .answers("OpenAPI 3.1.", [(JSON, content(object("", vec![("openapi", text(""))], vec![]), None))])
            .refuses(Shape::Plain),
        Told::get("/docs", "This document as a page")
            .about("Swagger UI. A browser sends no key of its own accord: open it on an agent's local listener.")
            .answers("HTML.", [("text/html", content(text(""), None))])
            .refuses(Shape::Plain),
        Told::get("/docs/{file}", "The page's own files")
            .answers(
                "A file of Swagger UI.",
                [
                    ("text/css", content(text(""), None)),
                    ("text/javascript", content(text(""), None)),
                    ("image/png", content(binary(""), None)),
                ],
            )
            .refuses(Shape::Plain),
    ];
    (told, Vec::new())
}
