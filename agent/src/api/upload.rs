//! Bodies: taken in whole, within limits, and images found in them.
//!
//! Two limits, because there are two ways to exhaust memory: one body that is too long, and many that are not. The second is
//! kept by permits for the bytes that were really received, so that a slow upload holds little and a claimed length nothing.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use adit_common::timing::Stopwatch;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::coding::Coding;

/// Permits are for so many bytes each: a semaphore counts to 2^29 on small machines.
const UNIT: usize = 1 << 10;

/// With or without padding: clients differ, and nothing is gained by refusing one kind.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Takes bodies in; clones share the limits.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    room: Arc<Semaphore>,
    /// For expanding, which takes a core each.
    cores: Arc<Semaphore>,
    max_body: usize,
}

/// A body that is whole. Its bytes count against the limit until it is dropped.
#[derive(Debug)]
pub(super) struct Upload {
    /// The body.
    pub(super) bytes: Bytes,
    /// When its last byte was there.
    pub(super) whole: Instant,
    _room: Option<OwnedSemaphorePermit>,
}

/// Bytes that count against the limit until this is dropped.
#[derive(Debug)]
pub(super) struct Room(#[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>);

/// Why a body was not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// It is longer than one body may be.
    #[error("the request body is longer than {0} bytes")]
    TooLong(usize),
    /// All bodies together hold what they may.
    #[error("too many bodies are being received: try again later")]
    NoRoom,
    /// It broke off.
    #[error("the request body broke off")]
    Broken,
    /// It is not compressed as it says.
    #[error("the request body is not what its content-encoding says, which is {}", .0.name())]
    Coding(Coding),
}

impl Intake {
    /// For bodies of at most `max_body` bytes each and `max_bodies` together.
    pub(super) fn new(max_body: usize, max_bodies: usize) -> Self {
        let units = (max_bodies / UNIT).min(Semaphore::MAX_PERMITS);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { room: Arc::new(Semaphore::new(units)), cores: Arc::new(Semaphore::new(cores)), max_body }
    }

    /// How long one body may be, in bytes.
    pub(super) const fn max_body(&self) -> usize {
        self.max_body
    }

    /// Room for so many bytes that are there already, until it is dropped.
    pub(super) fn hold(&self, length: usize) -> Result<Room, UploadError> {
        let mut room = None;
        self.pay(&mut room, length)?;
        Ok(Room(room))
    }

    /// Takes a body in.
    pub(super) async fn collect<B: Body<Data = Bytes>>(&self, body: B) -> Result<Upload, UploadError> {
        let mut body = std::pin::pin!(body);
        // What is announced too long is refused before it is sent.
        let announced = body.size_hint().lower();
        if announced > self.max_body as u64 {
            return Err(UploadError::TooLong(self.max_body));
        }
        let (mut first, mut whole, mut length) = (Bytes::new(), BytesMut::new(), 0);
        let mut room: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| UploadError::Broken)?.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            length += data.len();
            if length > self.max_body {
                return Err(UploadError::TooLong(self.max_body));
            }
            self.pay(&mut room, length)?;
            if first.is_empty() && whole.is_empty() {
                first = data;
                continue;
            }
            if whole.is_empty() {
                // One allocation for what is to come; a claimed length is believed as far as what has come is a part of it.
                whole.reserve((announced as usize).min(length * 16).max(length));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
        }
        let bytes = if whole.is_empty() { first } else { whole.freeze() };
        Ok(Upload { bytes, whole: Instant::now(), _room: room })
    }

    /// Expands a body, within the same limits. A small one may become a thousand times as long: never on the runtime's threads.
    pub(super) async fn expand(&self, upload: Upload, coding: Coding) -> Result<Upload, UploadError> {
        if upload.bytes.is_empty() {
            return Ok(upload);
        }
        let core = self.cores.clone().acquire_owned().await.map_err(|_| UploadError::NoRoom)?;
        let intake = self.clone();
        let expanded = tokio::task::spawn_blocking(move || {
            let expanded = intake.expanded(&upload, coding);
            drop((upload, core));
            expanded
        });
        expanded.await.unwrap_or(Err(UploadError::Coding(coding)))
    }

    fn expanded(&self, upload: &Upload, coding: Coding) -> Result<Upload, UploadError> {
        let (mut whole, mut room, mut refused) = (Vec::new(), None, None);
        let result = coding.expand(&upload.bytes, |piece| {
            let length = whole.len() + piece.len();
            let paid = if length > self.max_body {
                Err(UploadError::TooLong(self.max_body))
            } else {
                self.pay(&mut room, length)
            };
            paid.map_err(|error| {
                refused = Some(error);
                io::Error::from(io::ErrorKind::Other)
            })?;
            whole.extend_from_slice(piece);
            Ok(())
        });
        // What was reserved beyond the end is not paid for.
        whole.shrink_to_fit();
        match (result, refused) {
            (Ok(()), _) => Ok(Upload { bytes: whole.into(), whole: upload.whole, _room: room }),
            (Err(_), Some(refused)) => Err(refused),
            (Err(_), None) => Err(UploadError::Coding(coding)),
        }
    }

    /// Holds permits for `length` bytes, or says that there is no room.
    fn pay(&self, room: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), UploadError> {
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let due = length.div_ceil(UNIT).saturating_sub(held);
        if due == 0 {
            return Ok(());
        }
        // Not waiting: many half-received bodies could wait for each other for ever.
        let due = u32::try_from(due).map_err(|_| UploadError::NoRoom)?;
        let more = self.room.clone().try_acquire_many_owned(due).map_err(|_| UploadError::NoRoom)?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
    }
}

impl Upload {
    /// A stopwatch that was started when the last byte was there; the head had been there at `arrived`.
    pub(super) fn watch(&self, arrived: Instant) -> Stopwatch {
        let mut watch = Stopwatch::start_at(self.whole);
        watch.received(self.whole.saturating_duration_since(arrived));
        watch
    }
}

/// An image as it was meant: JSON cannot carry bytes, so an element that is nothing but base64 is taken for that. No image
/// is: their headers have bytes that base64 has not.
pub(super) fn image(element: &Bytes) -> Bytes {
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if element.is_empty() || !element.iter().all(alphabet) {
        return element.clone();
    }
    BASE64.decode(element).map_or_else(|_| element.clone(), Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::{iter, pending};
    use futures_util::{FutureExt as _, StreamExt as _};
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn chunks(sizes: &[usize]) -> impl Body<Data = Bytes, Error = Infallible> + use<> {
        let frames: Vec<_> = sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![7; *size])))).collect();
        StreamBody::new(iter(frames))
    }

    #[tokio::test]
    async fn one_piece_is_not_copied_and_many_are_joined() {
        let intake = Intake::new(1 << 20, 1 << 20);
        let piece = Bytes::from(vec![1; 5000]);
        let upload = intake.collect(Full::new(piece.clone())).await.unwrap();
        assert_eq!(upload.bytes.as_ptr(), piece.as_ptr());
        let upload = intake.collect(chunks(&[3, 0, 4000, 5])).await.unwrap();
        assert_eq!(upload.bytes, vec![7; 4008]);
        assert!(intake.collect(chunks(&[])).await.unwrap().bytes.is_empty());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_announced_or_not() {
        let intake = Intake::new(1000, 1 << 20);
        assert!(intake.collect(chunks(&[600, 400])).await.is_ok());
        assert!(matches!(intake.collect(chunks(&[600, 401])).await, Err(UploadError::TooLong(1000))));
        assert!(matches!(intake.collect(Full::new(Bytes::from(vec![0; 1001]))).await, Err(UploadError::TooLong(_))));
    }

    /// So many zeros, compressed to a thousandth.
    async fn zeros(intake: &Intake, length: usize) -> Result<Upload, UploadError> {
        let packed = Coding::Gzip.compress(&Bytes::from(vec![0; length])).await.unwrap();
        let upload = intake.collect(Full::new(packed)).await?;
        intake.expand(upload, Coding::Gzip).await
    }

    #[tokio::test]
    async fn a_compressed_body_is_held_to_the_limits_of_what_it_becomes() {
        let intake = Intake::new(1 << 20, 2 << 20);
        let whole = zeros(&intake, 1 << 20).await.unwrap();
        assert_eq!(whole.bytes.len(), 1 << 20);
        // With room enough: it is the length that is refused.
        let roomy = Intake::new(1 << 20, 4 << 20);
        assert!(matches!(zeros(&roomy, (1 << 20) + 1).await, Err(UploadError::TooLong(_))));
        let other = zeros(&intake, 900 << 10).await.unwrap();
        assert!(matches!(zeros(&intake, 900 << 10).await, Err(UploadError::NoRoom)));
        drop((whole, other));
        assert_eq!(intake.room.available_permits(), (2 << 20) / UNIT, "nothing is held for what is gone");
        let nonsense = intake.collect(Full::new(Bytes::from("no gzip"))).await.unwrap();
        let refused = intake.expand(nonsense, Coding::Gzip).await;
        assert!(matches!(refused, Err(UploadError::Coding(Coding::Gzip))));
    }

    #[tokio::test]
    async fn bodies_share_the_room_and_give_it_back() {
        let intake = Intake::new(1 << 20, 8 * UNIT);
        let first = intake.collect(chunks(&[3 * UNIT, 2 * UNIT])).await.unwrap();
        assert!(matches!(intake.collect(chunks(&[4 * UNIT])).await, Err(UploadError::NoRoom)));
        // One that has begun and never ends holds what it has sent, until it is dropped.
        let slow = iter([Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 2 * UNIT])))]).chain(pending());
        let mut slow = Box::pin(intake.collect(StreamBody::new(slow)));
        assert!(slow.as_mut().now_or_never().is_none());
        assert!(matches!(intake.collect(chunks(&[2 * UNIT])).await, Err(UploadError::NoRoom)));
        drop((first, slow));
        assert!(intake.collect(chunks(&[8 * UNIT])).await.is_ok());
    }

    #[test]
    fn base64_is_read_and_everything_else_left_alone() {
        let bytes = |text: &'static [u8]| Bytes::from_static(text);
        assert_eq!(image(&bytes(b"/9j/4AAQ")), [0xff, 0xd8, 0xff, 0xe0, 0, 0x10][..]);
        assert_eq!(image(&bytes(b"iVBORw==")), b"\x89PNG"[..]);
        assert_eq!(image(&bytes(b"iVBORw")), b"\x89PNG"[..]);
        for other in [&b"\xff\xd8\xff"[..], b"GIF89a\x01\x00", b"hello world", b"=====", b""] {
            assert_eq!(image(&bytes(other)), other);
        }
    }
}
