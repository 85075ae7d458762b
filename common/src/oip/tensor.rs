//! A tensor whose shape, datatype and data agree, however it travelled.

use bytes::Bytes;

use super::binary;
use super::datatype::Datatype;
use super::error::{OipError, quote};
use super::parameters::Parameters;

/// How many dimensions a shape may have.
pub(super) const MAX_DIMENSIONS: usize = 16;

/// How many elements a BYTES tensor may have: each costs a handle, so that a body of empty texts would grow eightfold.
pub(super) const MAX_ELEMENTS: usize = 65_536;

/// A tensor's data, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorData {
    /// Elements of a fixed size, little endian, back to back.
    Numbers(Bytes),
    /// The elements of a BYTES tensor.
    Elements(Vec<Bytes>),
}

/// A named tensor; a request's input or an answer's output. Its data always has the elements that its shape asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    name: String,
    datatype: Datatype,
    shape: Vec<usize>,
    parameters: Parameters,
    data: TensorData,
}

impl Tensor {
    /// A tensor of fixed-size elements, little endian and row-major.
    pub fn numbers(name: &str, datatype: Datatype, shape: &[usize], data: Bytes) -> Result<Self, OipError> {
        Self::new(name.to_owned(), datatype, shape.to_vec(), Parameters::default(), TensorData::Numbers(data))
    }

    /// An FP32 tensor.
    pub fn floats(name: &str, shape: &[usize], values: &[f32]) -> Result<Self, OipError> {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::numbers(name, Datatype::Fp32, shape, data.into())
    }

    /// A BYTES tensor.
    pub fn bytes(name: &str, shape: &[usize], elements: Vec<Bytes>) -> Result<Self, OipError> {
        let data = TensorData::Elements(elements);
        Self::new(name.to_owned(), Datatype::Bytes, shape.to_vec(), Parameters::default(), data)
    }

    /// A tensor of the bytes that it has behind JSON or in a message of gRPC: elements of BYTES with their lengths before them.
    pub fn raw(
        name: &str,
        datatype: Datatype,
        shape: &[usize],
        parameters: Parameters,
        bytes: Bytes,
    ) -> Result<Self, OipError> {
        let data = binary::read(name, datatype, shape, bytes)?;
        Self::new(name.to_owned(), datatype, shape.to_vec(), parameters, data)
    }

    /// Those bytes.
    pub fn to_raw(&self) -> Result<Bytes, OipError> {
        match &self.data {
            TensorData::Numbers(bytes) => Ok(bytes.clone()),
            elements => binary::write_alone(&self.name, elements),
        }
    }

    pub(super) fn new(
        name: String,
        datatype: Datatype,
        shape: Vec<usize>,
        parameters: Parameters,
        data: TensorData,
    ) -> Result<Self, OipError> {
        let count = elements(&name, datatype, &shape)?;
        let (wanted, found, unit) = match (&data, datatype.size()) {
            (TensorData::Numbers(bytes), Some(size)) => (count.checked_mul(size), bytes.len(), "bytes"),
            (TensorData::Elements(elements), None) => (Some(count), elements.len(), "elements"),
            (TensorData::Numbers(_), None) => return Err(unlike(&name, "of a fixed size", datatype)),
            (TensorData::Elements(_), Some(_)) => return Err(unlike(&name, "BYTES", datatype)),
        };
        let wanted = wanted.ok_or(OipError::Shape { name: quote(&name), limit: TOO_LARGE })?;
        if wanted != found {
            let (wanted, found) = (format!("{wanted} {unit}"), format!("{found}"));
            return Err(OipError::Size { name: quote(&name), wanted, found });
        }
        Ok(Self { name, datatype, shape, parameters, data })
    }

    /// The same tensor with other parameters.
    #[must_use]
    pub fn with_parameters(self, parameters: Parameters) -> Self {
        Self { parameters, ..self }
    }

    /// Its name; empty for the only input of a raw request, which does not say.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its elements are.
    pub const fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What else was said of it.
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Its elements.
    pub const fn data(&self) -> &TensorData {
        &self.data
    }

    /// The elements of a BYTES tensor.
    pub fn to_elements(&self) -> Result<&[Bytes], OipError> {
        match &self.data {
            TensorData::Elements(elements) => Ok(elements),
            TensorData::Numbers(_) => Err(unlike(&self.name, "BYTES", self.datatype)),
        }
    }

    /// The values of an INT64 tensor.
    pub fn to_integers(&self) -> Result<Vec<i64>, OipError> {
        match (&self.data, self.datatype) {
            (TensorData::Numbers(bytes), Datatype::Int64) => {
                let (values, _) = bytes.as_chunks::<8>();
                Ok(values.iter().map(|value| i64::from_le_bytes(*value)).collect())
            }
            _ => Err(unlike(&self.name, "INT64", self.datatype)),
        }
    }

    /// The values of an FP32 tensor.
    pub fn to_floats(&self) -> Result<Vec<f32>, OipError> {
        match (&self.data, self.datatype) {
            (TensorData::Numbers(bytes), Datatype::Fp32) => {
                let (values, _) = bytes.as_chunks::<4>();
                Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
            }
            _ => Err(unlike(&self.name, "FP32", self.datatype)),
        }
    }
}

const TOO_LARGE: &str = "more bytes than this machine can address";

fn unlike(name: &str, wanted: &'static str, found: Datatype) -> OipError {
    OipError::Unlike { name: quote(name), wanted, found: found.name() }
}

/// How many elements a shape has, within the limits.
pub(super) fn elements(name: &str, datatype: Datatype, shape: &[usize]) -> Result<usize, OipError> {
    let beyond = |limit| OipError::Shape { name: quote(name), limit };
    if shape.len() > MAX_DIMENSIONS {
        return Err(beyond("16 dimensions"));
    }
    let product = shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    let count = product.ok_or_else(|| beyond(TOO_LARGE))?;
    if datatype == Datatype::Bytes && count > MAX_ELEMENTS {
        return Err(beyond("65536 elements of datatype BYTES"));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_datatype_and_data_must_agree() {
        let floats = Tensor::floats("p", &[1, 2], &[0.25, -1.5]).unwrap();
        assert_eq!(floats.to_floats().unwrap(), [0.25, -1.5]);
        assert!(floats.to_elements().is_err());
        let error = Tensor::floats("p", &[1, 3], &[0.25, -1.5]).unwrap_err().to_string();
        assert_eq!(error, "tensor \"p\" needs 12 bytes by its shape and datatype, but has 8");
        let error = Tensor::bytes("b", &[2], vec![Bytes::new()]).unwrap_err().to_string();
        assert_eq!(error, "tensor \"b\" needs 2 elements by its shape and datatype, but has 1");
        assert!(Tensor::numbers("b", Datatype::Bytes, &[0], Bytes::new()).is_err());
        assert!(Tensor::numbers("s", Datatype::Int16, &[], Bytes::from_static(&[1, 2])).is_ok());
    }

    #[test]
    fn a_shape_that_overflows_is_an_error_and_no_panic() {
        for shape in [vec![usize::MAX, 2], vec![usize::MAX / 2, 2, 2], vec![1; 17], vec![usize::MAX]] {
            let error = Tensor::numbers("t", Datatype::Fp64, &shape, Bytes::new()).unwrap_err();
            assert!(matches!(error, OipError::Shape { .. }), "{shape:?}: {error}");
        }
        assert!(matches!(Tensor::bytes("b", &[65_537], vec![]), Err(OipError::Shape { .. })));
    }
}
