//! Words for what is sent and answered, over utoipa's builders.
//!
//! Most messages are types of `common`, which knows no OpenAPI, and so cannot be asked for their schemas. What they look like is
//! said by hand, and tests hold it against what an agent really answers.

use serde_json::{Value, json};
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{KnownFormat, Ref, RefOr, Schema, SchemaFormat};

/// A schema, or the name of one.
pub(super) type Described = RefOr<Schema>;

fn plain(kind: Type, about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind).description((!about.is_empty()).then_some(about))
}

/// A text.
pub(super) fn text(about: &str) -> Described {
    plain(Type::String, about).into()
}

/// One of these texts.
pub(super) fn choice(about: &str, of: &[&str]) -> Described {
    plain(Type::String, about).enum_values(Some(of.iter().copied())).into()
}

/// A whole number of at least `least`.
pub(super) fn whole(about: &str, least: i64) -> Described {
    plain(Type::Integer, about).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64))).minimum(Some(least)).into()
}

/// A number.
pub(super) fn number(about: &str) -> Described {
    plain(Type::Number, about).into()
}

/// True or false.
pub(super) fn flag(about: &str) -> Described {
    plain(Type::Boolean, about).into()
}

/// Always true, or always false.
pub(super) fn always(value: bool, about: &str) -> Described {
    plain(Type::Boolean, about).enum_values(Some([value])).into()
}

/// Nothing.
pub(super) fn null(about: &str) -> Described {
    plain(Type::Null, about).into()
}

/// Whatever JSON has.
pub(super) fn anything(about: &str) -> Described {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(about)).into()
}

/// Bytes as they are.
pub(super) fn binary(about: &str) -> Described {
    plain(Type::String, about).format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary))).into()
}

/// Bytes as base64.
pub(super) fn base64(about: &str) -> Described {
    plain(Type::String, about).content_encoding("base64").into()
}

/// A list.
pub(super) fn list(about: &str, of: Described) -> Described {
    ArrayBuilder::new().items(of).description((!about.is_empty()).then_some(about)).into()
}

/// A list of `least` to `most`.
pub(super) fn some(about: &str, of: Described, [least, most]: [usize; 2]) -> Described {
    ArrayBuilder::new().items(of).description(Some(about)).min_items(Some(least)).max_items(Some(most)).into()
}

/// An object with these fields, and those that may be left out; it may have others.
pub(super) fn object(about: &str, fields: Vec<(&str, Described)>, optional: Vec<(&str, Described)>) -> Described {
    let with = |object: ObjectBuilder, (name, field)| object.property(name, field);
    let object = plain(Type::Object, about);
    let object = fields.into_iter().fold(object, |object, (name, field)| object.required(name).property(name, field));
    optional.into_iter().fold(object, with).into()
}

/// An object with no other fields than these, each of which may be left out.
pub(super) fn exactly(about: &str, optional: Vec<(&str, Described)>) -> Described {
    let object = plain(Type::Object, about).additional_properties(Some(AdditionalProperties::FreeForm(false)));
    optional.into_iter().fold(object, |object, (name, field)| object.property(name, field)).into()
}

/// An object of such values under any names.
pub(super) fn map(about: &str, of: Described) -> Described {
    plain(Type::Object, about).additional_properties(Some(AdditionalProperties::RefOr(of))).into()
}

/// Any of these.
pub(super) fn either(about: &str, of: Vec<Described>) -> Described {
    let each = |either: AnyOfBuilder, one: Described| either.item(one);
    of.into_iter().fold(AnyOfBuilder::new().description(Some(about)), each).into()
}

/// The schema of this name.
pub(super) fn named(name: &str) -> Described {
    Ref::from_schema_name(name).into()
}

/// An encoded image of two pixels by two, for examples: black ink in one corner.
pub(super) const IMAGE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNg+M/w/z8ABv8C/tiFgRoAAAAASUVORK5CYII=";

/// The example of a form's file: text, for an example in JSON holds no bytes.
pub(super) fn file() -> Value {
    json!("the bytes of an image")
}
