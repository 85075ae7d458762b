//! Pictures with what was found drawn on them, written to disk.

use std::path::{Path, PathBuf};

use adit_picture::{Format, ImageLimits, Pixels, decode, encode};
use bytes::Bytes;

use crate::error::ClientError;

/// Where drawn pictures go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The one of the one image.
    File(PathBuf, Format),
    /// Those of all, called as their images are.
    Folder(PathBuf),
}

impl Place {
    /// What was typed for so many images.
    pub(crate) fn new(out: &Path, images: usize) -> Result<Self, ClientError> {
        if out.is_dir() {
            return Ok(Self::Folder(out.to_owned()));
        }
        if images > 1 {
            return Err(ClientError::Plan("of several images, --out names a folder that is there"));
        }
        let format = format(out).ok_or(ClientError::Plan("--out ends with .jpg, .jpeg or .png"))?;
        Ok(Self::File(out.to_owned(), format))
    }

    /// Where the picture of this image goes, and as what: in a folder a PNG if the image is one, and a JPEG otherwise.
    fn of(&self, image: &Path) -> (PathBuf, Format) {
        match self {
            Self::File(path, format) => (path.clone(), *format),
            Self::Folder(folder) => {
                let format = format(image).unwrap_or(Format::Jpeg);
                let ending = if format == Format::Png { "png" } else { "jpg" };
                let name = image.file_stem().unwrap_or_default();
                // Before the ending, so that no image is overwritten by its own picture.
                let mut name = name.to_owned();
                name.push(format!(".annotated.{ending}"));
                (folder.join(name), format)
            }
        }
    }

    /// Draws on the image and writes it; says where.
    pub(crate) async fn write(
        &self,
        image: &Path,
        bytes: Bytes,
        draw: impl FnOnce(&mut Pixels) + Send + 'static,
    ) -> Result<PathBuf, ClientError> {
        let (path, format) = self.of(image);
        let drawn = tokio::task::spawn_blocking(move || {
            let mut pixels = decode(&bytes, &ImageLimits::default())?;
            draw(&mut pixels);
            encode(&pixels, format)
        });
        let drawn = drawn.await.map_err(|error| ClientError::Output(std::io::Error::other(error)))?;
        let drawn = drawn.map_err(|source| ClientError::Draw { path: image.to_owned(), source })?;
        let written = tokio::fs::write(&path, drawn).await;
        written.map_err(|source| ClientError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

fn format(path: &Path) -> Option<Format> {
    let ending = path.extension()?.to_ascii_lowercase();
    match ending.to_str()? {
        "png" => Some(Format::Png),
        "jpg" | "jpeg" => Some(Format::Jpeg),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), 2).unwrap();
        for (image, name, format) in [
            ("a/cat.jpg", "cat.annotated.jpg", Format::Jpeg),
            ("dog.PNG", "dog.annotated.png", Format::Png),
            ("bird.webp", "bird.annotated.jpg", Format::Jpeg),
        ] {
            assert_eq!(place.of(Path::new(image)), (folder.path().join(name), format));
        }
        let file = Place::new(Path::new("new.JPEG"), 1).unwrap();
        assert_eq!(file.of(Path::new("x.png")), (PathBuf::from("new.JPEG"), Format::Jpeg));
        assert!(Place::new(Path::new("new.jpg"), 2).unwrap_err().to_string().contains("several images"));
        assert!(Place::new(Path::new("new.gif"), 1).unwrap_err().to_string().contains(".png"));
    }
}
