//! What can go wrong with a picture: the fault of whoever sent it. The texts are written for them: they name no path and no
//! library.

/// Why an image could not be decoded or prepared. Its text may be shown to the sender.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes begin like no format that is read here.
    #[error("not a JPEG, PNG, WebP, BMP or GIF image")]
    UnknownFormat,
    /// The header promises more pixels, or a longer side, than the limits allow; nothing was decoded.
    #[error("image of {width}x{height} is larger than the limit of {limit}")]
    TooLarge {
        /// Width in pixels, as the header says.
        width: u64,
        /// Height in pixels, as the header says.
        height: u64,
        /// The limit that was passed, in words.
        limit: String,
    },
    /// Decoding would need more memory than the limits allow.
    #[error("image of {width}x{height} needs more memory to decode than allowed")]
    TooMuchMemory {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
    },
    /// A progressive JPEG with absurdly many scans: each scan costs a walk over the whole image.
    #[error("JPEG has {scans} scans, more than the limit of {limit}")]
    TooManyScans {
        /// Scans found.
        scans: usize,
        /// Scans allowed.
        limit: usize,
    },
    /// The image has no pixels.
    #[error("image is empty: {width}x{height}")]
    Empty {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
    },
    /// The file ends before the image does.
    #[error("image is truncated")]
    Truncated,
    /// The file breaks the rules of its format, or uses a part of it that is not supported.
    #[error("broken or unsupported {format} image")]
    Broken {
        /// Name of the format.
        format: &'static str,
        /// What the decoder said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A digit was to be cut out, but the picture shows only background.
    #[error("nothing is drawn on the image")]
    Blank,
    /// A picture could not be drawn.
    #[error("cannot draw: {0}")]
    Draw(String),
    /// The `[preprocess]` section contradicts itself.
    #[error("preprocessing: {0}")]
    Preprocess(String),
}
