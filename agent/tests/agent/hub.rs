//! A hub of models in this process: two HTTP servers on loopback, as the real one has them. The front describes repositories
//! and sends whoever wants weights on to the store, which knows ranges, and breaks off where a test tells it to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

/// The repository that it has.
pub(crate) const REPOSITORY: &str = "owner/digits.tv_in1k";

/// What `main` is.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What it has, and how it behaves.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The repository, unless it is the usual one.
    pub(crate) repository: Option<String>,
    /// Who may see the repository at all.
    pub(crate) token: Option<String>,
    /// Whether files are for those who accepted its terms only, which nobody did.
    pub(crate) gated: bool,
    /// Whether the hashes that it states are of something else.
    pub(crate) lies: bool,
    /// Whether it states no hashes.
    pub(crate) silent: bool,
    /// Whether the store sends the whole, whatever range is asked for.
    pub(crate) deaf: bool,
    /// After how many bytes the store breaks off, one number an answer.
    pub(crate) breaks: VecDeque<usize>,
    /// What the front says instead of anything else.
    pub(crate) instead: Option<(u16, &'static str)>,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) token: Option<String>,
}

#[derive(Clone)]
pub(crate) struct FakeHub {
    pub(crate) front: SocketAddr,
    store: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    at_front: Arc<Mutex<Vec<Seen>>>,
    at_store: Arc<Mutex<Vec<Seen>>>,
}

/// `sha256sum` of these bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(digest(&SHA256, bytes).as_ref())
}

fn git(bytes: &[u8]) -> String {
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hexadecimal(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// As the hub decides it: weights lie outside of git.
fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors")
}

impl FakeHub {
    pub(crate) fn new(plan: Plan) -> Self {
        Self::start(plan, None)
    }

    /// One that speaks TLS at its front.
    pub(crate) fn with_tls(plan: Plan, tls: ServerConfig) -> Self {
        Self::start(plan, Some(Arc::new(tls)))
    }

    fn start(plan: Plan, tls: Option<Arc<ServerConfig>>) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (front, store) = (listen(), listen());
        let hub = Self {
            front: front.local_addr().unwrap(),
            store: store.local_addr().unwrap(),
            plan: Arc::new(Mutex::new(plan)),
            at_front: Arc::default(),
            at_store: Arc::default(),
        };
        let (fronts, stores) = (hub.clone(), hub.clone());
        serve(front, move |stream| match &tls {
            Some(tls) => fronts.front(StreamOwned::new(ServerConnection::new(tls.clone()).unwrap(), stream)),
            None => fronts.front(stream),
        });
        serve(store, move |stream| stores.store(stream));
        hub
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.front)
    }

    pub(crate) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap()
    }

    /// The requests at the front since this was last asked.
    pub(crate) fn at_front(&self) -> Vec<Seen> {
        std::mem::take(&mut self.at_front.lock().unwrap())
    }

    /// The requests at the store since this was last asked.
    pub(crate) fn at_store(&self) -> Vec<Seen> {
        std::mem::take(&mut self.at_store.lock().unwrap())
    }

    fn front(&self, mut stream: impl Read + Write) {
        let Some(seen) = request(&mut stream) else { return };
        self.at_front.lock().unwrap().push(seen.clone());
        let answer = self.describe(&seen);
        // A client that hangs up early is the client's business.
        let _ = stream.write_all(&answer).and_then(|()| stream.flush());
    }

    fn describe(&self, seen: &Seen) -> Vec<u8> {
        let plan = self.plan();
        if let Some((status, text)) = plan.instead {
            return answer(status, &[], text.as_bytes());
        }
        if plan.token.is_some() && plan.token != seen.token {
            // It does not say whether there is such a repository.
            return answer(401, &["X-Error-Message: Repository not found"], b"");
        }
        let repository = plan.repository.as_deref().unwrap_or(REPOSITORY);
        let stated = |bytes: &[u8]| sha256(if plan.lies { b"something else" } else { bytes });
        if seen.path.starts_with(&format!("/api/models/{repository}/revision/")) {
            let known = [format!("/{COMMIT}?blobs=true"), "/main?blobs=true".to_owned()];
            if !known.iter().any(|end| seen.path.ends_with(end)) {
                return answer(404, &["X-Error-Code: RevisionNotFound"], b"");
            }
            let files = plan.files.iter().map(|(name, bytes)| match (plan.silent, is_large(name)) {
                (true, _) => json!({ "rfilename": name }),
                (false, true) => json!({
                    "rfilename": name, "size": bytes.len(), "blobId": git(b"a pointer"),
                    "lfs": { "sha256": stated(bytes), "size": bytes.len(), "pointerSize": 134 },
                }),
                (false, false) => json!({ "rfilename": name, "size": bytes.len(), "blobId": git(bytes) }),
            });
            let files: Vec<_> = files.collect();
            let text = json!({
                "id": repository, "sha": COMMIT, "private": false, "gated": plan.gated, "siblings": files,
                "cardData": { "license": "apache-2.0", "tags": ["timm"] },
            });
            return answer(200, &["Content-Type: application/json"], text.to_string().as_bytes());
        }
        // What was described at a commit is fetched at that commit.
        let Some(name) = seen.path.strip_prefix(&format!("/{repository}/resolve/{COMMIT}/")) else {
            return answer(404, &["X-Error-Code: RepoNotFound"], b"");
        };
        let Some(bytes) = plan.files.get(name) else { return answer(404, &["X-Error-Code: EntryNotFound"], b"") };
        if plan.gated {
            return answer(403, &["X-Error-Code: GatedRepo"], b"");
        }
        let commit = format!("X-Repo-Commit: {COMMIT}");
        if !is_large(name) {
            return answer(200, &[&commit, &format!("ETag: \"{}\"", git(bytes))], bytes);
        }
        let head = [
            commit,
            format!("X-Linked-Size: {}", bytes.len()),
            format!("X-Linked-ETag: \"{}\"", stated(bytes)),
            format!("Location: http://{}/blobs/{name}?signature=abc", self.store),
        ];
        answer(302, &head.each_ref().map(String::as_str), b"")
    }

    fn store(&self, mut stream: TcpStream) {
        let Some(seen) = request(&mut stream) else { return };
        self.at_store.lock().unwrap().push(seen.clone());
        let (bytes, deaf, limit) = {
            let mut plan = self.plan();
            let name = seen.path.trim_start_matches("/blobs/").split('?').next().unwrap().to_owned();
            (plan.files[&name].clone(), plan.deaf, plan.breaks.pop_front())
        };
        let range = seen.range.as_ref().filter(|_| !deaf);
        let from = range.map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap());
        let mut text = match from {
            Some(from) => {
                let part = format!("Content-Range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                answer(206, &[&part], &bytes[from..])
            }
            None => answer(200, &[], &bytes),
        };
        if let Some(limit) = limit {
            let head = text.len() - (bytes.len() - from.unwrap_or(0));
            text.truncate(head + limit);
        }
        let _ = stream.write_all(&text);
    }
}

fn serve(listener: TcpListener, each: impl Fn(TcpStream) + Send + Sync + 'static) {
    let each = Arc::new(each);
    // Ends with the process of the tests.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            thread::spawn(move || each(stream));
        }
    });
}

fn request(stream: &mut impl Read) -> Option<Seen> {
    // Requests have no body, so nothing is lost that was read too far.
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut seen = Seen { path: first.split(' ').nth(1)?.to_owned(), range: None, token: None };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            return Some(seen);
        }
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.to_owned()),
            "authorization" => seen.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    None
}

fn answer(status: u16, head: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for line in head {
        write!(text, "{line}\r\n").unwrap();
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}
