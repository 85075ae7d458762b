//! TensorFlow Serving's JSON: requests in row form (`instances`) and in column form (`inputs`), examples, and answers.
//!
//! Tensors are nested lists. They are gathered into one row of numbers while the text is read, so that a body takes no more memory
//! than its numbers. `{"b64": "..."}` is a string of bytes. `NaN`, `Infinity` and `-Infinity`, which JSON has not, are read and
//! written as TensorFlow Serving does.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize as _};
use tonic::Status;

use super::example::{Example, with_context};
use super::outputs::Named;
use super::tensors::{Tensor, Values};

/// Lists within lists.
const MAX_RANK: usize = 8;

/// Strings of one request: a model takes far fewer images.
const MAX_STRINGS: usize = 1 << 16;

/// How predictions are to be told: as the question was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `instances`: an element an image.
    Rows,
    /// `inputs`: an element a tensor.
    Columns,
}

/// The body of `:predict`.
#[derive(Debug, PartialEq)]
pub(super) struct Predict {
    /// Empty for the default one.
    pub(super) signature: String,
    pub(super) format: Format,
    /// What the request calls its input, if it does.
    pub(super) name: Option<String>,
    pub(super) tensor: Tensor,
}

/// The body of `:classify` and `:regress`.
#[derive(Debug)]
pub(super) struct Classify {
    /// Empty for the default one.
    pub(super) signature: String,
    pub(super) examples: Vec<Example>,
}

fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// Reads the body of `:predict`.
pub(super) fn predict(text: &[u8]) -> Result<Predict, Status> {
    #[derive(Deserialize)]
    struct Written {
        signature_name: Option<String>,
        instances: Option<Gather<true>>,
        inputs: Option<Gather<false>>,
    }
    let (Written { signature_name, instances, inputs }, tokens) = parse(text)?;
    let signature = signature_name.unwrap_or_default();
    let (format, (name, tensor)) = match (instances, inputs) {
        (Some(rows), None) => (Format::Rows, rows.finish(tokens)?),
        (None, Some(columns)) => (Format::Columns, columns.finish(tokens)?),
        _ => return Err(invalid("the request has either `instances` or `inputs`")),
    };
    Ok(Predict { signature, format, name, tensor })
}

/// Reads the body of `:classify`.
pub(super) fn classify(text: &[u8]) -> Result<Classify, Status> {
    type Features = std::collections::BTreeMap<String, Gather<false, false>>;
    #[derive(Deserialize)]
    struct Written {
        signature_name: Option<String>,
        #[serde(default)]
        context: Features,
        #[serde(default)]
        examples: Vec<Features>,
    }
    let (Written { signature_name, context, examples }, tokens) = parse(text)?;
    let read = |features: Features| -> Result<Example, Status> {
        let feature = |(name, feature): (String, Gather<false, false>)| {
            let (_, Tensor { values, .. }) = feature.finish(tokens)?;
            let count = match &values {
                Values::Floats(floats) => floats.len(),
                Values::Strings(strings) => strings.len(),
                Values::Bytes(bytes) => bytes.len(),
            };
            Ok((name, Tensor { shape: vec![count], values }))
        };
        features.into_iter().map(feature).collect()
    };
    let context = read(context)?;
    let examples = examples.into_iter().map(|example| Ok(with_context(read(example)?, &context)));
    Ok(Classify { signature: signature_name.unwrap_or_default(), examples: examples.collect::<Result<_, Status>>()? })
}

/// Reads a text, and whether it has numbers that JSON has not: then `null` stands for one that is none.
fn parse<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<(T, bool), Status> {
    let error = match serde_json::from_slice(text) {
        Ok(read) => return Ok((read, false)),
        Err(error) => error,
    };
    // Looked for only where the text is no JSON: hardly anybody sends them.
    let read = spelled_out(text).and_then(|text| serde_json::from_slice(&text).ok());
    read.map(|read| (read, true)).ok_or_else(|| invalid(format!("JSON Parse Error: {error}")))
}

/// The text with its numbers that JSON has not put into JSON: not a number as null, an infinite one as one beyond what a tensor
/// holds. Nothing where there are none.
fn spelled_out(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest, mut found) = (Vec::with_capacity(text.len()), text, false);
    let mut quoted = false;
    while let Some((first, after)) = rest.split_first() {
        if quoted {
            // What is escaped ends no string.
            let length = if *first == b'\\' { rest.len().min(2) } else { 1 };
            quoted = *first != b'"';
            out.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        let token = [(&b"NaN"[..], &b"null"[..]), (b"-Infinity", b"-1e300"), (b"Infinity", b"1e300")];
        if let Some((token, number)) = token.iter().find(|(token, _)| rest.starts_with(token)) {
            found = true;
            out.extend_from_slice(number);
            rest = &rest[token.len()..];
            continue;
        }
        quoted = *first == b'"';
        out.push(*first);
        rest = after;
    }
    found.then_some(out)
}

/// A tensor while it is read. With `ROWS`, the elements of the outermost list may each be an object of one tensor; without, the whole
/// may. Not so without `NAMED`.
#[derive(Debug, Default)]
struct Gather<const ROWS: bool, const NAMED: bool = true> {
    name: Option<String>,
    /// How often it was named.
    named: usize,
    shape: Vec<Option<usize>>,
    rank: Option<usize>,
    floats: Vec<f32>,
    strings: Vec<Bytes>,
    nulls: bool,
}

impl<const ROWS: bool, const NAMED: bool> Gather<ROWS, NAMED> {
    fn leaf<E: de::Error>(&mut self, depth: usize) -> Result<(), E> {
        if *self.rank.get_or_insert(depth) == depth { Ok(()) } else { Err(ragged()) }
    }

    fn string<E: de::Error>(&mut self, depth: usize, bytes: Bytes) -> Result<(), E> {
        if self.strings.len() >= MAX_STRINGS {
            return Err(E::custom(format_args!("more than {MAX_STRINGS} strings")));
        }
        self.strings.push(bytes);
        self.leaf(depth)
    }

    fn finish(self, tokens: bool) -> Result<(Option<String>, Tensor), Status> {
        if self.nulls && !tokens {
            return Err(invalid("null is no number"));
        }
        let shape: Vec<usize> = self.shape.into_iter().map(Option::unwrap_or_default).collect();
        if self.rank.unwrap_or(shape.len()) != shape.len() {
            return Err(invalid(ragged::<serde_json::Error>().to_string()));
        }
        if self.named > 0 && ROWS && shape.first() != Some(&self.named) {
            return Err(invalid("either all of `instances` name their input, or none does"));
        }
        let values = match (self.floats.is_empty(), self.strings.is_empty()) {
            (false, false) => return Err(invalid("a tensor has either numbers or strings")),
            (_, true) => Values::Floats(self.floats),
            (true, false) => Values::Strings(self.strings),
        };
        Ok((self.name, Tensor { shape, values }))
    }
}

fn ragged<E: de::Error>() -> E {
    E::custom("the lists of a tensor differ in their lengths")
}

impl<'de, const ROWS: bool, const NAMED: bool> Deserialize<'de> for Gather<ROWS, NAMED> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut gather = Self::default();
        Node { gather: &mut gather, depth: 0, name: true }.deserialize(from)?;
        Ok(gather)
    }
}

/// One element, within so many lists.
struct Node<'a, const ROWS: bool, const NAMED: bool> {
    gather: &'a mut Gather<ROWS, NAMED>,
    depth: usize,
    /// Whether an object may still name the tensor here.
    name: bool,
}

impl<'de, const ROWS: bool, const NAMED: bool> DeserializeSeed<'de> for Node<'_, ROWS, NAMED> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, const ROWS: bool, const NAMED: bool> Visitor<'de> for Node<'_, ROWS, NAMED> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("numbers, strings, {\"b64\": \"...\"}, or lists of them")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.gather.floats.push(number as f32);
        self.gather.leaf(self.depth)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.gather.nulls = true;
        self.visit_f64(f64::NAN)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.gather.string(self.depth, Bytes::copy_from_slice(text.as_bytes()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { gather, depth, name } = self;
        if depth >= MAX_RANK {
            return Err(de::Error::custom(format_args!("lists within more than {MAX_RANK} lists")));
        }
        if gather.rank.is_some_and(|rank| rank <= depth) {
            return Err(ragged());
        }
        let name = name && ROWS && depth == 0;
        let mut length = 0;
        while list.next_element_seed(Node { gather, depth: depth + 1, name })?.is_some() {
            length += 1;
        }
        if gather.shape.len() <= depth {
            gather.shape.resize(depth + 1, None);
        }
        if *gather.shape[depth].get_or_insert(length) == length { Ok(()) } else { Err(ragged()) }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { gather, depth, name } = self;
        let Some(key) = map.next_key::<String>()? else {
            return Err(de::Error::custom("an object of a tensor is not empty"));
        };
        if key == "b64" {
            let text = map.next_value::<String>()?;
            let bytes = STANDARD.decode(text).map_err(|_| de::Error::custom("`b64` is not base64"))?;
            gather.string(depth, bytes.into())?;
        } else if name && NAMED && depth == usize::from(ROWS) {
            if gather.named > 0 && gather.name.as_ref() != Some(&key) {
                return Err(de::Error::custom("all of `instances` have the same input"));
            }
            gather.named += 1;
            gather.name = Some(key);
            map.next_value_seed(Node { gather, depth, name: false })?;
        } else {
            return Err(de::Error::custom("an object of a tensor is {\"b64\": \"...\"}"));
        }
        if map.next_key::<IgnoredAny>()?.is_some() {
            return Err(de::Error::custom("a request has one input, `image` or the one of numbers"));
        }
        Ok(())
    }
}

/// The answer to `:predict`. A single output goes without its name.
pub(super) fn predictions(outputs: &[Named], format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    match format {
        Format::Rows => {
            let rows = outputs.first().and_then(|(_, tensor)| tensor.shape.first()).copied().unwrap_or(0);
            out.extend_from_slice(b"{\"predictions\":");
            list(&mut out, 0..rows, |out, row| named(out, outputs, Some(row)));
        }
        Format::Columns => {
            out.extend_from_slice(b"{\"outputs\":");
            named(&mut out, outputs, None);
        }
    }
    out.push(b'}');
    out
}

/// The answer to `:classify`: of each example, its classes with their scores.
pub(super) fn results<'a, R, C>(examples: R) -> Vec<u8>
where
    R: Iterator<Item = C>,
    C: Iterator<Item = (&'a str, f32)>,
{
    let mut out = b"{\"results\":".to_vec();
    list(&mut out, examples, |out, classes| {
        list(out, classes, |out, (label, score)| {
            out.push(b'[');
            text(out, label);
            out.push(b',');
            number(out, score);
            out.push(b']');
        });
    });
    out.push(b'}');
    out
}

/// All outputs, or of each one row.
fn named(out: &mut Vec<u8>, outputs: &[Named], row: Option<usize>) {
    if let [one] = outputs {
        return tensor(out, one, row);
    }
    out.push(b'{');
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text(out, &output.0);
        out.push(b':');
        tensor(out, output, row);
    }
    out.push(b'}');
}

fn tensor(out: &mut Vec<u8>, (name, tensor): &Named, row: Option<usize>) {
    // How clients of the original know bytes from text.
    let binary = name.ends_with("_bytes");
    let value = |out: &mut Vec<u8>, place: usize| match &tensor.values {
        Values::Floats(floats) => floats.get(place).into_iter().for_each(|value| number(out, *value)),
        Values::Bytes(bytes) => bytes.get(place).into_iter().for_each(|value| number(out, f32::from(*value))),
        Values::Strings(strings) => strings.get(place).into_iter().for_each(|value| {
            if binary {
                out.extend_from_slice(b"{\"b64\":");
                text(out, &STANDARD.encode(value));
                out.push(b'}');
            } else {
                text(out, &String::from_utf8_lossy(value));
            }
        }),
    };
    match row {
        None => nested(out, &tensor.shape, 0, &value),
        Some(row) => {
            let shape = tensor.shape.get(1..).unwrap_or_default();
            nested(out, shape, row * shape.iter().product::<usize>(), &value);
        }
    }
}

fn nested(out: &mut Vec<u8>, shape: &[usize], from: usize, value: &impl Fn(&mut Vec<u8>, usize)) {
    let Some((length, inner)) = shape.split_first() else { return value(out, from) };
    let each = inner.iter().product::<usize>();
    list(out, 0..*length, |out, place| nested(out, inner, from + place * each, value));
}

fn list<T>(out: &mut Vec<u8>, elements: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

fn number(out: &mut Vec<u8>, number: f32) {
    let token: &[u8] = match number {
        _ if number.is_nan() => b"NaN",
        f32::INFINITY => b"Infinity",
        f32::NEG_INFINITY => b"-Infinity",
        // Nothing fails that is written into memory.
        _ => return drop(number.serialize(&mut serde_json::Serializer::new(out))),
    };
    out.extend_from_slice(token);
}

fn text(out: &mut Vec<u8>, text: &str) {
    drop(text.serialize(&mut serde_json::Serializer::new(out)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Format, Option<String>, Vec<usize>, Values), String> {
        let read = predict(text.as_bytes()).map_err(|status| status.message().to_owned())?;
        Ok((read.format, read.name, read.tensor.shape, read.tensor.values))
    }

    #[test]
    fn rows_and_columns_with_and_without_names() {
        let floats = |values: &[f32]| Values::Floats(values.to_vec());
        let x = || Some("x".to_owned());
        let bytes = || Values::Strings(vec![Bytes::from_static(b"\x89PNG")]);
        for (text, expected) in [
            (r#"{"instances":[[1,2.5],[3,-4]]}"#, (Format::Rows, None, vec![2, 2], floats(&[1.0, 2.5, 3.0, -4.0]))),
            (r#"{"instances":[{"x":[1]},{"x":[2]}]}"#, (Format::Rows, x(), vec![2, 1], floats(&[1.0, 2.0]))),
            (r#"{"instances":[{"b64":"iVBORw=="}]}"#, (Format::Rows, None, vec![1], bytes())),
            (r#"{"instances":[{"x":{"b64":"iVBORw=="}}]}"#, (Format::Rows, x(), vec![1], bytes())),
            (r#"{"inputs":[[1,2]]}"#, (Format::Columns, None, vec![1, 2], floats(&[1.0, 2.0]))),
            (r#"{"inputs":{"x":[[1,2]]}}"#, (Format::Columns, x(), vec![1, 2], floats(&[1.0, 2.0]))),
            (r#"{"inputs":{"b64":"iVBORw=="}}"#, (Format::Columns, None, vec![], bytes())),
            (r#"{"other":1,"inputs":7}"#, (Format::Columns, None, vec![], floats(&[7.0]))),
            (r#"{"instances":[]}"#, (Format::Rows, None, vec![0], floats(&[]))),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        let signed = predict(br#"{"signature_name":"serving_images","inputs":[1]}"#).unwrap();
        assert_eq!(signed.signature, "serving_images");
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        let deep = format!("{{\"inputs\":{}1{}}}", "[".repeat(9), "]".repeat(9));
        for (text, because) in [
            ("", "JSON Parse Error: "),
            ("{", "JSON Parse Error: "),
            ("{}", "either `instances` or `inputs`"),
            (r#"{"instances":[1],"inputs":[1]}"#, "either `instances` or `inputs`"),
            (r#"{"instances":[[1],[2,3]]}"#, "differ in their lengths"),
            (r#"{"instances":[[1],2]}"#, "differ in their lengths"),
            (r#"{"instances":[1,[2]]}"#, "differ in their lengths"),
            (r#"{"instances":[[],1]}"#, "differ in their lengths"),
            (r#"{"instances":[1,"a"]}"#, "either numbers or strings"),
            (r#"{"instances":[{"x":1},2]}"#, "either all of `instances` name"),
            (r#"{"instances":[{"x":1},{"y":2}]}"#, "the same input"),
            (r#"{"instances":[{"x":1,"y":2}]}"#, "has one input"),
            (r#"{"instances":[{"x":{"y":2}}]}"#, "an object of a tensor is"),
            (r#"{"instances":[[{"x":2}]]}"#, "an object of a tensor is"),
            (r#"{"instances":[{"b64":"%"}]}"#, "not base64"),
            (r#"{"instances":[{}]}"#, "not empty"),
            (r#"{"instances":[null]}"#, "null is no number"),
            (r#"{"instances":[true]}"#, "JSON Parse Error: "),
            (&deep, "more than 8 lists"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(because), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_that_json_has_not_come_and_go() {
        let (.., values) = read(r#"{"NaN \" Infinity":0,"inputs":[NaN,Infinity,-Infinity,1]}"#).unwrap();
        let Values::Floats(floats) = values else { panic!("numbers") };
        assert!(floats[0].is_nan() && floats[1] == f32::INFINITY && floats[2] == f32::NEG_INFINITY && floats[3] == 1.0);
        assert_eq!(spelled_out(br#"{"inputs":["NaN","\"NaN"]}"#), None);
        let output = Tensor { shape: vec![4], values: Values::Floats(floats) };
        let answer = predictions(&[("y".into(), output)], Format::Columns);
        assert_eq!(String::from_utf8(answer).unwrap(), r#"{"outputs":[NaN,Infinity,-Infinity,1.0]}"#);
    }

    #[test]
    fn answers_are_in_the_form_of_their_question() {
        let floats =
            |shape: &[usize], values: &[f32]| Tensor { shape: shape.into(), values: Values::Floats(values.into()) };
        let strings = Tensor { shape: vec![2], values: Values::Strings(vec!["a\"".into(), "b".into()]) };
        let answer = |outputs: &[Named], format| String::from_utf8(predictions(outputs, format)).unwrap();
        let one = [("y".to_owned(), floats(&[2, 2], &[0.5, 1.0, 0.25, 0.0]))];
        assert_eq!(answer(&one, Format::Rows), r#"{"predictions":[[0.5,1.0],[0.25,0.0]]}"#);
        assert_eq!(answer(&one, Format::Columns), r#"{"outputs":[[0.5,1.0],[0.25,0.0]]}"#);
        let two = [("n".to_owned(), floats(&[2], &[1.0, 2.0])), ("s_bytes".to_owned(), strings.clone())];
        let rows = r#"{"predictions":[{"n":1.0,"s_bytes":{"b64":"YSI="}},{"n":2.0,"s_bytes":{"b64":"Yg=="}}]}"#;
        assert_eq!(answer(&two, Format::Rows), rows);
        let two = [("n".to_owned(), floats(&[2, 0, 4], &[])), ("s".to_owned(), strings)];
        assert_eq!(answer(&two, Format::Columns), r#"{"outputs":{"n":[[],[]],"s":["a\"","b"]}}"#);
        let classes = [vec![("cat", 0.5), ("dog", 0.25)]];
        let text = results(classes.iter().map(|classes| classes.iter().copied()));
        assert_eq!(String::from_utf8(text).unwrap(), r#"{"results":[[["cat",0.5],["dog",0.25]]]}"#);
    }

    #[test]
    fn examples_have_features_and_a_context() {
        let text = br#"{"context":{"a":1},"examples":[{"image":{"b64":"iVBORw=="}},{"a":[2,3]}]}"#;
        let read = classify(text).unwrap();
        assert_eq!(read.examples.len(), 2);
        assert_eq!(read.examples[0]["image"].values, Values::Strings(vec![Bytes::from_static(b"\x89PNG")]));
        assert_eq!(read.examples[0]["a"].values, Values::Floats(vec![1.0]));
        assert_eq!(read.examples[1]["a"], Tensor { shape: vec![2], values: Values::Floats(vec![2.0, 3.0]) });
        assert!(classify(br#"{"examples":[[1]]}"#).is_err());
    }
}
