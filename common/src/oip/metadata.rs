//! What a server says of itself and of its models.

use serde::{Deserialize, Serialize};

use super::datatype::Datatype;
use super::parameters::Parameters;
use crate::manifest::ModelState;

/// The answer to `GET /v2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMetadata {
    /// The server's name.
    pub name: String,
    /// Its software version.
    pub version: String,
    /// The extensions of the protocol that it has, such as `binary_tensor_data`.
    #[serde(default)]
    pub extensions: Vec<String>,
}

/// The answer to `GET /v2/models/{model}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The model's name.
    pub name: String,
    /// The versions that can be asked, as texts.
    #[serde(default)]
    pub versions: Vec<String>,
    /// What runs it.
    #[serde(default)]
    pub platform: String,
    /// What it takes.
    #[serde(default)]
    pub inputs: Vec<TensorMetadata>,
    /// What it gives.
    #[serde(default)]
    pub outputs: Vec<TensorMetadata>,
    /// What else is to be known: `label.stable` is the version that `stable` stands for.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
}

/// One input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Its dimensions; -1 where any length will do.
    pub shape: Vec<i64>,
}

/// The body of `POST /v2/repository/index`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexRequest {
    /// Only the models that can be asked.
    #[serde(default)]
    pub ready: bool,
}

/// One version of a model in the answer to `POST /v2/repository/index`, which is a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// Its version as a text; empty where there is none.
    #[serde(default)]
    pub version: String,
    /// Whether it can be asked; a server may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ModelState>,
    /// Why it cannot.
    #[serde(default)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_spelled_as_clients_read_it() {
        let text = r#"{"name":"digits","versions":["1"],"platform":"candle","inputs":[{"name":"image","datatype":"BYTES","shape":[-1]}],"outputs":[{"name":"probabilities","datatype":"FP32","shape":[-1,10]}]}"#;
        let metadata: ModelMetadata = serde_json::from_str(text).unwrap();
        assert_eq!(metadata.outputs[0].shape, [-1, 10]);
        assert_eq!(serde_json::to_string(&metadata).unwrap(), text);
        let text = r#"{"name":"digits","version":"1","state":"READY","reason":""}"#;
        let entry: IndexEntry = serde_json::from_str(text).unwrap();
        assert_eq!(entry.state, Some(ModelState::Ready));
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        assert!(!serde_json::from_str::<IndexRequest>("{}").unwrap().ready);
    }
}
