//! Weights on disk: safetensors files, read whole into memory.
//!
//! Why read and not mapped: a mapped file that is truncated while it is served kills the process with SIGBUS, and
//! mapping needs `unsafe`. Half precision on disk becomes f32 here, because every network computes in f32.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, SafeTensors};

use crate::error::VisionError;

/// The named tensors of one network.
#[derive(Debug)]
pub struct Weights {
    /// For messages: the file, or where else they came from.
    origin: String,
    tensors: Tensors,
}

enum Tensors {
    /// A safetensors file, not yet converted.
    File { bytes: Vec<u8>, start: usize, metadata: Metadata },
    /// Already tensors: weights in training.
    Ready(HashMap<String, Tensor>),
    /// Computed from name and shape when they are asked for.
    Made(Box<Maker>),
}

type Maker = dyn Fn(&str, &[usize]) -> Option<Vec<f32>> + Send + Sync;

impl fmt::Debug for Tensors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { bytes, .. } => write!(formatter, "File({} bytes)", bytes.len()),
            Self::Ready(tensors) => write!(formatter, "Ready({} tensors)", tensors.len()),
            Self::Made(_) => formatter.write_str("Made"),
        }
    }
}

impl Weights {
    /// Reads a safetensors file.
    pub fn read(path: &Path) -> Result<Self, VisionError> {
        let bytes = fs::read(path).map_err(|source| VisionError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(path.display().to_string(), bytes)
    }

    /// Takes the bytes of a safetensors file; `origin` is what messages call them.
    pub fn from_bytes(origin: impl Into<String>, bytes: Vec<u8>) -> Result<Self, VisionError> {
        let origin = origin.into();
        // Checks the header, and that the tensors cover the file exactly: a half-copied file ends here.
        let (header, metadata) = match SafeTensors::read_metadata(&bytes) {
            Ok(parts) => parts,
            Err(source) => return Err(VisionError::CorruptWeights { origin, source }),
        };
        // The tensors begin after the header and the eight bytes that hold its length.
        let start = header + 8;
        Ok(Self { origin, tensors: Tensors::File { bytes, start, metadata } })
    }

    /// Takes tensors as they are: a network in training shares them with its optimiser.
    pub fn from_tensors(origin: impl Into<String>, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        Self { origin: origin.into(), tensors: Tensors::Ready(tensors.into_iter().collect()) }
    }

    /// Weights that `maker` computes from a tensor's name and shape, row-major; a name for which it gives nothing is
    /// missing. With them a network can be measured, or held against another program's, without a file.
    pub fn made_by(
        origin: impl Into<String>,
        maker: impl Fn(&str, &[usize]) -> Option<Vec<f32>> + Send + Sync + 'static,
    ) -> Self {
        Self { origin: origin.into(), tensors: Tensors::Made(Box::new(maker)) }
    }

    /// Bytes that all tensors take once they are f32, as every network holds them; 0 where that is not known before a tensor
    /// is asked for.
    pub fn size(&self) -> usize {
        let elements: usize = match &self.tensors {
            Tensors::File { metadata, .. } => {
                metadata.tensors().values().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
            }
            Tensors::Ready(tensors) => tensors.values().map(Tensor::elem_count).sum(),
            Tensors::Made(_) => 0,
        };
        elements * size_of::<f32>()
    }

    /// The tensor of this name as f32 on `device`, which must have exactly this shape.
    pub fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, VisionError> {
        let tensor = match &self.tensors {
            Tensors::Ready(tensors) => tensors.get(name).ok_or_else(|| self.missing(name))?.clone(),
            Tensors::Made(maker) => {
                let values = maker(name, shape).ok_or_else(|| self.missing(name))?;
                Tensor::from_vec(values, shape, &Device::Cpu)?
            }
            Tensors::File { bytes, start, metadata } => self.convert(name, bytes, *start, metadata)?,
        };
        if tensor.dims() != shape {
            return Err(VisionError::TensorShape {
                origin: self.origin.clone(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: tensor.dims().to_vec(),
            });
        }
        Ok(tensor.to_dtype(DType::F32)?.to_device(device)?)
    }

    fn convert(&self, name: &str, bytes: &[u8], start: usize, metadata: &Metadata) -> Result<Tensor, VisionError> {
        let entry = metadata.info(name).ok_or_else(|| self.missing(name))?;
        let kind = match entry.dtype {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            other => {
                return Err(VisionError::TensorType {
                    origin: self.origin.clone(),
                    tensor: name.to_owned(),
                    found: format!("{other:?}").to_lowercase(),
                });
            }
        };
        let (from, to) = entry.data_offsets;
        let content = bytes.get(start + from..start + to).ok_or_else(|| VisionError::CorruptWeights {
            origin: self.origin.clone(),
            source: safetensors::SafeTensorError::InvalidOffset(name.to_owned()),
        })?;
        Ok(Tensor::from_raw_buffer(content, kind, &entry.shape, &Device::Cpu)?)
    }

    fn missing(&self, name: &str) -> VisionError {
        VisionError::MissingTensor { origin: self.origin.clone(), tensor: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::safetensors::save;

    use super::*;

    fn stored() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let half = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap().to_dtype(DType::F16).unwrap();
        let whole = Tensor::new(&[7u32, 8], &Device::Cpu).unwrap();
        save(&HashMap::from([("a.weight", half), ("a.count", whole)]), &path).unwrap();
        (folder, path)
    }

    #[test]
    fn half_precision_becomes_f32() {
        let (_folder, path) = stored();
        let tensor = Weights::read(&path).unwrap().tensor("a.weight", &[2, 2], &Device::Cpu).unwrap();
        assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[1., 2.], [3., 4.]]);
    }

    #[test]
    fn errors_name_the_file_and_the_tensor() {
        let (_folder, path) = stored();
        let weights = Weights::read(&path).unwrap();
        let ask = |name, shape: &[usize]| weights.tensor(name, shape, &Device::Cpu).unwrap_err();
        let missing = ask("b.weight", &[1]).to_string();
        assert!(missing.contains("model.safetensors") && missing.contains("`b.weight`"), "{missing}");
        let shaped = ask("a.weight", &[4]).to_string();
        assert!(shaped.contains("[2, 2]") && shaped.contains("[4]"), "{shaped}");
        let typed = ask("a.count", &[2]).to_string();
        assert!(typed.contains("type u32"), "{typed}");
        let absent = Weights::read(Path::new("/nowhere/model.safetensors")).unwrap_err();
        assert!(matches!(absent, VisionError::Read { .. }));
    }

    #[test]
    fn every_truncation_and_a_flipped_header_are_refused() {
        let (_folder, path) = stored();
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            let result = Weights::from_bytes("half a file", bytes[..length].to_vec());
            assert!(matches!(result, Err(VisionError::CorruptWeights { .. })), "accepted {length} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Weights::from_bytes("a longer file", longer).is_err());
        for position in 0..8 {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x55;
            assert!(Weights::from_bytes("a damaged file", flipped).is_err(), "accepted byte {position} flipped");
        }
    }
}
