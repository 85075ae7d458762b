//! One hub, asked over HTTP: hf-hub's client, with a time limit on every wait and a bound on every answer.
//!
//! hf-hub knows the addresses, the headers and the token. Its own download is not used: it sends the token on to the host that
//! stores the files, takes file names from answers, and keeps a second copy of all weights in a cache.

use std::time::Duration;

use hf_hub::api::tokio::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Repo, RepoType};
use reqwest::header::RANGE;
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::time::timeout;

use super::access::Access;
use super::failure::PullError;

/// How long a hub may say nothing: far above the pauses of a busy one, and short enough for somebody who watches a bar.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A hub.
#[derive(Debug)]
pub struct Hub {
    api: Api,
    endpoint: String,
    token: bool,
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// `owner/name`.
    pub(super) repository: String,
    /// A branch, a tag or a commit.
    pub(super) revision: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The way to the hub: it may be better at the next try.
    Way(String),
    /// The hub's own word.
    Hub(PullError),
}

impl Hub {
    /// Makes ready to ask; nothing is sent yet.
    pub fn connect(access: Access) -> Result<Self, PullError> {
        // The process has one TLS provider; where it has been chosen already it is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let Access { endpoint, cache, token } = access;
        let known = token.is_some();
        let builder = ApiBuilder::from_cache(cache).with_endpoint(endpoint.clone()).with_token(token);
        let builder = builder.with_user_agent("adit-agent", env!("CARGO_PKG_VERSION")).with_progress(false);
        let api = builder.build().map_err(|error| PullError::Wrong(format!("cannot use TLS: {error}")))?;
        Ok(Self { api, endpoint, token: known })
    }

    /// Its address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What the hub says of a repository: JSON, at most `limit` bytes of it.
    pub(super) async fn information(&self, place: &Place, limit: usize) -> Result<Vec<u8>, PullError> {
        let request = self.repository(place).info_request().query(&[("blobs", "true")]);
        self.small(place, &place.repository, request, limit).await
    }

    /// A whole file of at most `limit` bytes.
    pub(super) async fn file(&self, place: &Place, file: &str, limit: usize) -> Result<Vec<u8>, PullError> {
        let request = self.api.client().get(self.repository(place).url(file));
        self.small(place, file, request, limit).await
    }

    /// A file's bytes as they come, from this one on.
    pub(super) async fn open(&self, place: &Place, file: &str, from: u64) -> Result<Response, Trouble> {
        let mut request = self.api.client().get(self.repository(place).url(file));
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        self.send(place, file, request).await
    }

    /// That the hub speaks otherwise than a hub does.
    pub(super) fn foreign(&self, reason: impl Into<String>) -> PullError {
        PullError::Foreign { endpoint: self.endpoint.clone(), reason: reason.into() }
    }

    fn repository(&self, place: &Place) -> ApiRepo {
        self.api.repo(Repo::with_revision(place.repository.clone(), RepoType::Model, place.revision.clone()))
    }

    async fn small(
        &self,
        place: &Place,
        what: &str,
        request: RequestBuilder,
        limit: usize,
    ) -> Result<Vec<u8>, PullError> {
        let lost = |trouble| match trouble {
            Trouble::Way(reason) => PullError::Unreachable { endpoint: self.endpoint.clone(), reason },
            Trouble::Hub(error) => error,
        };
        let mut response = self.send(place, what, request).await.map_err(lost)?;
        let mut body = Vec::new();
        while let Some(part) = next(&mut response).await.map_err(lost)? {
            if body.len() + part.len() > limit {
                return Err(self.foreign(format!("its answer about {what} is over {limit} bytes long")));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    async fn send(&self, place: &Place, what: &str, request: RequestBuilder) -> Result<Response, Trouble> {
        let response = match timeout(PATIENCE, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Trouble::Way(told(&error))),
            Err(_) => return Err(Trouble::Way(silence())),
        };
        let (endpoint, repository) = (self.endpoint.clone(), place.repository.clone());
        let status = response.status();
        Err(match status {
            status if status.is_success() => return Ok(response),
            StatusCode::UNAUTHORIZED => {
                Trouble::Hub(PullError::Unauthorised { endpoint, repository, token: self.token })
            }
            StatusCode::FORBIDDEN => Trouble::Hub(PullError::Forbidden { endpoint, repository, token: self.token }),
            StatusCode::NOT_FOUND => {
                Trouble::Hub(PullError::NotFound { endpoint, repository, revision: place.revision.clone() })
            }
            status if status.is_server_error() => Trouble::Way(format!("the hub answered {}", status.as_u16())),
            status => Trouble::Hub(PullError::Status { endpoint, status: status.as_u16(), what: what.to_owned() }),
        })
    }
}

/// The next bytes of an answer; `None` at its end.
pub(super) async fn next(response: &mut Response) -> Result<Option<bytes::Bytes>, Trouble> {
    match timeout(PATIENCE, response.chunk()).await {
        Ok(Ok(part)) => Ok(part),
        Ok(Err(error)) => Err(Trouble::Way(told(&error))),
        Err(_) => Err(Trouble::Way(silence())),
    }
}

/// The innermost cause, which is what helps: the others say that a request failed, and its long address.
fn told(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn silence() -> String {
    format!("it said nothing for {} s", PATIENCE.as_secs())
}
