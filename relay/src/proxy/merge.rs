//! Many agents' answers to one question as one answer. Pure: documents in, a document out.

use std::collections::BTreeMap;

use adit_common::manifest::Gather;
use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};

/// Counters of this kind are points in time: the latest counts.
const LATEST: &str = "last_";

/// The field by which a row says whether it can be used; this value goes before any other.
const STATE: (&str, &str) = ("state", "READY");

/// The answer of all agents together; `None` where one of them is not what its endpoint says it is.
pub(super) fn merge(gather: &Gather, answers: &[Bytes]) -> Option<Bytes> {
    match gather {
        Gather::One => answers.first().cloned(),
        // All did the same, and said nothing else.
        Gather::Every => answers.first().cloned(),
        Gather::Messages => messages(answers),
        Gather::Union => {
            let documents = read(answers)?;
            write(documents.into_iter().reduce(union)?)
        }
        Gather::Rows { at, key } | Gather::Counters { at, key } => write(rows(read(answers)?, at, key)?),
    }
}

fn read(answers: &[Bytes]) -> Option<Vec<Value>> {
    answers.iter().map(|answer| serde_json::from_slice(answer).ok()).collect()
}

fn write(document: Value) -> Option<Bytes> {
    Some(serde_json::to_vec(&document).ok()?.into())
}

/// Objects have the fields of both, lists the elements of both, each once; of two other values the first stays.
fn union(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut one), Value::Object(other)) => {
            for (name, value) in other {
                let merged = match one.remove(&name) {
                    Some(known) => union(known, value),
                    None => value,
                };
                one.insert(name, merged);
            }
            Value::Object(one)
        }
        (Value::Array(mut one), Value::Array(other)) => {
            for element in other {
                if !one.contains(&element) {
                    one.push(element);
                }
            }
            Value::Array(one)
        }
        (one, _) => one,
    }
}

/// The lists at `at`, with one row for each key.
pub(super) fn rows(documents: Vec<Value>, at: &str, key: &[String]) -> Option<Value> {
    let mut documents = documents.into_iter();
    let mut whole = documents.next()?;
    let list = whole.pointer_mut(at)?.as_array_mut()?;
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    let mut order = Vec::new();
    let others = documents.map(|mut document| document.pointer_mut(at).map(Value::take));
    let mut all = vec![Value::Array(std::mem::take(list))];
    all.extend(others.collect::<Option<Vec<_>>>()?);
    for row in all.into_iter().map(|rows| if let Value::Array(rows) = rows { Some(rows) } else { None }) {
        for row in row? {
            let name = name(&row, key);
            match known.remove(&name) {
                Some(first) => {
                    known.insert(name, both(first, row));
                }
                None => {
                    order.push(name.clone());
                    known.insert(name, row);
                }
            }
        }
    }
    *whole.pointer_mut(at)? = order.into_iter().filter_map(|name| known.remove(&name)).collect();
    Some(whole)
}

/// What tells a row apart.
pub(super) fn name(row: &Value, key: &[String]) -> String {
    key.iter().map(|field| row.get(field).unwrap_or(&Value::Null).to_string()).collect::<Vec<_>>().join(" ")
}

/// Two rows of the same thing: one that is ready goes before one that is not, else counters are added up.
fn both(one: Value, other: Value) -> Value {
    let (field, ready) = STATE;
    match (one.get(field), other.get(field)) {
        (Some(state), _) if state == ready => one,
        (_, Some(state)) if state == ready => other,
        (Some(_), _) | (_, Some(_)) => one,
        (None, None) => add("", one, other),
    }
}

/// Counters added up, however deep; lists of objects by what is not a counter in them, which stands first.
pub(super) fn add(name: &str, one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_u64().unwrap_or(0), other.as_u64().unwrap_or(0));
            if name.starts_with(LATEST) { one.max(other).into() } else { one.saturating_add(other).into() }
        }
        (Value::Object(mut one), Value::Object(other)) => {
            for (name, value) in other {
                let added = match one.remove(&name) {
                    Some(known) => add(&name, known, value),
                    None => value,
                };
                one.insert(name, added);
            }
            Value::Object(one)
        }
        (Value::Array(one), Value::Array(other)) => Value::Array(add_batches(one, other)),
        (one, _) => one,
    }
}

const BATCH: &str = "batch_size";

fn add_batches(mut one: Vec<Value>, other: Vec<Value>) -> Vec<Value> {
    for row in other {
        let same = one.iter_mut().find(|known| known.get(BATCH).is_some() && known.get(BATCH) == row.get(BATCH));
        match same {
            Some(known) => {
                let size = known[BATCH].clone();
                *known = add("", known.take(), row);
                known[BATCH] = size;
            }
            None => one.push(row),
        }
    }
    one.sort_by_key(|row| row.get(BATCH).and_then(Value::as_u64));
    one
}

/// Messages of gRPC one behind the other in one: that is how lists of protobuf are joined. `None` where one is compressed.
fn messages(answers: &[Bytes]) -> Option<Bytes> {
    let mut joined = BytesMut::from(&[0; 5][..]);
    for answer in answers {
        let (prefix, message) = answer.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 || message.len() != length {
            return None;
        }
        joined.extend_from_slice(message);
    }
    let length = u32::try_from(joined.len() - 5).ok()?;
    joined[1..5].copy_from_slice(&length.to_be_bytes());
    Some(joined.freeze())
}

/// Whether any counter of a document is below what it was: then whoever counts has begun anew.
pub(super) fn fell(was: &Value, is: &Value) -> bool {
    match (was, is) {
        (Value::Number(was), Value::Number(is)) => is.as_u64() < was.as_u64(),
        (Value::Object(was), Value::Object(is)) => {
            was.iter().any(|(name, was)| is.get(name).is_some_and(|is| fell(was, is)))
        }
        _ => false,
    }
}

/// An empty object, to which everything can be added.
pub(super) fn nothing() -> Value {
    Value::Object(Map::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(gather: &Gather, documents: &[Value]) -> Value {
        let answers: Vec<Bytes> = documents.iter().map(|document| document.to_string().into()).collect();
        serde_json::from_slice(&merge(gather, &answers).unwrap()).unwrap()
    }

    fn of(at: &str) -> Gather {
        Gather::Rows { at: at.into(), key: vec!["name".into(), "version".into()] }
    }

    #[test]
    fn an_index_has_every_version_once_and_a_ready_one_first() {
        let one = json!([{ "name": "a", "version": "1", "state": "LOADING" }, { "name": "b", "version": "1", "state": "READY" }]);
        let two = json!([{ "name": "a", "version": "1", "state": "READY" }, { "name": "a", "version": "2", "state": "READY" }]);
        let all = merged(&of(""), &[one, two]);
        let states: Vec<_> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|row| format!("{} {} {}", row["name"], row["version"], row["state"]))
            .collect();
        assert_eq!(states, [r#""a" "1" "READY""#, r#""b" "1" "READY""#, r#""a" "2" "READY""#]);
    }

    #[test]
    fn counters_are_added_up_and_times_are_the_latest() {
        let row = |count: u64, last: u64| {
            json!({ "model_stats": [{ "name": "m", "version": "1", "inference_count": count, "last_inference": last,
                "inference_stats": { "queue": { "count": count, "ns": 10 * count } },
                "batch_stats": [{ "batch_size": count, "compute_infer": { "count": 1, "ns": 5 } }, { "batch_size": 9, "compute_infer": { "count": 2, "ns": 6 } }] }] })
        };
        let all = merged(&of("/model_stats"), &[row(1, 700), row(2, 600)]);
        let stats = &all["model_stats"][0];
        assert_eq!((&stats["inference_count"], &stats["last_inference"]), (&json!(3), &json!(700)));
        assert_eq!(stats["inference_stats"]["queue"], json!({ "count": 3, "ns": 30 }));
        let sizes: Vec<_> =
            stats["batch_stats"].as_array().unwrap().iter().map(|row| row["batch_size"].as_u64()).collect();
        assert_eq!(sizes, [Some(1), Some(2), Some(9)]);
        assert_eq!(stats["batch_stats"][2]["compute_infer"], json!({ "count": 4, "ns": 12 }));
    }

    #[test]
    fn a_union_has_all_fields_and_elements_once() {
        let one = json!({ "data": { "models": ["a", "b"] }, "error": "", "success": true });
        let two = json!({ "data": { "models": ["b", "c"] }, "error": "", "success": true });
        assert_eq!(merged(&Gather::Union, &[one, two])["data"]["models"], json!(["a", "b", "c"]));
        assert_eq!(merged(&Gather::Union, &[json!({ "a": "1" }), json!({ "b": "2" })]), json!({ "a": "1", "b": "2" }));
    }

    #[test]
    fn messages_are_joined_and_what_is_none_is_no_answer() {
        let message = |text: &[u8]| Bytes::from([&[0, 0, 0, 0, text.len() as u8], text].concat());
        let joined = merge(&Gather::Messages, &[message(b"ab"), message(b"c")]).unwrap();
        assert_eq!(joined, message(b"abc"));
        assert!(merge(&Gather::Messages, &[Bytes::from_static(&[1, 0, 0, 0, 0])]).is_none());
        assert!(merge(&Gather::Union, &[Bytes::from_static(b"<html>")]).is_none());
        assert!(merge(&of("/rows"), &[Bytes::from_static(b"{}")]).is_none());
    }

    #[test]
    fn a_counter_that_fell_is_noticed() {
        assert!(fell(&json!({ "a": { "n": 5 } }), &json!({ "a": { "n": 4 } })));
        assert!(!fell(&json!({ "a": { "n": 5 } }), &json!({ "a": { "n": 5 }, "b": 1 })));
    }
}
