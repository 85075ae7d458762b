//! A tensor of JSON, gathered while the text is read.
//!
//! Tensors are nested lists. They become one row of numbers at once, so that a body takes no more memory than its numbers.
//! `{"b64": "..."}` is a string of bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tonic::Status;

use super::tensors::{Tensor, Values};

/// Lists within lists.
const MAX_RANK: usize = 8;

/// Strings of one request: a model takes far fewer images.
const MAX_STRINGS: usize = 1 << 16;

/// A tensor while it is read. With `ROWS`, the elements of the outermost list may each be an object of one tensor; without, the whole
/// may. Not so without `NAMED`.
#[derive(Debug, Default)]
pub(super) struct Gather<const ROWS: bool, const NAMED: bool = true> {
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

    /// The tensor, and what the request calls it; `tokens`: whether `null` stands for a number that is none.
    pub(super) fn finish(self, tokens: bool) -> Result<(Option<String>, Tensor), Status> {
        if self.nulls && !tokens {
            return Err(Status::invalid_argument("null is no number"));
        }
        let shape: Vec<usize> = self.shape.into_iter().map(Option::unwrap_or_default).collect();
        if self.rank.unwrap_or(shape.len()) != shape.len() {
            return Err(Status::invalid_argument(ragged::<serde_json::Error>().to_string()));
        }
        if self.named > 0 && ROWS && shape.first() != Some(&self.named) {
            return Err(Status::invalid_argument("either all of `instances` name their input, or none does"));
        }
        let values = match (self.floats.is_empty(), self.strings.is_empty()) {
            (false, false) => return Err(Status::invalid_argument("a tensor has either numbers or strings")),
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
