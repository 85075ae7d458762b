//! The MNIST set of handwritten digits (LeCun, Cortes, Burges), in its idx files, packed with gzip or not.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::read::GzDecoder;

use crate::error::VisionError;

/// Height and width of an image.
pub(crate) const SIDE: usize = 28;

/// Bytes of an image.
pub(crate) const PIXELS: usize = SIDE * SIDE;

/// What an idx file of images begins with: unsigned bytes, three dimensions.
const IMAGES_MAGIC: u32 = 0x0803;

/// What an idx file of labels begins with: unsigned bytes, one dimension.
const LABELS_MAGIC: u32 = 0x0801;

/// The largest file that is read, unpacked: MNIST's training images are 45 MiB.
const MAX_BYTES: u64 = 256 << 20;

/// Which half of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// 60,000 images.
    Train,
    /// 10,000 images by other writers.
    Test,
}

/// Images of 28 x 28 bytes, bright on dark, with the digit that each shows.
#[derive(Debug, Clone)]
pub struct Digits {
    images: Vec<u8>,
    labels: Vec<u8>,
}

impl Digits {
    /// Reads `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (or `t10k-...`) from a folder; `.gz` may follow.
    pub fn read(folder: &Path, part: Part) -> Result<Self, VisionError> {
        let prefix = match part {
            Part::Train => "train",
            Part::Test => "t10k",
        };
        let (path, images) = read_idx(folder, &format!("{prefix}-images-idx3-ubyte"))?;
        let side = SIDE as u32;
        let (images_count, images) = body(&path, &images, IMAGES_MAGIC, &[side, side])?;
        let (path, labels) = read_idx(folder, &format!("{prefix}-labels-idx1-ubyte"))?;
        let (labels_count, labels) = body(&path, &labels, LABELS_MAGIC, &[])?;
        if labels_count != images_count {
            return Err(wrong(&path, format!("{labels_count} labels for {images_count} images")));
        }
        if let Some(label) = labels.iter().find(|label| **label > 9) {
            return Err(wrong(&path, format!("the label {label} is not a digit")));
        }
        Ok(Self { images, labels })
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// CRC-32 of all images and labels: another set has another, but for an unlikely chance.
    pub(crate) fn checksum(&self) -> u32 {
        let mut sum = Crc::new();
        sum.update(&self.images);
        sum.update(&self.labels);
        sum.sum()
    }

    /// One image, rows from the top: 784 bytes.
    #[must_use]
    pub fn image(&self, index: usize) -> &[u8] {
        &self.images[index * PIXELS..(index + 1) * PIXELS]
    }

    /// The digit that an image shows.
    #[must_use]
    pub fn label(&self, index: usize) -> u8 {
        self.labels[index]
    }
}

/// The bytes of `name`, or those inside of `name.gz`, with the path that was found.
fn read_idx(folder: &Path, name: &str) -> Result<(PathBuf, Vec<u8>), VisionError> {
    let (plain, packed) = (folder.join(name), folder.join(format!("{name}.gz")));
    let (path, bytes) = if packed.is_file() {
        let unpacked = File::open(&packed).and_then(|file| read_bounded(GzDecoder::new(file)));
        (packed, unpacked)
    } else {
        let bytes = File::open(&plain).and_then(read_bounded);
        (plain, bytes)
    };
    match bytes {
        Ok(bytes) => Ok((path, bytes)),
        Err(source) => Err(VisionError::Read { path, source }),
    }
}

fn read_bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks an idx file against its own header: gives the number of items and their bytes.
fn body(path: &Path, file: &[u8], magic: u32, dimensions: &[u32]) -> Result<(usize, Vec<u8>), VisionError> {
    let number = |place: usize| {
        let bytes = file.get(place * 4..place * 4 + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map(u32::from_be_bytes).ok_or_else(|| wrong(path, "the header is cut off"))
    };
    let found = number(0)?;
    if found != magic {
        return Err(wrong(path, format!("begins with {found:#06x}, expected {magic:#06x}")));
    }
    let count = number(1)? as usize;
    let mut size = 1usize;
    for (place, expected) in dimensions.iter().enumerate() {
        let found = number(place + 2)?;
        if found != *expected {
            return Err(wrong(path, format!("images have a side of {found}, expected {expected}")));
        }
        size *= found as usize;
    }
    let content = &file[(dimensions.len() + 2) * 4..];
    if count == 0 || content.len() != count.saturating_mul(size) {
        return Err(wrong(path, format!("{} bytes for {count} items of {size}", content.len())));
    }
    Ok((count, content.to_vec()))
}

fn wrong(path: &Path, reason: impl Into<String>) -> VisionError {
    VisionError::Dataset { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn idx(header: &[u32], content: &[u8]) -> Vec<u8> {
        header.iter().flat_map(|number| number.to_be_bytes()).chain(content.iter().copied()).collect()
    }

    fn two_images() -> Vec<u8> {
        idx(&[0x0803, 2, 28, 28], &[[7; PIXELS], [9; PIXELS]].concat())
    }

    fn folder(images: &[u8], labels: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("t10k-images-idx3-ubyte"), images).unwrap();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(labels).unwrap();
        fs::write(folder.path().join("t10k-labels-idx1-ubyte.gz"), packed.finish().unwrap()).unwrap();
        folder
    }

    #[test]
    fn plain_and_packed_files_are_read() {
        let folder = folder(&two_images(), &idx(&[0x0801, 2], &[3, 8]));
        let digits = Digits::read(folder.path(), Part::Test).unwrap();
        assert_eq!((digits.len(), digits.label(1), digits.image(1)), (2, 8, &[9; PIXELS][..]));
        assert!(matches!(Digits::read(folder.path(), Part::Train), Err(VisionError::Read { .. })));
    }

    #[test]
    fn files_that_do_not_keep_their_word_are_refused() {
        let labels = idx(&[0x0801, 2], &[3, 8]);
        for (images, labels, because) in [
            (two_images()[..900].to_vec(), labels.clone(), "884 bytes for 2 items of 784"),
            (two_images()[..6].to_vec(), labels.clone(), "cut off"),
            (idx(&[0x0801, 2], &[3, 8]), labels.clone(), "expected 0x0803"),
            (idx(&[0x0803, 1, 32, 32], &[0; 1024]), labels.clone(), "side of 32"),
            (two_images(), idx(&[0x0801, 3], &[1, 2, 3]), "3 labels for 2 images"),
            (two_images(), idx(&[0x0801, 2], &[1, 12]), "label 12"),
            (idx(&[0x0803, u32::MAX, 28, 28], &[0; 784]), labels, "784 bytes for 4294967295"),
        ] {
            let folder = folder(&images, &labels);
            let error = Digits::read(folder.path(), Part::Test).unwrap_err().to_string();
            assert!(error.contains(because), "{because}: {error}");
        }
    }
}
