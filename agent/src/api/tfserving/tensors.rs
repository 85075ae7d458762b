//! `tensorflow.TensorProto`, to and from.
//!
//! A request's numbers are in `tensor_content`, little-endian one after the other, or in the field of their type, where a single one
//! stands for as many as the shape has. Answers always are in the field of their type: there are clients that read nothing else.

use adit_proto::tensorflow::tensor_shape_proto::Dim;
use adit_proto::tensorflow::{DataType, TensorProto, TensorShapeProto};
use bytes::{Buf as _, Bytes};
use half::{bf16, f16};
use tonic::Status;

/// Lengths of a shape.
const MAX_RANK: usize = 16;

/// A tensor of one of the kinds that models take or give.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) shape: Vec<usize>,
    /// As many as the shape has, row-major.
    pub(super) values: Values,
}

/// What a tensor is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    /// DT_FLOAT, and what can be read as it: DT_DOUBLE, DT_HALF, DT_BFLOAT16.
    Floats(Vec<f32>),
    /// DT_UINT8.
    Bytes(Bytes),
    /// DT_STRING.
    Strings(Vec<Bytes>),
}

fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// How many bytes a tensor takes that says one number and means many, beyond those of its message; nothing for all others.
pub(super) fn grows_to(tensor: &TensorProto) -> Option<usize> {
    let said = tensor.float_val.len() + tensor.double_val.len() + tensor.half_val.len() + tensor.int_val.len();
    if said != 1 || !tensor.tensor_content.is_empty() {
        return None;
    }
    let bytes = shape(tensor).ok()?.iter().try_fold(size_of::<f32>(), |all, length| all.checked_mul(*length));
    Some(bytes.unwrap_or(usize::MAX)).filter(|bytes| *bytes > size_of::<f32>())
}

/// Reads a tensor. What [`grows_to`] says must be looked at before.
pub(super) fn read(mut tensor: TensorProto) -> Result<Tensor, Status> {
    let shape = shape(&tensor)?;
    let count = shape.iter().try_fold(1_usize, |all, length| all.checked_mul(*length));
    let count = count.ok_or_else(|| invalid("a tensor's shape has more elements than there are numbers"))?;
    let content = &std::mem::take(&mut tensor.tensor_content);
    let floats = |width: usize, one: fn(&[u8]) -> f32, typed: Vec<f32>| {
        if content.is_empty() {
            return filled(typed, count).map(Values::Floats);
        }
        whole(content, count, width)?;
        Ok(Values::Floats(content.chunks_exact(width).map(one).collect()))
    };
    // Narrow numbers travel in wide fields: what does not fit is cut, as TensorFlow cuts it.
    let halves = |one: fn(u16) -> f32| tensor.half_val.iter().map(move |bits| one(*bits as u16)).collect::<Vec<_>>();
    let values = match tensor.dtype() {
        DataType::DtFloat => floats(4, |mut bytes| bytes.get_f32_le(), std::mem::take(&mut tensor.float_val))?,
        DataType::DtDouble => {
            let typed = tensor.double_val.iter().map(|number| *number as f32).collect();
            floats(8, |mut bytes| bytes.get_f64_le() as f32, typed)?
        }
        DataType::DtHalf => {
            let one = |bits| f16::from_bits(bits).to_f32();
            floats(2, |mut bytes| f16::from_bits(bytes.get_u16_le()).to_f32(), halves(one))?
        }
        DataType::DtBfloat16 => {
            let one = |bits| bf16::from_bits(bits).to_f32();
            floats(2, |mut bytes| bf16::from_bits(bytes.get_u16_le()).to_f32(), halves(one))?
        }
        DataType::DtUint8 if content.is_empty() => {
            let typed = tensor.int_val.iter().map(|number| *number as u8).collect();
            Values::Bytes(filled::<u8>(typed, count)?.into())
        }
        DataType::DtUint8 => {
            whole(content, count, 1)?;
            Values::Bytes(content.clone())
        }
        DataType::DtString if content.is_empty() => {
            // Not repeated: nobody means one picture many times.
            exact(tensor.string_val.len(), count)?;
            Values::Strings(tensor.string_val)
        }
        DataType::DtString => Values::Strings(strings(content.clone(), count)?),
        other => {
            let message = format!("models take DT_STRING, DT_FLOAT or DT_UINT8, not {}", other.as_str_name());
            return Err(invalid(message));
        }
    };
    Ok(Tensor { shape, values })
}

fn shape(tensor: &TensorProto) -> Result<Vec<usize>, Status> {
    let Some(shape) = &tensor.tensor_shape else { return Ok(Vec::new()) };
    if shape.unknown_rank || shape.dim.len() > MAX_RANK {
        return Err(invalid(format!("a tensor's shape must be known, with at most {MAX_RANK} lengths")));
    }
    let length =
        |dim: &Dim| usize::try_from(dim.size).map_err(|_| invalid(format!("a shape has a length of {}", dim.size)));
    shape.dim.iter().map(length).collect()
}

fn exact(found: usize, count: usize) -> Result<(), Status> {
    if found == count {
        return Ok(());
    }
    Err(invalid(format!("a tensor has {found} values, and its shape {count}")))
}

fn whole(content: &[u8], count: usize, width: usize) -> Result<(), Status> {
    if count.checked_mul(width) == Some(content.len()) {
        return Ok(());
    }
    Err(invalid(format!("tensor_content has {} bytes, and the shape {count} elements of {width}", content.len())))
}

/// As many as the shape has, where one stands for all.
fn filled<T: Copy>(values: Vec<T>, count: usize) -> Result<Vec<T>, Status> {
    match values[..] {
        [one] if count > 1 => Ok(vec![one; count]),
        _ => exact(values.len(), count).map(|()| values),
    }
}

/// Strings as TensorFlow packs them: all of their lengths, then all of their bytes.
fn strings(mut content: Bytes, count: usize) -> Result<Vec<Bytes>, Status> {
    let broken = || invalid(format!("tensor_content does not hold {count} strings"));
    // A length takes a byte at least.
    if count > content.len() {
        return Err(broken());
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        let length = prost::encoding::decode_varint(&mut content).map_err(|_| broken())?;
        lengths.push(usize::try_from(length).map_err(|_| broken())?);
    }
    if lengths.iter().try_fold(0_usize, |all, length| all.checked_add(*length)) != Some(content.len()) {
        return Err(broken());
    }
    Ok(lengths.into_iter().map(|length| content.split_to(length)).collect())
}

/// Writes a tensor, its values in the field of their type.
pub(super) fn write(tensor: Tensor) -> TensorProto {
    let dim = tensor.shape.iter().map(|size| Dim { size: *size as i64, name: String::new() }).collect();
    let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
    let empty = TensorProto { tensor_shape, ..TensorProto::default() };
    match tensor.values {
        Values::Floats(float_val) => TensorProto { dtype: DataType::DtFloat.into(), float_val, ..empty },
        Values::Bytes(bytes) => {
            let int_val = bytes.iter().map(|byte| i32::from(*byte)).collect();
            TensorProto { dtype: DataType::DtUint8.into(), int_val, ..empty }
        }
        Values::Strings(string_val) => TensorProto { dtype: DataType::DtString.into(), string_val, ..empty },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: DataType, shape: &[i64]) -> TensorProto {
        let dim = shape.iter().map(|size| Dim { size: *size, name: String::new() }).collect();
        let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
        TensorProto { dtype: datatype.into(), tensor_shape, ..TensorProto::default() }
    }

    #[test]
    fn content_and_typed_fields_are_the_same_tensor() {
        let expected = Tensor { shape: vec![2, 1], values: Values::Floats(vec![1.5, -2.0]) };
        let packed = |parts: &[&[u8]]| Bytes::from(parts.concat());
        let float = || tensor(DataType::DtFloat, &[2, 1]);
        let double = || tensor(DataType::DtDouble, &[2, 1]);
        let half = || tensor(DataType::DtHalf, &[2, 1]);
        let brain = || tensor(DataType::DtBfloat16, &[2, 1]);
        for proto in [
            TensorProto { float_val: vec![1.5, -2.0], ..float() },
            TensorProto { tensor_content: packed(&[&1.5_f32.to_le_bytes(), &(-2_f32).to_le_bytes()]), ..float() },
            TensorProto { double_val: vec![1.5, -2.0], ..double() },
            TensorProto { tensor_content: packed(&[&1.5_f64.to_le_bytes(), &(-2_f64).to_le_bytes()]), ..double() },
            TensorProto { half_val: vec![0x3e00, 0xc000], ..half() },
            TensorProto { tensor_content: packed(&[&[0, 0x3e, 0, 0xc0]]), ..half() },
            TensorProto { half_val: vec![0x3fc0, 0xc000], ..brain() },
            TensorProto { tensor_content: packed(&[&[0xc0, 0x3f, 0, 0xc0]]), ..brain() },
        ] {
            assert_eq!(grows_to(&proto), None);
            assert_eq!(read(proto.clone()).unwrap(), expected, "{proto:?}");
        }
        let bytes = Tensor { shape: vec![2], values: Values::Bytes(Bytes::from_static(&[7, 255])) };
        let proto = tensor(DataType::DtUint8, &[2]);
        assert_eq!(read(TensorProto { int_val: vec![7, 255], ..proto.clone() }).unwrap(), bytes);
        assert_eq!(read(TensorProto { tensor_content: packed(&[&[7, 255]]), ..proto }).unwrap(), bytes);
        let strings = vec![Bytes::from_static(b"GIF89a"), Bytes::new()];
        let proto = tensor(DataType::DtString, &[2]);
        let expected = Tensor { shape: vec![2], values: Values::Strings(strings.clone()) };
        assert_eq!(read(TensorProto { string_val: strings, ..proto.clone() }).unwrap(), expected);
        assert_eq!(read(TensorProto { tensor_content: packed(&[&[6, 0], b"GIF89a"]), ..proto }).unwrap(), expected);
        assert_eq!(read(write(expected.clone())).unwrap(), expected);
        assert_eq!(read(write(bytes.clone())).unwrap(), bytes);
    }

    #[test]
    fn one_value_stands_for_all_and_says_how_many() {
        let proto = TensorProto { float_val: vec![0.5], ..tensor(DataType::DtFloat, &[2, 3]) };
        assert_eq!(grows_to(&proto), Some(24));
        assert_eq!(read(proto).unwrap().values, Values::Floats(vec![0.5; 6]));
        let huge = TensorProto { int_val: vec![1], ..tensor(DataType::DtUint8, &[i64::MAX, i64::MAX]) };
        assert_eq!(grows_to(&huge), Some(usize::MAX));
        assert!(read(huge).is_err());
        let one = TensorProto { float_val: vec![0.5], ..TensorProto::default() };
        assert_eq!(grows_to(&one), None, "a scalar is one");
    }

    #[test]
    fn what_does_not_agree_is_refused() {
        let content = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let strings = tensor(DataType::DtString, &[2]);
        for (proto, because) in [
            (TensorProto { float_val: vec![1.0; 3], ..tensor(DataType::DtFloat, &[2]) }, "3 values, and its shape 2"),
            (tensor(DataType::DtFloat, &[2]), "0 values"),
            (TensorProto { tensor_content: content(b"abc"), ..tensor(DataType::DtFloat, &[1]) }, "has 3 bytes"),
            (tensor(DataType::DtFloat, &[-1]), "a length of -1"),
            (tensor(DataType::DtInt64, &[1]), "not DT_INT64"),
            (TensorProto { dtype: 99, ..TensorProto::default() }, "not DT_INVALID"),
            (TensorProto { tensor_content: content(b"\x09\x01abc"), ..strings.clone() }, "does not hold 2 strings"),
            (TensorProto { tensor_content: content(b"\xff"), ..strings.clone() }, "does not hold 2 strings"),
            (TensorProto { string_val: vec![content(b"a")], ..strings }, "1 values, and its shape 2"),
        ] {
            let error = read(proto).unwrap_err();
            assert!(error.message().contains(because), "{error}");
        }
    }
}
