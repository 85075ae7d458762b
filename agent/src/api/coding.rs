//! Content codings: bodies that come compressed, and answers that may go so.
//!
//! `gzip`, and `deflate`, which in HTTP is a zlib stream. Lengths within a message, such as that of its JSON, are those of
//! what is not compressed.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, header};

/// Below this an answer fits into one packet whatever is done to it.
const SMALL: usize = 1 << 10;

/// An answer above this is compressed on the blocking pool: at some 100 MB/s it would hold up other requests for too long.
const LARGE: usize = 32 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// In the order in which they are taken where a client has no preference.
    const ALL: [Self; 2] = [Self::Gzip, Self::Deflate];

    /// Its name in headers.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        Self::ALL.into_iter().find(|coding| is(coding.name())).or_else(|| is("x-gzip").then_some(Self::Gzip))
    }

    /// How a request's body is compressed, if it is; an error is for the caller.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let mut found = None;
        for name in list(headers, header::CONTENT_ENCODING) {
            if name.eq_ignore_ascii_case("identity") {
                continue;
            }
            let coding = Self::parse(name).ok_or_else(|| {
                let name: String = name.chars().take(40).collect();
                format!("the content-encoding `{name}` is not taken: gzip and deflate are")
            })?;
            if found.replace(coding).is_some() {
                return Err("a request body has one content-encoding at most".to_owned());
            }
        }
        Ok(found)
    }

    /// How an answer had best be compressed for whoever sent these headers; not at all, where that is not asked for.
    pub(super) fn wanted(headers: &HeaderMap) -> Option<Self> {
        let (mut weights, mut rest, mut plain) = ([None; 2], 0.0, None);
        for entry in list(headers, header::ACCEPT_ENCODING) {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = weight.map_or(1.0, |weight| weight.trim().parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0));
            match Self::parse(name) {
                Some(coding) => weights[coding as usize] = Some(weight),
                None if name == "*" => rest = weight,
                None if name.eq_ignore_ascii_case("identity") => plain = Some(weight),
                None => {}
            }
        }
        let weigh = |coding: &Self| weights[*coding as usize].unwrap_or(rest);
        // The last of the largest is kept, so the list is walked backwards.
        let best = Self::ALL.into_iter().rev().max_by(|one, two| weigh(one).total_cmp(&weigh(two)))?;
        (weigh(&best) > 0.0 && weigh(&best) >= plain.unwrap_or(0.0)).then_some(best)
    }

    /// An answer's body, compressed; `None` where that gains nothing.
    pub(super) async fn compress(self, body: &Bytes) -> Option<Bytes> {
        if body.len() < SMALL {
            return None;
        }
        let compressed = if body.len() > LARGE {
            let body = body.clone();
            tokio::task::spawn_blocking(move || self.pack(&body)).await.ok()?
        } else {
            self.pack(body)
        };
        compressed.ok().filter(|packed| packed.len() < body.len()).map(Bytes::from)
    }

    fn pack(self, body: &[u8]) -> io::Result<Vec<u8>> {
        // Tensors of numbers hardly get smaller by more effort.
        let (out, effort) = (Vec::with_capacity(body.len() / 2), Compression::fast());
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, effort);
                encoder.write_all(body)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(out, effort);
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }

    /// Expands a body piece by piece; `take` may end it. An error of kind `Other` is that of `take`.
    pub(super) fn expand(self, body: &[u8], take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Gzip => read(MultiGzDecoder::new(body), take),
            Self::Deflate => {
                let mut decoder = ZlibDecoder::new(body);
                read(&mut decoder, take)?;
                // A gzip stream's end is looked after by its decoder.
                let rest = decoder.get_mut().fill_buf()?.len();
                if rest > 0 { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
            }
        }
    }
}

fn read(mut decoder: impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        match decoder.read(&mut piece)? {
            0 => return Ok(()),
            length => take(&piece[..length])?,
        }
    }
}

/// The entries of a header's list, over all its lines.
fn list(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn requests_have_one_coding_at_most() {
        let of = |value| Coding::of(&with(header::CONTENT_ENCODING, value));
        assert_eq!(Coding::of(&HeaderMap::new()), Ok(None));
        assert_eq!(of("identity"), Ok(None));
        for (value, coding) in
            [("gzip", Coding::Gzip), ("X-GZIP", Coding::Gzip), ("deflate, identity", Coding::Deflate)]
        {
            assert_eq!(of(value), Ok(Some(coding)), "{value}");
        }
        assert!(of("br").unwrap_err().contains("`br` is not taken"));
        assert!(of("gzip, gzip").unwrap_err().contains("one content-encoding at most"));
    }

    #[test]
    fn answers_are_compressed_as_it_is_preferred() {
        for (value, coding) in [
            ("gzip", Some(Coding::Gzip)),
            ("deflate, gzip", Some(Coding::Gzip)),
            ("deflate;q=0.9, gzip;q=0.5", Some(Coding::Deflate)),
            ("br, *;q=0.1", Some(Coding::Gzip)),
            ("*, gzip;q=0", Some(Coding::Deflate)),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=0, deflate;q=0.000", None),
            ("gzip;q=loud", None),
            ("br", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(Coding::wanted(&with(header::ACCEPT_ENCODING, value)), coding, "{value}");
        }
        assert_eq!(Coding::wanted(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn what_is_compressed_is_expanded_again() {
        for coding in Coding::ALL {
            for length in [SMALL, LARGE + 1, 200_000] {
                let body = Bytes::from((0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>());
                let packed = coding.compress(&body).await.unwrap();
                assert!(packed.len() < length / 2);
                let expand = |packed: &[u8]| {
                    let mut whole = Vec::new();
                    coding.expand(packed, |piece| {
                        whole.extend_from_slice(piece);
                        Ok(())
                    })?;
                    io::Result::Ok(whole)
                };
                assert_eq!(expand(&packed).unwrap(), body);
                assert!(expand(&packed[..packed.len() - 1]).is_err(), "cut off");
                assert!(expand(&[&packed[..], b"more"].concat()).is_err(), "with something behind it");
                assert!(expand(&body).is_err());
            }
            assert_eq!(coding.compress(&Bytes::from(vec![0; SMALL - 1])).await, None);
        }
    }
}
