//! `tf.Example`s: what `Classify` is given instead of tensors, a map of features an image.
//!
//! The feature is `image` (or `image/encoded`, as TensorFlow's own data sets call it), one encoded picture, or the input of
//! numbers under the name that the model has for it. Of an example with a single feature, that one is meant. What all examples have
//! alike may stand in a context.

use std::collections::BTreeMap;

use adit_proto::tensorflow::feature::Kind;
use adit_proto::tensorflow::serving::{Input as InputProto, input};
use adit_proto::tensorflow::{Example as ExampleProto, Feature};
use tonic::Status;

use super::super::upload::image;
use super::ask::pixels;
use super::tensors::{Tensor, Values};
use crate::serving::{Card, IMAGE, Input};

const ENCODED: &str = "image/encoded";

/// Features by their names.
pub(super) type Example = BTreeMap<String, Tensor>;

fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// Reads a message's examples.
pub(super) fn read(input: Option<InputProto>) -> Result<Vec<Example>, Status> {
    let (examples, context) = match input.and_then(|input| input.kind) {
        None => (Vec::new(), None),
        Some(input::Kind::ExampleList(list)) => (list.examples, None),
        Some(input::Kind::ExampleListWithContext(list)) => (list.examples, list.context),
    };
    let context = context.map(features).transpose()?.unwrap_or_default();
    examples.into_iter().map(|example| Ok(with_context(features(example)?, &context))).collect()
}

/// What an example does not say itself, the context says.
pub(super) fn with_context(mut example: Example, context: &Example) -> Example {
    for (name, feature) in context {
        example.entry(name.clone()).or_insert_with(|| feature.clone());
    }
    example
}

fn features(example: ExampleProto) -> Result<Example, Status> {
    let features = example.features.into_iter().flat_map(|features| features.feature);
    features.map(|(name, value)| Ok((name, feature(value)?))).collect()
}

fn feature(feature: Feature) -> Result<Tensor, Status> {
    Ok(match feature.kind {
        Some(Kind::BytesList(list)) => Tensor { shape: vec![list.value.len()], values: Values::Strings(list.value) },
        Some(Kind::FloatList(list)) => Tensor { shape: vec![list.value.len()], values: Values::Floats(list.value) },
        Some(Kind::Int64List(_)) => return Err(invalid("a feature of whole numbers is nothing that a model takes")),
        None => Tensor { shape: vec![0], values: Values::Floats(Vec::new()) },
    })
}

/// What the network is to look at: an image an example.
pub(super) fn input(examples: Vec<Example>, card: &Card) -> Result<Input, Status> {
    // As TensorFlow says it.
    if examples.is_empty() {
        return Err(invalid("Input is empty."));
    }
    let count = examples.len();
    let (mut images, mut numbers) = (Vec::new(), Vec::new());
    for (index, example) in examples.into_iter().enumerate() {
        let wrong = |message: &str| invalid(format!("example {index}: {message}"));
        let feature = pick(example, card)
            .ok_or_else(|| wrong(&format!("expected one feature, `{IMAGE}` or `{}`", card.signature.input())))?;
        match feature.values {
            Values::Strings(strings) => match &strings[..] {
                [one] => images.push(image(one)),
                _ => return Err(wrong("expected one encoded picture")),
            },
            Values::Floats(floats) if floats.len() == card.shape.elements() => numbers.extend(floats),
            Values::Floats(floats) => {
                let each = card.shape.elements();
                return Err(wrong(&format!("{} numbers, expected {each}", floats.len())));
            }
            Values::Bytes(_) => return Err(wrong("expected an encoded picture or numbers")),
        }
    }
    match (images.len(), numbers.is_empty()) {
        (all, true) if all == count => Ok(Input::Images(images)),
        (0, false) => {
            pixels(Tensor { shape: vec![count, card.shape.elements()], values: Values::Floats(numbers) }, card)
        }
        _ => Err(invalid("some examples are encoded pictures and some are numbers: ask for them one after the other")),
    }
}

fn pick(mut example: Example, card: &Card) -> Option<Tensor> {
    for name in [IMAGE, ENCODED, card.signature.input()] {
        if let Some(feature) = example.remove(name) {
            return Some(feature);
        }
    }
    if example.len() == 1 { example.pop_first().map(|(_, feature)| feature) } else { None }
}
