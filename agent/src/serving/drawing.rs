//! Pictures with what was found drawn on them: on the same bounded blocking pool that decodes, within the same limits.

use adit_common::deadline::Deadline;
use adit_picture::{Format, Mark, annotate, decode, encode};
use bytes::Bytes;

use super::infer::{Serving, until};
use crate::error::InferError;

impl Serving {
    /// Draws on images, upright as they are to be seen, and encodes them; in the order in which they come. A picture that cannot
    /// be decoded is the caller's fault; others are not drawn then. Dropping the future leaves undone what has not begun.
    pub async fn draw(
        &self,
        images: Vec<(Bytes, Vec<Mark>)>,
        format: Format,
        deadline: Deadline,
    ) -> Result<Vec<Bytes>, InferError> {
        let limits = self.images;
        let jobs = images.into_iter().map(|(image, marks)| {
            move || {
                let drawn = decode(&image, &limits).and_then(|mut pixels| {
                    annotate(&mut pixels, &marks);
                    encode(&pixels, format)
                });
                drawn.map(Bytes::from).map_err(|error| InferError::Invalid(error.to_string()))
            }
        });
        // As where networks' images are decoded: one that panics costs its own request only.
        let lost = |error| InferError::Invalid(format!("the image cannot be drawn on: {error}"));
        until(deadline, self.decoders.run(jobs, lost)).await?
    }
}
