//! Weights on disk: safetensors files, read tensor by tensor as layers ask for them.
//!
//! Why not whole: the file would lie in memory beside its tensors, and they beside what kernels make of them. Why read and not mapped: a
//! mapped file that is truncated while it is served kills the process with SIGBUS, and mapping needs `unsafe`. Half precision on
//! disk becomes f32 here, because every network computes in f32.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use flate2::Crc;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView};

use crate::error::VisionError;

/// Bytes that hold the length of a header.
const LENGTH: usize = 8;

/// As long as a header may be by the format: a longer one is refused without having been read.
const LONGEST_HEADER: usize = 100_000_000;

/// Bytes of a file that are read at a time: whole numbers.
const PART: usize = 1 << 16;

/// The named tensors of one network.
#[derive(Debug)]
pub struct Weights {
    /// For messages: the file, or where else they came from.
    origin: String,
    tensors: Tensors,
}

enum Tensors {
    /// A safetensors file, not yet converted; its tensors begin at `start`.
    File { content: Content, start: usize, metadata: Metadata },
    /// Already tensors: weights in training.
    Ready(HashMap<String, Tensor>),
    /// Computed from name and shape when they are asked for.
    Made(Box<Maker>),
}

/// The bytes of a file.
enum Content {
    Bytes(Vec<u8>),
    /// Where they are read when they are asked for. A file that was changed since it was opened is refused.
    Disk {
        file: File,
        path: PathBuf,
        stamp: Stamp,
    },
}

/// Length and time of the last change of a file, in seconds and nanoseconds.
type Stamp = (u64, i64, i64);

type Maker = dyn Fn(&str, &[usize]) -> Option<Vec<f32>> + Send + Sync;

impl fmt::Debug for Tensors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { content, .. } => write!(formatter, "File({} bytes)", content.len()),
            Self::Ready(tensors) => write!(formatter, "Ready({} tensors)", tensors.len()),
            Self::Made(_) => formatter.write_str("Made"),
        }
    }
}

impl Weights {
    /// Opens a safetensors file and reads its header; tensors are read as they are asked for.
    pub fn read(path: &Path) -> Result<Self, VisionError> {
        let unread = |source| VisionError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unread)?;
        let stamp = stamp(&file).map_err(unread)?;
        let origin = path.display().to_string();
        let mut bytes = Vec::new();
        file.by_ref().take(LENGTH as u64).read_to_end(&mut bytes).map_err(unread)?;
        let start = after_header(&origin, &bytes, stamp.0)?;
        file.by_ref().take((start - LENGTH) as u64).read_to_end(&mut bytes).map_err(unread)?;
        let metadata = checked(&origin, &bytes[LENGTH..], start, stamp.0)?;
        let content = Content::Disk { file, path: path.to_owned(), stamp };
        Ok(Self { origin, tensors: Tensors::File { content, start, metadata } })
    }

    /// Takes the bytes of a safetensors file; `origin` is what messages call them.
    pub fn from_bytes(origin: impl Into<String>, bytes: Vec<u8>) -> Result<Self, VisionError> {
        let origin = origin.into();
        let length = bytes.len() as u64;
        let start = after_header(&origin, &bytes, length)?;
        let metadata = checked(&origin, &bytes[LENGTH..start], start, length)?;
        Ok(Self { origin, tensors: Tensors::File { content: Content::Bytes(bytes), start, metadata } })
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

    /// Bytes that all tensors take as f32; 0 where that is not known before a tensor is asked for.
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
            Tensors::File { content, start, metadata } => {
                let entry = metadata.info(name).ok_or_else(|| self.missing(name))?;
                // Before it is read: a file may say that a tensor is larger than there is memory.
                self.shaped(name, shape, &entry.shape)?;
                self.convert(name, content, *start, entry)?
            }
        };
        self.shaped(name, shape, tensor.dims())?;
        Ok(tensor.to_dtype(DType::F32)?.to_device(device)?)
    }

    /// The first dimension of the tensor of this name: a layer's outputs. Nothing when there is no such tensor, or when it
    /// has no dimensions, is empty, or is made for whatever shape it is asked for.
    pub(crate) fn outputs(&self, name: &str) -> Option<usize> {
        let outputs = match &self.tensors {
            Tensors::Ready(tensors) => tensors.get(name)?.dims().first().copied(),
            Tensors::Made(_) => None,
            Tensors::File { metadata, .. } => metadata.info(name)?.shape.first().copied(),
        };
        outputs.filter(|outputs| *outputs > 0)
    }

    /// CRC-32 of the file; 0 where there is none.
    pub(crate) fn checksum(&self) -> Result<u32, VisionError> {
        let mut sum = Crc::new();
        if let Tensors::File { content, .. } = &self.tensors {
            for start in (0..content.len()).step_by(PART) {
                sum.update(&content.part(start..content.len().min(start + PART))?);
            }
        }
        Ok(sum.sum())
    }

    /// The bytes of a safetensors file with these weights as they are stored, but other tensors, as f32, in place of those
    /// of the same names. Only weights that came from a file can be stored again.
    pub(crate) fn with(&self, others: &[(String, Tensor)]) -> Result<Vec<u8>, VisionError> {
        let Tensors::File { content: stored, start, metadata } = &self.tensors else {
            return Err(VisionError::Training(format!("{} are in no file that could be stored again", self.origin)));
        };
        let corrupt = |source| VisionError::CorruptWeights { origin: self.origin.clone(), source };
        let bytes = stored.part(0..stored.len())?;
        let mut contents = Vec::new();
        for (name, tensor) in others {
            contents.push((name.as_str(), tensor.dims(), f32_bytes(tensor)?));
        }
        let mut views = Vec::new();
        for (name, shape, content) in &contents {
            views.push(((*name).to_owned(), TensorView::new(Dtype::F32, shape.to_vec(), content).map_err(corrupt)?));
        }
        for (name, entry) in metadata.tensors() {
            if others.iter().any(|(other, _)| *other == name) {
                continue;
            }
            let (from, to) = entry.data_offsets;
            let content = bytes.get(start + from..start + to).unwrap_or_default();
            views.push((name, TensorView::new(entry.dtype, entry.shape.clone(), content).map_err(corrupt)?));
        }
        safetensors::serialize(views, metadata.metadata().clone()).map_err(corrupt)
    }

    /// Refuses weights that hold more than what was `read`: they are another network's. Whole numbers, such as a norm's
    /// count of batches, are no weights; nor is a `mask_token`, which was of use in training alone.
    pub(crate) fn all_read(&self, read: &HashSet<String>) -> Result<(), VisionError> {
        let unread = |name: &&String| !read.contains(*name) && *name != "mask_token";
        let extra = match &self.tensors {
            Tensors::File { metadata, .. } => {
                let tensors = metadata.tensors();
                let weights =
                    tensors.iter().filter(|(_, entry)| matches!(entry.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32));
                weights.map(|(name, _)| name).filter(unread).min().cloned()
            }
            Tensors::Ready(tensors) => tensors.keys().filter(unread).min().cloned(),
            Tensors::Made(_) => None,
        };
        match extra {
            Some(tensor) => Err(VisionError::ExtraTensor { origin: self.origin.clone(), tensor }),
            None => Ok(()),
        }
    }

    fn convert(&self, name: &str, file: &Content, start: usize, entry: &TensorInfo) -> Result<Tensor, VisionError> {
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
        let (from, to) = (start + from, start + to);
        if kind != DType::F32 {
            return Ok(Tensor::from_raw_buffer(&file.part(from..to)?, kind, &entry.shape, &Device::Cpu)?);
        }
        // A little at a time, so that its bytes do not take as much again.
        let mut numbers = Vec::with_capacity((to - from) / size_of::<f32>());
        for start in (from..to).step_by(PART) {
            let bytes = file.part(start..to.min(start + PART))?;
            numbers.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        Ok(Tensor::from_vec(numbers, entry.shape.as_slice(), &Device::Cpu)?)
    }

    fn shaped(&self, name: &str, expected: &[usize], found: &[usize]) -> Result<(), VisionError> {
        if found == expected {
            return Ok(());
        }
        Err(VisionError::TensorShape {
            origin: self.origin.clone(),
            tensor: name.to_owned(),
            expected: expected.to_vec(),
            found: found.to_vec(),
        })
    }

    fn missing(&self, name: &str) -> VisionError {
        VisionError::MissingTensor { origin: self.origin.clone(), tensor: name.to_owned() }
    }
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            // It was found to fit when it was opened.
            Self::Disk { stamp, .. } => stamp.0 as usize,
        }
    }

    /// Some of the bytes, which the header has found to be there.
    fn part(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>, VisionError> {
        let (file, path, opened) = match self {
            Self::Bytes(bytes) => return Ok(Cow::Borrowed(bytes.get(range).unwrap_or_default())),
            Self::Disk { file, path, stamp } => (file, path, stamp),
        };
        let read = || {
            let mut bytes = vec![0; range.len()];
            file.read_exact_at(&mut bytes, range.start as u64)?;
            match stamp(file)? == *opened {
                true => Ok(Cow::Owned(bytes)),
                false => Err(io::Error::other("it was changed while it was read")),
            }
        };
        read().map_err(|source| VisionError::Read { path: path.clone(), source })
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let about = file.metadata()?;
    Ok((about.len(), about.mtime(), about.mtime_nsec()))
}

/// Where the tensors begin in a safetensors file of `length` bytes: after the length of its header, with which `bytes` begin, and the
/// header. What the file says of its length is held against its own before a byte of memory is taken for it.
fn after_header(origin: &str, bytes: &[u8], length: u64) -> Result<usize, VisionError> {
    let corrupt = |source| VisionError::CorruptWeights { origin: origin.to_owned(), source };
    let header = bytes.first_chunk().ok_or_else(|| corrupt(SafeTensorError::HeaderTooSmall))?;
    let header = usize::try_from(u64::from_le_bytes(*header)).unwrap_or(usize::MAX);
    if header > LONGEST_HEADER {
        return Err(corrupt(SafeTensorError::HeaderTooLarge));
    }
    match header + LENGTH {
        start if start as u64 <= length => Ok(start),
        _ => Err(corrupt(SafeTensorError::InvalidHeaderLength)),
    }
}

/// What the tensors are of a safetensors file of `length` bytes with this header, which ends at `start`. Checks that they follow one
/// another, are as long as their shapes say, and cover the file exactly: a half-copied file ends here.
fn checked(origin: &str, header: &[u8], start: usize, length: u64) -> Result<Metadata, VisionError> {
    let corrupt = |source| VisionError::CorruptWeights { origin: origin.to_owned(), source };
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|error| corrupt(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    match start.checked_add(metadata.data_len()) {
        Some(end) if end as u64 == length => Ok(metadata),
        _ => Err(corrupt(SafeTensorError::MetadataIncompleteBuffer)),
    }
}

/// A tensor's elements as f32, row-major, in the byte order of a safetensors file.
pub(crate) fn f32_bytes(tensor: &Tensor) -> Result<Vec<u8>, VisionError> {
    let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use candle_core::safetensors::save;
    use safetensors::SafeTensors;

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
    fn other_tensors_are_put_in_place_and_the_rest_stays_as_it_is_stored() {
        let (_folder, path) = stored();
        let weights = Weights::read(&path).unwrap();
        assert_eq!((weights.outputs("a.weight"), weights.outputs("b.weight")), (Some(2), None));
        let other = Tensor::new(&[0.1f32, 0.2, 0.3], &Device::Cpu).unwrap();
        let bytes = weights.with(&[("a.weight".to_owned(), other.clone())]).unwrap();
        let before = fs::read(&path).unwrap();
        let (before, after) = (SafeTensors::deserialize(&before).unwrap(), SafeTensors::deserialize(&bytes).unwrap());
        assert_eq!(before.tensor("a.count").unwrap(), after.tensor("a.count").unwrap());
        assert_eq!(after.names().len(), 2);
        let read = Weights::from_bytes("again", bytes.clone()).unwrap().tensor("a.weight", &[3], &Device::Cpu).unwrap();
        assert_eq!(read.to_vec1::<f32>().unwrap(), other.to_vec1::<f32>().unwrap());
        assert!(Weights::from_tensors("no file", []).with(&[]).is_err());
    }

    #[test]
    fn every_truncation_and_a_flipped_header_are_refused() {
        let (_folder, path) = stored();
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            let result = Weights::from_bytes("half a file", bytes[..length].to_vec());
            assert!(matches!(result, Err(VisionError::CorruptWeights { .. })), "accepted {length} bytes");
            fs::write(&path, &bytes[..length]).unwrap();
            let result = Weights::read(&path);
            assert!(matches!(result, Err(VisionError::CorruptWeights { .. })), "accepted a file of {length} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Weights::from_bytes("a longer file", longer).is_err());
        for position in 0..8 {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x55;
            fs::write(&path, &flipped).unwrap();
            assert!(Weights::read(&path).is_err(), "accepted a file with byte {position} flipped");
            assert!(Weights::from_bytes("a damaged file", flipped).is_err(), "accepted byte {position} flipped");
        }
    }

    /// Files that say of themselves that they hold more than any memory, in a terabyte that the disk need not have.
    #[test]
    fn a_file_larger_than_memory_is_refused_without_being_taken_into_it() {
        const TENSOR: u64 = 1 << 40;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let sparse = |start: &[u8], length: u64| {
            fs::write(&path, start).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        };
        let refused = || matches!(Weights::read(&path).unwrap_err(), VisionError::CorruptWeights { .. });
        sparse(&[], TENSOR);
        assert!(refused(), "zeroes are no header");
        sparse(&(TENSOR - 8).to_le_bytes(), TENSOR);
        assert!(refused(), "a header of a terabyte is none");
        let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{TENSOR}]}}}}"#, TENSOR / 4);
        let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        sparse(&start, TENSOR);
        assert!(refused(), "accepted a file that ends before its tensor does");
        sparse(&start, TENSOR + start.len() as u64);
        let shaped = Weights::read(&path).unwrap().tensor("w", &[4], &Device::Cpu).unwrap_err();
        assert!(matches!(shaped, VisionError::TensorShape { .. }), "{shaped}");
    }

    #[test]
    fn a_file_that_is_changed_while_it_is_read_is_refused_and_one_that_is_replaced_is_not() {
        let (folder, path) = stored();
        let weights = Weights::read(&path).unwrap();
        let sum = weights.checksum().unwrap();
        assert_eq!(sum, Weights::from_bytes("the same", fs::read(&path).unwrap()).unwrap().checksum().unwrap());
        let other = folder.path().join("other");
        fs::write(&other, "no weights").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(weights.tensor("a.weight", &[2, 2], &Device::Cpu).is_ok());
        let (_folder, path) = stored();
        let weights = Weights::read(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(0);
        fs::write(&path, bytes).unwrap();
        let changed = weights.tensor("a.weight", &[2, 2], &Device::Cpu).unwrap_err();
        assert!(matches!(changed, VisionError::Read { .. }), "{changed}");
    }
}
