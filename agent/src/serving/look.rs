//! From a request's pictures to its network's input: decoded and prepared side by side, where threads are free.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_common::timing::{Stage, Stopwatch};
use bytes::Bytes;
use tracing::Span;

use super::infer::Serving;
use super::model::{Model, Prepared, Seen};
use super::progress::Progress;
use crate::error::InferError;

/// Bytes of pictures that are looked at in a row: to hand less to another thread costs more than it wins.
const ROW: usize = 64 << 10;

/// What has been seen of a request's pictures, row by row.
struct Sheet(Mutex<Vec<Option<Seen>>>);

/// One row was looked at.
struct Glance {
    begun: Instant,
    ended: Instant,
    /// What its decoding and its preparing took.
    decode: Duration,
    prepare: Duration,
    /// All of the request, from the row that was the last.
    whole: Option<Prepared>,
}

impl Sheet {
    fn new(rows: usize) -> Self {
        Self(Mutex::new((0..rows).map(|_| None).collect()))
    }

    /// Puts a row in its place; all of them, if it was the last.
    fn put(&self, place: usize, seen: Seen) -> Option<Vec<Seen>> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows[place] = Some(seen);
        rows.iter().all(Option::is_some).then(|| rows.drain(..).flatten().collect())
    }
}

impl Serving {
    /// Makes a network's input of images. While cores are waited for, the stopwatch counts queue.
    pub(super) async fn look(
        &self,
        model: &Arc<Model>,
        images: Vec<Bytes>,
        progress: &Progress,
        watch: &mut Stopwatch,
    ) -> Result<Prepared, InferError> {
        let (total, limits) = (images.len(), self.images);
        let rows = rows(images);
        let sheet = Arc::new(Sheet::new(rows.len()));
        let jobs = rows.into_iter().enumerate().map(|(place, (first, row))| {
            let (model, progress, sheet, span) = (model.clone(), progress.clone(), sheet.clone(), Span::current());
            move || {
                let _span = span.entered();
                let begun = Instant::now();
                let seen = model.look(&row, (first, total), &limits, || progress.is_gone())?;
                let (decode, prepare, joining) = (seen.decode, seen.prepare, Instant::now());
                let whole = sheet.put(place, seen).map(|rows| model.join(&rows)).transpose()?;
                let ended = Instant::now();
                Ok(Glance { begun, ended, decode, prepare: prepare + (ended - joining), whole })
            }
        });
        // Decoders are fed by strangers: one that panics costs its own request only.
        let lost = |error| model.failed(format!("decoding failed: {error}"));
        let mut glances = self.decoders.run(jobs, lost).await?;
        lap(watch, &mut glances);
        let whole = glances.into_iter().find_map(|glance| glance.whole);
        whole.ok_or_else(|| model.failed("nothing was made of its images".to_owned()))
    }
}

/// Images with the number of the first, as many together as are worth a thread.
fn rows(images: Vec<Bytes>) -> Vec<(usize, Vec<Bytes>)> {
    let (mut rows, mut size) = (Vec::<(usize, Vec<Bytes>)>::new(), ROW);
    for (number, image) in images.into_iter().enumerate() {
        let length = image.len();
        match rows.last_mut() {
            Some((_, row)) if size < ROW => {
                row.push(image);
                size += length;
            }
            _ => {
                rows.push((number, vec![image]));
                size = length;
            }
        }
    }
    rows
}

/// Gives decoding and preparing the time in which any of them ran, each its share; the rest was waiting.
fn lap(watch: &mut Stopwatch, glances: &mut [Glance]) {
    glances.sort_by_key(|glance| glance.begun);
    let Some(first) = glances.first() else { return };
    let (mut busy, mut until) = (Duration::ZERO, first.begun);
    let (mut decoding, mut preparing) = (Duration::ZERO, Duration::ZERO);
    for glance in &*glances {
        busy += glance.ended.saturating_duration_since(glance.begun.max(until));
        until = until.max(glance.ended);
        decoding += glance.decode;
        preparing += glance.prepare;
    }
    let share = decoding.as_secs_f64() / (decoding + preparing).as_secs_f64().max(f64::MIN_POSITIVE);
    let begun = first.begun;
    watch.lap_at(Stage::Queue, begun);
    watch.lap_at(Stage::Decode, begun + busy.mul_f64(share.min(1.0)));
    watch.lap_at(Stage::Prepare, begun + busy);
    watch.lap_at(Stage::Queue, until);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_images_go_together_and_large_ones_alone() {
        let sizes = [10, 20, ROW, 5, 2 * ROW, ROW, ROW - 1, 1, 7];
        let rows = rows(sizes.into_iter().map(|size| Bytes::from(vec![0; size])).collect());
        let found: Vec<_> = rows.iter().map(|(first, row)| (*first, row.len())).collect();
        assert_eq!(found, [(0, 3), (3, 2), (5, 1), (6, 2), (8, 1)]);
        assert!(super::rows(Vec::new()).is_empty());
    }

    #[test]
    fn time_in_which_several_ran_counts_once_and_waiting_between_them_counts_as_such() {
        let born = Instant::now();
        let ms = Duration::from_millis;
        let glance = |begun, ended, decode, prepare| {
            let (begun, ended) = (born + ms(begun), born + ms(ended));
            Glance { begun, ended, decode: ms(decode), prepare: ms(prepare), whole: None }
        };
        let mut watch = Stopwatch::start_at(born);
        // From 10 to 40 something runs, nothing then, and again from 50 to 60.
        let mut glances = [glance(20, 40, 15, 5), glance(10, 30, 15, 5), glance(50, 60, 10, 0)];
        lap(&mut watch, &mut glances);
        let lapped = |stage| watch.lapped(stage).as_micros();
        assert_eq!((lapped(Stage::Decode), lapped(Stage::Prepare)), (32_000, 8_000));
        assert_eq!(lapped(Stage::Queue), 20_000);
    }
}
