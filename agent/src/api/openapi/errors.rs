//! Why there is no answer: which status says what, and how each dialect spells it.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder};

use super::operation::{REQUEST_ID, TIMING, content};
use super::schema::{Described, always, anything, list, named, null, object, text, whole};

/// How a dialect spells its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `{"error": "..."}`
    Plain,
    /// DeepStack's and CodeProject.AI's.
    Deepstack,
    /// `{"data": null, "error": "...", "success": false}`
    Envelope,
    /// `{"message": "..."}`
    Message,
}

impl Shape {
    pub(super) const ALL: [Self; 4] = [Self::Plain, Self::Deepstack, Self::Envelope, Self::Message];

    /// What its schema is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "Error",
            Self::Deepstack => "DeepstackError",
            Self::Envelope => "EnvelopeError",
            Self::Message => "MessageError",
        }
    }

    fn schema(self) -> Described {
        let said = || text("For people; it may change.");
        match self {
            Self::Plain => object("Why there is no answer.", vec![("error", said())], vec![]),
            Self::Deepstack => object(
                "Why there is no answer, as DeepStack and CodeProject.AI tell it.",
                vec![("success", always(false, "")), ("error", said()), ("duration", whole("Always 0.", 0))],
                vec![("message", text("What exactly is wrong.")), ("code", whole("The status.", 0))],
            ),
            Self::Envelope => object(
                "Why there is no answer, in the envelope.",
                vec![("data", null("")), ("error", said()), ("success", always(false, ""))],
                vec![],
            ),
            Self::Message => object(
                "Why there is no answer.",
                vec![("message", said())],
                vec![("error_ids", list("The images that are none.", text("")))],
            ),
        }
    }
}

/// A status that any path may have, whether the agent says it or a relay.
struct Cause {
    status: u16,
    about: &'static str,
    /// Only of what has a body.
    body: bool,
}

const fn cause(status: u16, body: bool, about: &'static str) -> Cause {
    Cause { status, about, body }
}

const CAUSES: [Cause; 12] = [
    cause(400, false, "The request cannot be understood: JSON, shapes, sizes, an image that is none or is broken off."),
    cause(401, false, "No key, or one that nobody knows. From a relay."),
    cause(
        403,
        false,
        "The key lacks the scope. On an agent's local listener: `[local] control` is off. Of DeepStack's paths, also: no model \
         can do that.",
    ),
    cause(404, false, "No such model, version or path."),
    cause(408, true, "The body did not come in time."),
    cause(413, true, "The body is too long."),
    cause(415, true, "The body is compressed by something else than gzip or deflate."),
    cause(431, false, "The head is too large, or has too many fields."),
    cause(500, false, "The model failed; its agent's log says more."),
    cause(502, false, "The agent was lost before it answered. From a relay."),
    cause(503, false, "Nobody can answer just now: no agent, a model that is not loaded, everything is full."),
    cause(504, false, "No answer within the request's time."),
];

/// The statuses that an operation may have besides its own, each with what its answer is called.
pub(super) fn causes(shape: Shape, body: bool) -> impl Iterator<Item = (u16, Ref)> {
    let told = CAUSES.iter().filter(move |cause| body || !cause.body);
    told.map(move |cause| (cause.status, Ref::from_response_name(name(shape, cause))))
}

fn name(shape: Shape, cause: &Cause) -> String {
    format!("{}{}", shape.name(), cause.status)
}

/// All of their answers by name.
pub(super) fn answers() -> Vec<(String, RefOr<Response>)> {
    let of = |shape: Shape| {
        CAUSES.iter().map(move |cause| (name(shape, cause), answer(cause.status, cause.about, named(shape.name()))))
    };
    Shape::ALL.into_iter().flat_map(of).collect()
}

/// An answer with a status of an error.
pub(super) fn answer(status: u16, about: &str, schema: Described) -> RefOr<Response> {
    let response = ResponseBuilder::new()
        .description(about)
        .content("application/json", content(schema, None))
        .header_ref("Server-Timing", Ref::new(TIMING))
        .header_ref("X-Request-Id", Ref::new(REQUEST_ID));
    let told = |about: &str| HeaderBuilder::new().schema(Some(text(""))).description(Some(about)).build();
    let response = match status {
        401 => response.header("WWW-Authenticate", told("`Bearer`.")),
        503 => response.header("Retry-After", told("When to come again, in seconds. Not always there.")),
        _ => response,
    };
    response.build().into()
}

/// How a form's or a body's missing or wrong fields are told.
const FIELDS: &str = "FieldErrors";

/// The answer to a body of another shape, as FastAPI tells it.
pub(super) fn fields() -> Described {
    named(FIELDS)
}

/// The schemas of all of these.
pub(super) fn schemas() -> Vec<(&'static str, Described)> {
    let field = object(
        "What is wrong with one field.",
        vec![
            ("loc", list("The way to the field: names, and places in lists.", anything("A name or a place."))),
            ("msg", text("For people.")),
            ("type", text("For programs, such as `value_error.missing`.")),
        ],
        vec![],
    );
    let fields = object("Which fields are wrong.", vec![("detail", list("", field))], vec![]);
    let shapes = Shape::ALL.map(|shape| (shape.name(), shape.schema()));
    shapes.into_iter().chain([(FIELDS, fields)]).collect()
}
