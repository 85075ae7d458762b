//! What is told of one operation: a method on a path.

use serde_json::{Value, json};
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{Content, ContentBuilder, HttpMethod, Ref, Required, ResponseBuilder};

use super::errors::{Shape, answer, causes};
use super::schema::{Described, text};

/// The headers of every answer.
pub(super) const TIMING: &str = "#/components/headers/ServerTiming";
pub(super) const REQUEST_ID: &str = "#/components/headers/RequestId";

pub(super) const JSON: &str = "application/json";
pub(super) const FORM: &str = "multipart/form-data";

/// One operation.
pub(super) struct Told {
    pub(super) method: HttpMethod,
    /// With its verb, if it has one.
    pub(super) path: String,
    pub(super) operation: OperationBuilder,
    body: bool,
}

impl Told {
    /// One that reads.
    pub(super) fn get(path: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Get, path, summary)
    }

    /// One that asks.
    pub(super) fn post(path: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Post, path, summary)
    }

    fn new(method: HttpMethod, path: &str, summary: &str) -> Self {
        let parameters: Vec<_> = placeholders(path).map(place).collect();
        let operation = OperationBuilder::new().summary(Some(summary)).parameters(Some(parameters));
        Self { method, path: path.to_owned(), operation, body: false }
    }

    /// What else is to be known.
    pub(super) fn about(mut self, about: &str) -> Self {
        self.operation = self.operation.description(Some(about));
        self
    }

    /// A parameter that may be left out.
    pub(super) fn parameter(mut self, place: ParameterIn, name: &str, about: &str, schema: Described) -> Self {
        let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(Required::False);
        self.operation = self.operation.parameter(parameter.description(Some(about)).schema(Some(schema)));
        self
    }

    /// What its body may be; one that need not be there is nothing.
    pub(super) fn takes<const N: usize>(mut self, needed: bool, bodies: [(&str, Content); N]) -> Self {
        let body = RequestBodyBuilder::new().required(Some(if needed { Required::True } else { Required::False }));
        let body = bodies.into_iter().fold(body, |body, (kind, content)| body.content(kind, content));
        self.operation = self.operation.request_body(Some(body.build()));
        self.body = true;
        self
    }

    /// What it answers: of each kind, its content.
    pub(super) fn answers<const N: usize>(mut self, about: &str, kinds: [(&str, Content); N]) -> Self {
        let response = ResponseBuilder::new()
            .description(about)
            .header_ref("Server-Timing", Ref::new(TIMING))
            .header_ref("X-Request-Id", Ref::new(REQUEST_ID));
        let response = kinds.into_iter().fold(response, |response, (kind, content)| response.content(kind, content));
        self.operation = self.operation.response("200", response.build());
        self
    }

    /// The statuses that any path may have, as its dialect spells them.
    pub(super) fn refuses(mut self, shape: Shape) -> Self {
        for (status, told) in causes(shape, self.body) {
            self.operation = self.operation.response(status.to_string(), told);
        }
        self
    }

    /// A status of its own, or one that it spells in its own way; after [`Self::refuses`].
    pub(super) fn also(mut self, status: u16, about: &str, schema: Described) -> Self {
        self.operation = self.operation.response(status.to_string(), answer(status, about, schema));
        self
    }
}

/// A body, with an example if there is one.
pub(super) fn content(schema: Described, example: Option<Value>) -> Content {
    ContentBuilder::new().schema(Some(schema)).example(example).build()
}

/// The names in braces.
fn placeholders(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

fn place(name: &str) -> Parameter {
    let (about, example) = match name {
        "model" => ("A model's name. Where boxes come in an envelope, or its UUID.", "digits"),
        "version" => ("A version's number, or a label that stands for one.", "1"),
        "region" => ("A region of shared memory, which there cannot be.", "input"),
        _ => ("A file of the page.", "swagger-ui.css"),
    };
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
    parameter.description(Some(about)).schema(Some(text(""))).example(Some(json!(example))).build()
}
