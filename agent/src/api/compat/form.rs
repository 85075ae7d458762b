//! Posted forms: `multipart/form-data`, in which files travel, and `application/x-www-form-urlencoded`.

use std::convert::Infallible;
use std::time::Instant;

use adit_common::deadline::Deadline;
use adit_common::timing::Stopwatch;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{StatusCode, header};
use multer::{Multipart, parse_boundary};

use super::super::reply::Refusal;
use super::super::router::{Api, arrived, deadline, text};
use super::super::upload::Upload;

/// Fields of one form. Each costs memory of its own; a batch of images has some dozens.
const MOST: usize = 256;

/// One field.
#[derive(Debug)]
struct Field {
    name: String,
    file: Option<String>,
    content: Bytes,
}

/// The fields of a form, in order.
#[derive(Debug, Default)]
pub(super) struct Form(Vec<Field>);

/// A request whose body was a form.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) form: Form,
    pub(super) arrived: Instant,
    pub(super) deadline: Deadline,
    pub(super) watch: Stopwatch,
    /// Counts against the limit until it is dropped.
    _upload: Upload,
}

impl Posted {
    /// Takes a form in. A body of another kind is a form without fields: what is missing of it is then told as each dialect
    /// tells it.
    pub(super) async fn take(api: &Api, request: Request) -> Result<Self, Refusal> {
        let (arrived, deadline) = (arrived(&request), deadline(&request));
        let kind = text(request.headers(), header::CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
        let upload = api.take(request).await?;
        let watch = upload.watch(arrived);
        let form = Form::read(&kind, upload.bytes.clone()).await;
        let form =
            form.map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, format!("the form is broken: {reason}")))?;
        Ok(Self { form, arrived, deadline, watch, _upload: upload })
    }
}

impl Form {
    async fn read(kind: &str, body: Bytes) -> Result<Self, String> {
        if let Ok(boundary) = parse_boundary(kind) {
            return Self::parts(boundary, body).await;
        }
        let urlencoded = kind.split(';').next().unwrap_or_default().trim();
        if !urlencoded.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Ok(Self::default());
        }
        let pairs = form_urlencoded::parse(&body);
        if pairs.clone().nth(MOST).is_some() {
            return Err(too_many());
        }
        let field = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| Field {
            name: name.into_owned(),
            file: None,
            content: Bytes::from(value.into_owned()),
        };
        Ok(Self(pairs.map(field).collect()))
    }

    async fn parts(boundary: String, body: Bytes) -> Result<Self, String> {
        let broken = |error: multer::Error| error.to_string();
        let mut parts = Multipart::new(stream::iter([Ok::<_, Infallible>(body)]), boundary);
        let mut fields = Vec::new();
        while let Some(mut part) = parts.next_field().await.map_err(broken)? {
            if fields.len() == MOST {
                return Err(too_many());
            }
            let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
            while let Some(chunk) = part.chunk().await.map_err(broken)? {
                if first.is_empty() && whole.is_empty() {
                    // Mostly all of it, and then it need not be copied.
                    first = chunk;
                    continue;
                }
                if whole.is_empty() {
                    whole.extend_from_slice(&first);
                }
                whole.extend_from_slice(&chunk);
            }
            let content = if whole.is_empty() { first } else { whole.freeze() };
            let [name, file] = [part.name(), part.file_name()].map(|name| name.map(str::to_owned));
            fields.push(Field { name: name.unwrap_or_default(), file, content });
        }
        Ok(Self(fields))
    }

    /// What the first field of this name holds.
    pub(super) fn bytes(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|field| field.name == name).map(|field| &field.content)
    }

    /// The same as text; nothing where it is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// Every field of this name: what its file is called, and what it holds.
    pub(super) fn files(&self, name: &str) -> impl Iterator<Item = (&str, &Bytes)> {
        let named = self.0.iter().filter(move |field| field.name == name);
        named.map(|field| (field.file.as_deref().unwrap_or_default(), &field.content))
    }
}

fn too_many() -> String {
    format!("it has more than {MOST} fields")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MULTIPART: &str = "multipart/form-data; boundary=x";

    async fn read(kind: &str, body: &str) -> Result<Form, String> {
        Form::read(kind, Bytes::copy_from_slice(body.as_bytes())).await
    }

    #[tokio::test]
    async fn fields_and_files_are_found_by_name() {
        let body = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\ncups\r\n\
                    --x\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\ncontent-type: image/jpeg\r\n\r\nAB\r\nC\r\n\
                    --x\r\ncontent-disposition: form-data; name=\"image\"; filename=\"b.jpg\"\r\n\r\n\r\n--x--\r\n";
        let form = read(MULTIPART, body).await.unwrap();
        assert_eq!((form.text("model"), form.text("nothing")), (Some("cups"), None));
        let files: Vec<_> = form.files("image").map(|(name, bytes)| (name, &bytes[..])).collect();
        assert_eq!(files, [("a.jpg", &b"AB\r\nC"[..]), ("b.jpg", b"")]);
    }

    #[tokio::test]
    async fn a_plain_form_is_a_form_too_and_everything_else_is_empty() {
        let form = read("application/x-www-form-urlencoded; charset=utf-8", "model=a%20b&x=1").await.unwrap();
        assert_eq!((form.text("model"), form.text("x")), (Some("a b"), Some("1")));
        assert!(read("image/png", "model=a").await.unwrap().bytes("model").is_none());
        assert!(read("", "").await.unwrap().bytes("model").is_none());
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_form_and_fields_are_bounded() {
        for broken in ["", "--x\r\n", "--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nAB", "text"] {
            assert!(read(MULTIPART, broken).await.is_err(), "{broken:?}");
        }
        let many =
            |count: usize| "--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n\r\n".repeat(count) + "--x--\r\n";
        assert_eq!(read(MULTIPART, &many(MOST)).await.unwrap().files("a").count(), MOST);
        let pairs = |count: usize| "a=1&".repeat(count);
        let urlencoded = "application/x-www-form-urlencoded";
        assert_eq!(read(urlencoded, &pairs(MOST)).await.unwrap().files("a").count(), MOST);
        for refused in [read(MULTIPART, &many(MOST + 1)).await, read(urlencoded, &pairs(MOST + 1)).await] {
            assert_eq!(refused.unwrap_err(), "it has more than 256 fields");
        }
    }
}
