//! The JSON of messages, and the data of tensors in it.
//!
//! Data is kept as its text until datatype and shape are known, because JSON may name them later; then its numbers go
//! straight into the tensor's bytes. It may be flat or nested: a nested list must have the shape's lengths at every depth.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::datatype::Datatype;
use super::error::{OipError, quote};
use super::parameters::Parameters;
use super::tensor::{Tensor, TensorData, elements};

/// How many inputs or outputs a message may have.
const MAX_TENSORS: usize = 64;

/// A tensor as it is read.
#[derive(Deserialize)]
pub(super) struct TensorText<'a> {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    #[serde(deserialize_with = "bounded")]
    pub(super) shape: Vec<usize>,
    #[serde(default)]
    pub(super) parameters: Parameters,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

/// Reads a list of at most [`MAX_TENSORS`] entries, which is also far beyond any shape.
pub(super) fn bounded<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "a list of at most {MAX_TENSORS} entries")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(entry) = entries.next_element()? {
                if list.len() == MAX_TENSORS {
                    return Err(A::Error::custom(format_args!("a list of more than {MAX_TENSORS} entries")));
                }
                list.push(entry);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(List(PhantomData))
}

/// As [`bounded`], of a list that may be absent or null.
pub(super) fn bounded_option<'de, T, D>(from: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Bounded<T>(Vec<T>);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            bounded(from).map(Self)
        }
    }

    Ok(Option::<Bounded<T>>::deserialize(from)?.map(|list| list.0))
}

/// A tensor's JSON data.
pub(super) fn read(name: &str, datatype: Datatype, shape: &[usize], text: &RawValue) -> Result<TensorData, OipError> {
    let total = elements(name, datatype, shape)?;
    let text = text.get();
    let wrong = |source| OipError::Values { name: quote(name), source };
    if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
        return Err(wrong(<serde_json::Error as serde::de::Error>::custom(format_args!(
            "{datatype} has no JSON form, send binary data"
        ))));
    }
    // A value takes two characters at least: a shape alone cannot make us reserve more than the text pays for.
    let paid = total.min(text.len() / 2 + 1);
    let mut fill = Fill {
        datatype,
        shape,
        total,
        count: 0,
        numbers: Vec::with_capacity(paid * datatype.size().unwrap_or(0)),
        elements: Vec::new(),
    };
    let mut json = serde_json::Deserializer::from_str(text);
    Level { fill: &mut fill, depth: 0 }.deserialize(&mut json).map_err(wrong)?;
    if fill.count != total {
        let (wanted, found) = (format!("{total} values"), fill.count.to_string());
        return Err(OipError::Size { name: quote(name), wanted, found });
    }
    Ok(match datatype {
        Datatype::Bytes => TensorData::Elements(fill.elements),
        _ => TensorData::Numbers(fill.numbers.into()),
    })
}

/// The tensor's data while it is read.
struct Fill<'a> {
    datatype: Datatype,
    shape: &'a [usize],
    total: usize,
    count: usize,
    numbers: Vec<u8>,
    elements: Vec<Bytes>,
}

impl Fill<'_> {
    fn counted<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.count == self.total {
            return Err(E::custom(format_args!("more than the {} values of its shape", self.total)));
        }
        self.count += 1;
        Ok(())
    }

    fn whole<E: serde::de::Error>(&mut self, value: i128) -> Result<(), E> {
        self.counted()?;
        macro_rules! put {
            ($kind:ty) => {
                <$kind>::try_from(value).ok().map(|value| self.numbers.extend_from_slice(&value.to_le_bytes()))
            };
        }
        let put = match self.datatype {
            Datatype::Uint8 => put!(u8),
            Datatype::Uint16 => put!(u16),
            Datatype::Uint32 => put!(u32),
            Datatype::Uint64 => put!(u64),
            Datatype::Int8 => put!(i8),
            Datatype::Int16 => put!(i16),
            Datatype::Int32 => put!(i32),
            Datatype::Int64 => put!(i64),
            Datatype::Fp32 => {
                self.numbers.extend_from_slice(&(value as f32).to_le_bytes());
                Some(())
            }
            Datatype::Fp64 => {
                self.numbers.extend_from_slice(&(value as f64).to_le_bytes());
                Some(())
            }
            Datatype::Bool | Datatype::Bytes | Datatype::Fp16 | Datatype::Bf16 => None,
        };
        put.ok_or_else(|| E::custom(format_args!("{value} is no value of {}", self.datatype)))
    }

    fn fraction<E: serde::de::Error>(&mut self, value: f64) -> Result<(), E> {
        self.counted()?;
        match self.datatype {
            Datatype::Fp32 if (value as f32).is_finite() => {
                self.numbers.extend_from_slice(&(value as f32).to_le_bytes());
            }
            Datatype::Fp64 => self.numbers.extend_from_slice(&value.to_le_bytes()),
            _ => return Err(E::custom(format_args!("{value} is no value of {}", self.datatype))),
        }
        Ok(())
    }

    fn truth<E: serde::de::Error>(&mut self, value: bool) -> Result<(), E> {
        self.counted()?;
        if self.datatype != Datatype::Bool {
            return Err(E::custom(format_args!("{value} is no value of {}", self.datatype)));
        }
        self.numbers.push(u8::from(value));
        Ok(())
    }

    fn text<E: serde::de::Error>(&mut self, value: Bytes) -> Result<(), E> {
        self.counted()?;
        if self.datatype != Datatype::Bytes {
            return Err(E::custom(format_args!("a text is no value of {}", self.datatype)));
        }
        self.elements.push(value);
        Ok(())
    }
}

/// What was read at one depth: a list, or a value in one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Value,
}

/// Reads a list of data, or a value in one, at a depth of nesting.
struct Level<'a, 'b> {
    fill: &'b mut Fill<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = Kind;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Kind, D::Error> {
        if self.depth == 0 { from.deserialize_seq(self) } else { from.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = Kind;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of {} values", if self.depth == 0 { "a list" } else { "lists" }, self.fill.datatype)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Kind, E> {
        self.fill.truth(value).map(|()| Kind::Value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Kind, E> {
        self.fill.whole(value.into()).map(|()| Kind::Value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Kind, E> {
        self.fill.whole(value.into()).map(|()| Kind::Value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Kind, E> {
        self.fill.fraction(value).map(|()| Kind::Value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Kind, E> {
        self.fill.text(Bytes::copy_from_slice(value.as_bytes())).map(|()| Kind::Value)
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Kind, E> {
        self.fill.text(value.into()).map(|()| Kind::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let Self { fill, depth } = self;
        // A flat list may stand for any shape; its length is checked as the total.
        let wanted = if depth < fill.shape.len() { fill.shape[depth] } else { usize::MAX };
        if depth > 0 && depth >= fill.shape.len() {
            return Err(A::Error::custom("lists nested deeper than the shape"));
        }
        let (mut count, mut kind) = (0_usize, None);
        while let Some(next) = entries.next_element_seed(Level { fill: &mut *fill, depth: depth + 1 })? {
            if *kind.get_or_insert(next) != next {
                return Err(A::Error::custom("lists and values side by side"));
            }
            count += 1;
        }
        let flat = depth == 0 && kind != Some(Kind::List);
        let innermost = depth + 1 == fill.shape.len();
        if !flat && (count != wanted || (kind == Some(Kind::Value) && !innermost)) {
            return Err(A::Error::custom(format_args!("a list of {count} at depth {depth} is not in the shape")));
        }
        Ok(Kind::List)
    }
}

/// A tensor's data as a flat JSON list.
pub(super) struct DataText<'a>(pub(super) &'a Tensor);

impl Serialize for DataText<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let refuse =
            |why: &str| S::Error::custom(format_args!("output {:?} {why}, ask for binary data", self.0.name()));
        let numbers = match self.0.data() {
            TensorData::Numbers(numbers) => numbers,
            TensorData::Elements(elements) => {
                let mut list = to.serialize_seq(Some(elements.len()))?;
                for element in elements {
                    let text = std::str::from_utf8(element).map_err(|_| refuse("has an element that is no text"))?;
                    list.serialize_element(text)?;
                }
                return list.end();
            }
        };
        macro_rules! list {
            ($kind:ty) => {{
                let (values, _) = numbers.as_chunks::<{ size_of::<$kind>() }>();
                to.collect_seq(values.iter().map(|value| <$kind>::from_le_bytes(*value)))
            }};
            (finite $kind:ty) => {{
                let (values, _) = numbers.as_chunks::<{ size_of::<$kind>() }>();
                let values = values.iter().map(|value| <$kind>::from_le_bytes(*value));
                if !values.clone().all(<$kind>::is_finite) {
                    return Err(refuse("has a value that is not finite"));
                }
                to.collect_seq(values)
            }};
        }
        match self.0.datatype() {
            Datatype::Bool => to.collect_seq(numbers.iter().map(|value| *value != 0)),
            Datatype::Uint8 => list!(u8),
            Datatype::Uint16 => list!(u16),
            Datatype::Uint32 => list!(u32),
            Datatype::Uint64 => list!(u64),
            Datatype::Int8 => list!(i8),
            Datatype::Int16 => list!(i16),
            Datatype::Int32 => list!(i32),
            Datatype::Int64 => list!(i64),
            Datatype::Fp32 => list!(finite f32),
            Datatype::Fp64 => list!(finite f64),
            // BYTES never holds numbers; the other two have no JSON form.
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => Err(refuse("has no JSON form")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(datatype: Datatype, shape: &[usize], text: &str) -> Result<TensorData, String> {
        let text: &RawValue = serde_json::from_str(text).unwrap();
        read("t", datatype, shape, text).map_err(|error| error.to_string())
    }

    fn numbers(datatype: Datatype, shape: &[usize], text: &str) -> Vec<u8> {
        match parse(datatype, shape, text).unwrap() {
            TensorData::Numbers(bytes) => bytes.to_vec(),
            TensorData::Elements(elements) => panic!("{elements:?}"),
        }
    }

    #[test]
    fn nested_and_flat_lists_are_the_same_tensor() {
        let flat = numbers(Datatype::Int16, &[2, 2], "[1, -2, 3, 4]");
        assert_eq!(flat, [1, 0, 0xfe, 0xff, 3, 0, 4, 0]);
        assert_eq!(numbers(Datatype::Int16, &[2, 2], "[[1, -2], [3, 4]]"), flat);
        assert_eq!(numbers(Datatype::Fp32, &[1], "[1]"), 1.0_f32.to_le_bytes());
        assert_eq!(numbers(Datatype::Bool, &[2], "[true,false]"), [1, 0]);
        assert_eq!(numbers(Datatype::Uint8, &[0], "[]"), [0_u8; 0]);
        assert_eq!(numbers(Datatype::Uint8, &[2, 0], "[[],[]]"), [0_u8; 0]);
        let texts = TensorData::Elements(vec!["é".into(), "b\n".into()]);
        assert_eq!(parse(Datatype::Bytes, &[2, 1], r#"[["é"],["b\n"]]"#).unwrap(), texts);
    }

    #[test]
    fn lists_that_are_not_in_the_shape_are_refused() {
        for (shape, text) in [
            (&[2, 2][..], "[1,2,3]"),
            (&[2, 2], "[1,2,3,4,5]"),
            (&[2, 2], "[[1,2,3],[4]]"),
            (&[2, 2], "[[1,2,3,4]]"),
            (&[2, 2], "[[1,2],3,4]"),
            (&[2, 2], "[[[1],[2]],[[3],[4]]]"),
            (&[2, 1, 2], "[[1,2],[3,4]]"),
            (&[4], "{\"a\":1}"),
            (&[1], "5"),
            (&[1], "[[5]]"),
            (&[1], "[null]"),
            (&[0], "[1]"),
        ] {
            assert!(parse(Datatype::Int32, shape, text).is_err(), "{shape:?} {text}");
        }
    }

    #[test]
    fn values_must_be_of_the_datatype() {
        assert!(parse(Datatype::Uint8, &[1], "[256]").unwrap_err().contains("256 is no value of UINT8"));
        for (datatype, text) in [
            (Datatype::Uint8, "[-1]"),
            (Datatype::Int32, "[1.5]"),
            (Datatype::Fp32, "[1e300]"),
            (Datatype::Fp32, "[\"1\"]"),
            (Datatype::Bytes, "[1]"),
            (Datatype::Bool, "[1]"),
            (Datatype::Uint64, "[18446744073709551616]"),
        ] {
            assert!(parse(datatype, &[1], text).is_err(), "{datatype} {text}");
        }
        assert!(parse(Datatype::Fp16, &[1], "[1]").unwrap_err().contains("send binary data"));
        assert_eq!(numbers(Datatype::Uint64, &[1], "[18446744073709551615]"), [0xff; 8]);
    }

    #[test]
    fn what_json_cannot_carry_is_refused_and_not_changed() {
        let write = |tensor: &Tensor| serde_json::to_string(&DataText(tensor)).map_err(|error| error.to_string());
        assert_eq!(write(&Tensor::floats("p", &[2], &[0.1, 1e-9]).unwrap()).unwrap(), "[0.1,1e-9]");
        let error = write(&Tensor::floats("p", &[1], &[f32::NAN]).unwrap()).unwrap_err();
        assert!(error.contains("\"p\" has a value that is not finite, ask for binary data"), "{error}");
        assert!(write(&Tensor::bytes("b", &[1], vec![Bytes::from_static(&[0xff])]).unwrap()).is_err());
    }
}
