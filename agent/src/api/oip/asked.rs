//! The small bodies of the extensions: a JSON object, or nothing.

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::reply::Refusal;

/// Reads a body. None is an empty object. A list is none, though one would do to fill the fields in order.
pub(super) fn asked<T: DeserializeOwned>(text: &[u8]) -> Result<T, Refusal> {
    let text = if text.is_empty() { b"{}" } else { text };
    let read =
        serde_json::from_slice(text).and_then(|fields: Map<String, Value>| serde_json::from_value(fields.into()));
    read.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the JSON of the message is wrong: {error}")))
}

#[cfg(test)]
mod tests {
    use adit_common::oip::{IndexRequest, LogUpdate};

    use super::*;

    #[test]
    fn a_body_is_an_object_or_nothing() {
        assert!(!asked::<IndexRequest>(b"").unwrap().ready);
        assert!(asked::<IndexRequest>(br#"{"ready":true}"#).unwrap().ready);
        assert_eq!(asked::<LogUpdate>(br#"{"log_info":null}"#).unwrap(), LogUpdate::default());
        for text in ["[true]", "[]", "null", "{", r#"{"ready":1}"#] {
            let refusal = asked::<IndexRequest>(text.as_bytes()).unwrap_err();
            assert!(refusal.message.starts_with("the JSON of the message is wrong: "), "{text}: {}", refusal.message);
        }
    }
}
