//! Writes weights so that a reader sees a whole file or none: into a file beside it, to the disk, then renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};

use crate::error::VisionError;

/// The bytes of a safetensors file with these tensors in half precision: half the size, and too precise still to
/// change a digit's class.
pub(crate) fn serialise(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, VisionError> {
    let mut contents = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let halves = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F16)?.to_vec1::<half::f16>()?;
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        contents.push((name.as_str(), tensor.dims().to_vec(), bytes));
    }
    let corrupt = |source| VisionError::CorruptWeights { origin: "trained weights".to_owned(), source };
    let views = contents
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F16, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(corrupt)?;
    safetensors::serialize(views, None).map_err(corrupt)
}

/// Puts a file into its place at once: whoever looks sees the old one or all of the new one, also after a power cut.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), VisionError> {
    let failed = |source| VisionError::Write { path: path.to_owned(), source };
    let folder = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    fs::create_dir_all(folder).map_err(failed)?;
    let beside = path.with_extension("partial");
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path))
        // The new name lies in the folder, which is a file of its own to the disk.
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // Best effort: the error that counts is the one above.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Weights;

    #[test]
    fn what_is_written_can_be_read_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("7/model.safetensors");
        let tensor = Tensor::new(&[[0.5f32, -2.0], [1.0, 65504.0]], &Device::Cpu).unwrap();
        let bytes = serialise(&[("a.weight".to_owned(), tensor.clone())]).unwrap();
        write(&path, b"an older version").unwrap();
        write(&path, &bytes).unwrap();
        let read = Weights::read(&path).unwrap().tensor("a.weight", &[2, 2], &Device::Cpu).unwrap();
        assert_eq!(read.to_vec2::<f32>().unwrap(), tensor.to_vec2::<f32>().unwrap());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_in_the_way_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write(&path, b"bytes").unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        assert!(!path.with_extension("partial").exists());
    }
}
