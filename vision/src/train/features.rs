//! What the unchanged part of a network makes of each picture, computed once and kept for all epochs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use flate2::Crc;
use rayon::prelude::*;

use crate::error::VisionError;
use crate::graph::Graph;
use crate::image::{ImageLimits, Preprocess, batch, decode, prepare};
use crate::shape::ImageShape;
use crate::stop::Stop;
use crate::train::progress::Progress;

/// Pictures that are decoded and run at a time: enough for every core, and their memory is bounded.
const TOGETHER: usize = 16;

/// The longest file that is read: longer than any photograph.
const MAX_BYTES: u64 = 256 << 20;

/// A file that is no picture, or a broken one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Features of pictures, in memory, or in a file without a name where they are too many for it.
#[derive(Debug)]
pub(crate) struct Features {
    /// Of one picture.
    shape: ImageShape,
    /// 1, or 2 where each picture has a mirror image beside it.
    sides: usize,
    store: Store,
    /// The class of each picture.
    pub(crate) classes: Vec<u32>,
    /// What could not be read.
    pub(crate) broken: Vec<Broken>,
    /// Of all pictures.
    sum: Crc,
}

#[derive(Debug)]
enum Store {
    Memory(Vec<f32>),
    Disk(File, PathBuf),
}

/// How features are computed.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) preprocess: &'a Preprocess,
    /// Whether mirror images are wanted too.
    pub(crate) flip: bool,
    /// Bytes that may be kept in memory.
    pub(crate) memory: u64,
    /// Where a file goes if that is not enough.
    pub(crate) folder: &'a Path,
}

impl Features {
    /// Reads all files and computes what `making.graph` makes of them. What is no picture is left out, and named.
    pub(crate) fn compute(
        files: &[(PathBuf, u32)],
        making: &Making<'_>,
        stop: &Stop<'_>,
        progress: &mut impl Progress,
    ) -> Result<Self, VisionError> {
        let shape = making.graph.output();
        let sides = if making.flip { 2 } else { 1 };
        let bytes = (files.len() as u64).saturating_mul((shape.elements() * sides * size_of::<f32>()) as u64);
        let store = if bytes <= making.memory {
            Store::Memory(Vec::new())
        } else {
            let folder = making.folder;
            let file = tempfile::tempfile_in(folder)
                .map_err(|source| VisionError::Write { path: folder.to_owned(), source })?;
            Store::Disk(file, folder.to_owned())
        };
        let mut features = Self { shape, sides, store, classes: Vec::new(), broken: Vec::new(), sum: Crc::new() };
        let (mut done, of) = (0, files.len());
        for files in files.chunks(TOGETHER) {
            stop.check()?;
            let prepared: Vec<Result<Vec<f32>, String>> =
                files.par_iter().map(|(path, _)| read(path, making.preprocess)).collect();
            let mut pictures = Vec::with_capacity(files.len());
            for ((path, class), prepared) in files.iter().zip(prepared) {
                match prepared {
                    Ok(picture) => {
                        picture.iter().for_each(|value| features.sum.update(&value.to_le_bytes()));
                        features.classes.push(*class);
                        let mirror = making.flip.then(|| mirrored(&picture, making.preprocess.shape().width));
                        pictures.push(picture);
                        pictures.extend(mirror);
                    }
                    Err(reason) => features.broken.push(Broken { path: path.clone(), reason }),
                }
            }
            if !pictures.is_empty() {
                let input = batch(&pictures, making.preprocess.shape(), making.graph.device())?;
                let output = making.graph.run(&input, stop)?.flatten_all()?.to_vec1::<f32>()?;
                features.push(output)?;
            }
            done += files.len();
            progress.features(done, of);
        }
        Ok(features)
    }

    fn push(&mut self, values: Vec<f32>) -> Result<(), VisionError> {
        match &mut self.store {
            Store::Memory(all) => all.extend(values),
            Store::Disk(file, folder) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                file.write_all(&bytes).map_err(|source| VisionError::Write { path: folder.clone(), source })?;
            }
        }
        Ok(())
    }

    /// CRC-32 of all pictures as they were prepared, and of their classes. Not of the features, whose last bits may depend
    /// on how many cores compute them.
    pub(crate) fn checksum(&self) -> u32 {
        let mut sum = Crc::new();
        sum.update(&self.sum.sum().to_le_bytes());
        self.classes.iter().for_each(|class| sum.update(&class.to_le_bytes()));
        sum.sum()
    }

    /// How many of a class there are.
    pub(crate) fn count(&self, class: u32) -> usize {
        self.classes.iter().filter(|other| **other == class).count()
    }

    /// Number of sides that each picture has.
    pub(crate) fn sides(&self) -> usize {
        self.sides
    }

    /// The features of some pictures, each from one of its sides: `[N, C, H, W]`.
    pub(crate) fn gather(&mut self, wanted: &[(usize, usize)]) -> Result<Tensor, VisionError> {
        let (elements, sides) = (self.shape.elements(), self.sides);
        let mut values = Vec::with_capacity(wanted.len() * elements);
        let mut bytes = vec![0; elements * size_of::<f32>()];
        for (place, side) in wanted {
            let index = place * sides + side;
            match &mut self.store {
                Store::Memory(all) => values.extend_from_slice(&all[index * elements..(index + 1) * elements]),
                Store::Disk(file, folder) => {
                    let at = SeekFrom::Start((index * bytes.len()) as u64);
                    file.seek(at)
                        .and_then(|_| file.read_exact(&mut bytes))
                        .map_err(|source| VisionError::Read { path: folder.clone(), source })?;
                    values.extend(
                        bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])),
                    );
                }
            }
        }
        let ImageShape { channels, height, width } = self.shape;
        Ok(Tensor::from_vec(values, (wanted.len(), channels, height, width), &Device::Cpu)?)
    }
}

/// A file's picture, prepared.
fn read(path: &Path, preprocess: &Preprocess) -> Result<Vec<f32>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if length > MAX_BYTES {
            return Err(io::Error::other(format!("{length} bytes are too many for a picture")));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| error.to_string())?;
    let pixels = decode(&bytes, &ImageLimits::default()).map_err(|error| error.to_string())?;
    prepare(&pixels, preprocess).map_err(|error| error.to_string())
}

/// Left and right change places in each row.
fn mirrored(picture: &[f32], width: usize) -> Vec<f32> {
    picture.chunks_exact(width).flat_map(|row| row.iter().rev().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_turns_each_row_around() {
        // Two planes of two rows of three.
        let picture: Vec<f32> = (0..12u8).map(f32::from).collect();
        assert_eq!(mirrored(&picture, 3), [2., 1., 0., 5., 4., 3., 8., 7., 6., 11., 10., 9.]);
    }

    #[test]
    fn what_is_too_long_or_no_picture_is_named_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let preprocess: Preprocess = serde_json::from_str(r#"{ "size": [2, 2], "resize": "stretch" }"#).unwrap();
        let path = folder.path().join("long.jpg");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(read(&path, &preprocess).unwrap_err().contains("too many for a picture"));
        assert!(read(&folder.path().join("absent.jpg"), &preprocess).is_err());
        std::fs::write(&path, "text").unwrap();
        assert!(read(&path, &preprocess).unwrap_err().starts_with("not a JPEG"));
    }
}
