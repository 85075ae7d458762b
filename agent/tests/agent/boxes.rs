//! What tests of the dialects of boxes share: a house with real detectors, photographs, and forms.

use std::fs;
use std::path::{Path, PathBuf};

use adit_agent::config::Config;
use bytes::Bytes;
use http::Request;

use crate::house::{Answer, House, ask, stand_in};

/// The test data, or nothing where it is not.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !folder.is_dir() {
        println!("skipped: ../shared/data is not there");
        return None;
    }
    Some(folder.canonicalize().unwrap())
}

/// A photograph of the test data.
pub(crate) fn photo(data: &Path, name: &str) -> Bytes {
    fs::read(data.join("images").join(name)).unwrap().into()
}

/// A house with both detectors of the test data, the built-in classifier and a stand-in.
pub(crate) async fn seeing(data: &Path, change: impl FnOnce(&mut Config)) -> House {
    let specs = ["yolox_nano", "ultraface_rfb320"].map(|model| {
        let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/models").join(model).join("model.toml");
        (model, fs::read_to_string(spec).unwrap().replace("../../../../shared/data", &data.display().to_string()))
    });
    let stand_in = stand_in("0ms", "0ms", "0ms");
    let models: Vec<(&str, &str)> =
        specs.iter().map(|(name, spec)| (*name, spec.as_str())).chain([("pretender", stand_in.as_str())]).collect();
    House::new(&models, change).await
}

/// A form that is being filled in.
#[derive(Default)]
pub(crate) struct Form(Vec<u8>);

const BOUNDARY: &str = "3f1c9b";

impl Form {
    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), value.as_bytes())
    }

    pub(crate) fn file(self, name: &str, file: &str, content: &[u8]) -> Self {
        self.part(&format!("name=\"{name}\"; filename=\"{file}\""), content)
    }

    fn part(mut self, disposition: &str, content: &[u8]) -> Self {
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; {disposition}\r\n\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(content);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// A request with it.
    pub(crate) fn request(mut self, path: &str) -> Request<Bytes> {
        self.0.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        Request::post(path).header("content-type", kind).body(self.0.into()).unwrap()
    }

    /// Posts it.
    pub(crate) async fn post(self, house: &House, path: &str) -> Answer {
        ask(house.address(), self.request(path)).await
    }
}
