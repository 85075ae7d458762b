//! What an agent says of itself, as the lines of its answer to `GET /.adit/manifest`.
//!
//! The body never ends: one JSON document a line, first the whole [`Manifest`], then a changed one or a [`Load`] report as
//! things change. So the relay learns of a model the moment it is ready, and a person can read along with any HTTP client.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, ModelName, UpstreamName, Version, VersionLabel};

/// The path of the endless answer.
pub const MANIFEST_PATH: &str = "/.adit/manifest";

/// The longest line that a reader has to accept, in bytes: some 10,000 models.
pub const MAX_LINE: usize = 2 << 20;

/// The header of a hop's request that is not for the agent itself, but for a server behind it: an [`Upstream`].
pub const UPSTREAM_HEADER: &str = "adit-upstream";

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Everything, replacing what was said before.
    Manifest(Manifest),
    /// How busy the agent is.
    Load(Load),
}

/// Who an agent is and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The agent's id; must equal the one in its certificate.
    pub agent: AgentId,
    /// The agent's software version.
    pub software: String,
    /// Finishing what it has and taking nothing new.
    #[serde(default)]
    pub draining: bool,
    /// Every version of every model that it knows.
    pub models: Vec<Model>,
    /// What may be asked of it.
    pub endpoints: Vec<Endpoint>,
    /// The servers behind it that it carries requests to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    /// What it computes on, such as `cpu` or `cuda:0`.
    #[serde(default)]
    pub devices: Vec<String>,
    /// How many requests it works on or queues at a time before it refuses.
    pub capacity: u32,
}

/// One version of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The model's name.
    pub name: ModelName,
    /// Its version.
    pub version: Version,
    /// Whether it can be asked.
    pub state: ModelState,
    /// Why it is unavailable, or what a person should know of it though it answers; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it may be called in a path instead of its number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<VersionLabel>,
}

/// A version's state, spelled as the Open Inference Protocol's repository index does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ModelState {
    /// It answers.
    Ready,
    /// It does not; the reason says why.
    Unavailable,
    /// It is being read and warmed.
    Loading,
    /// It finishes its last requests.
    Unloading,
}

impl ModelState {
    /// As the protocol spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
        }
    }
}

/// A method and path that the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `GET`, `POST`, ...
    pub method: String,
    /// A path with `{model}` and `{version}` where names stand, such as `/v2/models/{model}/infer`.
    pub path: String,
    /// What a key must be allowed for.
    pub scope: Scope,
    /// Whose spelling errors and keys have there.
    pub dialect: Dialect,
    /// Where its requests name the model that they are for.
    #[serde(default, skip_serializing_if = "Naming::is_path")]
    pub naming: Naming,
    /// How the answers of all agents become one.
    #[serde(default, skip_serializing_if = "Gather::is_one")]
    pub gather: Gather,
    /// Whether the agent has what it takes to answer just now, such as a detector. One that has not is asked only where nobody
    /// has, to say so in its dialect.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub able: bool,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_true(value: &bool) -> bool {
    *value
}

/// Whether one agent answers for all, or how the answers of all become one. Places are JSON pointers (RFC 6901), and rows are
/// objects that are the same thing where the fields in `key` agree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gather {
    /// One agent is asked.
    #[default]
    One,
    /// All do it; the first that cannot is the answer.
    Every,
    /// JSON with the fields and elements of all answers.
    Union,
    /// Lists of rows: of two rows of the same thing the one that is ready stands.
    Rows {
        /// Where the list is.
        at: String,
        /// What tells rows apart.
        key: Vec<String>,
    },
    /// Lists of rows of counters, which are added up and never fall, whoever leaves. The first two fields of the key are what
    /// a path names by `{model}` and `{version}`.
    Counters {
        /// Where the list is.
        at: String,
        /// What tells rows apart.
        key: Vec<String>,
    },
    /// Messages of gRPC, whose lists are joined.
    Messages,
}

impl Gather {
    /// Whether one answer is enough.
    pub fn is_one(&self) -> bool {
        *self == Self::One
    }
}

/// Where a request names its model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// In the path as `{model}`, or nowhere.
    #[default]
    Path,
    /// In the first message of a gRPC call: the numbers of the fields that lead to a string.
    Protobuf(Vec<u32>),
    /// In this field of a form (`multipart/form-data`).
    Form(String),
}

impl Naming {
    /// Whether the body need not be looked at.
    pub fn is_path(&self) -> bool {
        *self == Self::Path
    }
}

/// What an API key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Ask models and read about them.
    Infer,
    /// Change an agent: load, unload, upload, settings.
    Control,
}

/// An API's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Open Inference Protocol, which is also how the relay itself speaks: `{"error": "..."}`.
    Oip,
    /// `GET /` and `POST /photo` with one sentence as the answer: errors as in `Oip`.
    Photo,
    /// Any service of gRPC: a status in the head or the trailers.
    Grpc,
    /// TensorFlow Serving over REST: errors as in `Oip`.
    TfServing,
    /// DeepStack and CodeProject.AI: `{"success": false, "error": "..."}`.
    Deepstack,
    /// Detection in an envelope: `{"data": null, "error": "...", "success": false}`.
    Boxes,
    /// A WebSocket of frames: errors as in `Oip`.
    Frames,
    /// Batches of images that come back annotated: `{"message": "..."}`.
    Annotated,
    /// One that this program does not know: a newer agent's.
    #[serde(other)]
    Other,
}

/// A server behind an agent that is handed whole requests: any method, for a host or for any, below a path.
///
/// It is told of while it does not answer, too: its paths then are not there just now, instead of unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// What it is called in errors, logs and metrics.
    pub name: UpstreamName,
    /// The host that its requests are for, without a port; any unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What their paths begin with, segment by segment: `/v2` is for `/v2` and `/v2/models`, but not for `/v2x`.
    pub prefix: String,
    /// What a key must be allowed for.
    pub scope: Scope,
    /// Whether it answers just now.
    pub able: bool,
}

/// How closely an [`Upstream`] fits a request; the greatest is the one that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    /// It is for this very host: then it takes the request before any endpoint.
    pub host: bool,
    /// How many bytes of the path it names.
    pub prefix: usize,
}

impl Upstream {
    /// How closely it fits a request for a host, which may carry a port, and a path; `None` if the request is not for it.
    pub fn fit(&self, host: Option<&str>, path: &str) -> Option<Fit> {
        let fits = match (&self.host, host) {
            (None, _) => true,
            (Some(own), Some(host)) => own.eq_ignore_ascii_case(bare(host)),
            (Some(_), None) => false,
        };
        let rest = path.strip_prefix(self.prefix.trim_end_matches('/'))?;
        let below = rest.starts_with('/') || rest.is_empty() && self.prefix != "/";
        (fits && below).then_some(Fit { host: self.host.is_some(), prefix: self.prefix.len() })
    }
}

/// A host without its port, and without the dot that ends a full name.
fn bare(host: &str) -> &str {
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    host[..end].trim_end_matches('.')
}

/// How busy an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Requests that are being received, queued, computed or answered.
    pub in_flight: u32,
    /// Of these, those that wait for a device.
    pub queued: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_readable_line() {
        let load = Report::Load(Load { in_flight: 3, queued: 1 });
        let line = serde_json::to_string(&load).unwrap();
        assert_eq!(line, r#"{"load":{"in_flight":3,"queued":1}}"#);
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), load);
        let model = r#"{"name":"digits","version":1,"state":"READY"}"#;
        let model: Model = serde_json::from_str(model).unwrap();
        assert_eq!((model.version, model.state), (Version(1), ModelState::Ready));
    }

    #[test]
    fn a_name_that_breaks_its_rule_is_no_manifest() {
        let text = r#"{"name":"../etc","version":1,"state":"READY"}"#;
        assert!(serde_json::from_str::<Model>(text).is_err());
    }

    #[test]
    fn an_upstream_takes_what_is_below_its_prefix_at_its_host() {
        let upstream = |host: Option<&str>, prefix: &str| Upstream {
            name: "triton".parse().unwrap(),
            host: host.map(str::to_owned),
            prefix: prefix.to_owned(),
            scope: Scope::Infer,
            able: true,
        };
        let fit = |host, prefix| Some(Fit { host, prefix });
        let v2 = upstream(None, "/v2");
        for path in ["/v2", "/v2/", "/v2/models/x"] {
            assert_eq!(v2.fit(None, path), fit(false, 3), "{path}");
        }
        for path in ["/v2x", "/v1/v2", "/", "", "*", "/V2"] {
            assert_eq!(v2.fit(None, path), None, "{path}");
        }
        assert_eq!(upstream(None, "/").fit(None, "/any/thing"), fit(false, 1));
        assert_eq!(upstream(None, "/").fit(None, "*"), None);
        let named = upstream(Some("triton.example.org"), "/");
        for host in ["triton.example.org", "Triton.Example.org:8443", "triton.example.org."] {
            assert_eq!(named.fit(Some(host), "/"), fit(true, 1), "{host}");
        }
        assert_eq!(named.fit(Some("example.org"), "/"), None);
        assert_eq!(named.fit(None, "/"), None);
        assert_eq!(upstream(Some("[::1]"), "/").fit(Some("[::1]:80"), "/"), fit(true, 1));
        assert!(fit(true, 1) > fit(false, 30) && fit(false, 3) > fit(false, 1));
    }
}
