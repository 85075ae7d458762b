//! What can be asked over HTTP, as an OpenAPI document for programs and as a page for people.
//!
//! The `document` is made of the endpoints that the dialects declare and of what is told of each here, a file a dialect, in the words of
//! `operation` and `schema`; `errors` says how each dialect spells why there is no answer. The `page` serves it.

mod annotated;
mod boxes;
mod deepstack;
mod document;
mod errors;
mod few;
mod oip;
mod operation;
pub(super) mod page;
mod schema;
mod settings;
mod tfserving;
