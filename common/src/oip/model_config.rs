//! The model configuration extension: a model as Triton describes its own, as far as that has a meaning here.
//!
//! Shapes are told differently from metadata: without the dimension of the batch, where a model takes batches at all.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::datatype::Datatype;
use super::error::{OipError, quote};

/// The answer to `GET /v2/models/{model}[/versions/{version}]/config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The model's name.
    pub name: String,
    /// What runs it, with what it runs.
    pub platform: String,
    /// What runs it.
    pub backend: String,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// Images that one request may have; more than 0, so shapes have a dimension less than in metadata.
    pub max_batch_size: u32,
    /// What it takes.
    pub input: Vec<ModelInput>,
    /// What it gives.
    pub output: Vec<ModelOutput>,
    /// Where its workers are.
    pub instance_group: Vec<InstanceGroup>,
    /// How requests share a pass; absent where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic_batching: Option<DynamicBatching>,
    /// How answers follow requests.
    pub model_transaction_policy: TransactionPolicy,
}

/// Which versions are served of those that are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionPolicy {
    /// The newest.
    Latest {
        /// So many.
        num_versions: u32,
    },
    /// Every one.
    All {},
    /// Just these.
    Specific {
        /// Their numbers.
        versions: Vec<u64>,
    },
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInput {
    /// Its name.
    pub name: String,
    /// What its elements are.
    #[serde(with = "spelled")]
    pub data_type: Datatype,
    /// What its dimensions are, such as `FORMAT_NONE`.
    pub format: String,
    /// Its dimensions without that of the batch; -1 where any length will do.
    pub dims: Vec<i64>,
    /// Whether it may be left out.
    pub optional: bool,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutput {
    /// Its name.
    pub name: String,
    /// What its elements are.
    #[serde(with = "spelled")]
    pub data_type: Datatype,
    /// Its dimensions without that of the batch; -1 where any length will do.
    pub dims: Vec<i64>,
}

/// Workers of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceGroup {
    /// What they are called.
    pub name: String,
    /// What they compute on, such as `KIND_CPU`.
    pub kind: String,
    /// How many there are.
    pub count: u32,
}

/// How requests share a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicBatching {
    /// Sizes that are aimed at; none where that is found out by measuring.
    pub preferred_batch_size: Vec<u32>,
    /// How long a request may wait for company.
    pub max_queue_delay_microseconds: u64,
    /// Levels of priority; 1 is the highest.
    pub priority_levels: u64,
    /// The level of a request that does not say.
    pub default_priority_level: u64,
    /// How requests wait.
    pub default_queue_policy: QueuePolicy,
}

/// How requests wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePolicy {
    /// What happens when their time is over, such as `REJECT`.
    pub timeout_action: String,
    /// How long they wait where they do not say; 0 for ever.
    pub default_timeout_microseconds: u64,
    /// Whether a request may say how long.
    pub allow_timeout_override: bool,
    /// Images that may wait.
    pub max_queue_size: u32,
}

/// How answers follow requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionPolicy {
    /// Whether a request may have none or several.
    pub decoupled: bool,
}

impl Datatype {
    /// What configurations call it, such as `TYPE_FP32`.
    pub const fn config_name(self) -> &'static str {
        match self {
            Self::Bool => "TYPE_BOOL",
            Self::Uint8 => "TYPE_UINT8",
            Self::Uint16 => "TYPE_UINT16",
            Self::Uint32 => "TYPE_UINT32",
            Self::Uint64 => "TYPE_UINT64",
            Self::Int8 => "TYPE_INT8",
            Self::Int16 => "TYPE_INT16",
            Self::Int32 => "TYPE_INT32",
            Self::Int64 => "TYPE_INT64",
            Self::Fp16 => "TYPE_FP16",
            Self::Bf16 => "TYPE_BF16",
            Self::Fp32 => "TYPE_FP32",
            Self::Fp64 => "TYPE_FP64",
            Self::Bytes => "TYPE_STRING",
        }
    }
}

/// Datatypes as configurations spell them.
mod spelled {
    use super::{Datatype, Deserialize, Deserializer, OipError, Serializer, quote};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    pub(super) fn serialize<S: Serializer>(datatype: &Datatype, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(datatype.config_name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Datatype, D::Error> {
        let text = String::deserialize(from)?;
        let found = Datatype::ALL.into_iter().find(|datatype| datatype.config_name() == text);
        found.ok_or_else(|| serde::de::Error::custom(OipError::Datatype(quote(&text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_spelled_as_clients_read_it() {
        let text = concat!(
            r#"{"name":"digits","platform":"candle_lenet","backend":"candle","version_policy":{"latest":{"num_versions":1}},"#,
            r#""max_batch_size":32,"input":[{"name":"image","data_type":"TYPE_STRING","format":"FORMAT_NONE","dims":[1],"#,
            r#""optional":false}],"output":[{"name":"probabilities","data_type":"TYPE_FP32","dims":[10]}],"#,
            r#""instance_group":[{"name":"digits","kind":"KIND_CPU","count":2}],"dynamic_batching":{"#,
            r#""preferred_batch_size":[8],"max_queue_delay_microseconds":500,"priority_levels":16,"default_priority_level":2,"#,
            r#""default_queue_policy":{"timeout_action":"REJECT","default_timeout_microseconds":0,"#,
            r#""allow_timeout_override":true,"max_queue_size":256}},"model_transaction_policy":{"decoupled":false}}"#
        );
        let config: ModelConfig = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
        let policy = |policy| serde_json::to_string(&policy).unwrap();
        assert_eq!(policy(VersionPolicy::All {}), r#"{"all":{}}"#);
        assert_eq!(policy(VersionPolicy::Specific { versions: vec![1, 7] }), r#"{"specific":{"versions":[1,7]}}"#);
    }

    #[test]
    fn every_datatype_has_a_name_of_its_own() {
        for datatype in Datatype::ALL {
            let expected = if datatype == Datatype::Bytes { "TYPE_STRING".into() } else { format!("TYPE_{datatype}") };
            assert_eq!(datatype.config_name(), expected);
        }
    }
}
