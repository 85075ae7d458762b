//! TensorFlow Serving's JSON: requests in row form (`instances`) and in column form (`inputs`), examples, and answers.
//!
//! `NaN`, `Infinity` and `-Infinity`, which JSON has not, are read and written as TensorFlow Serving does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize as _};
use tonic::Status;

use super::example::{Example, with_context};
use super::gather::Gather;
use super::outputs::Named;
use super::tensors::{Tensor, Values};

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
    use bytes::Bytes;

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
