//! The statistics extension: how often each version of a model was asked, and where the time went.
//!
//! Every number only grows. Clients take the difference of two readings, so a server that adds up those of several others must
//! never leave one out that it has told of before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer to `GET /v2/models[/{model}[/versions/{version}]]/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// One per version of a model.
    #[serde(default)]
    pub model_stats: Vec<ModelStatistics>,
}

/// What is counted of one version of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelStatistics {
    /// The model's name.
    pub name: String,
    /// Its version, as a text.
    pub version: String,
    /// When it answered last, in milliseconds since 1970; 0 for never.
    #[serde(default)]
    pub last_inference: u64,
    /// Images of answered requests: each of a batch counts.
    #[serde(default)]
    pub inference_count: u64,
    /// Forward passes.
    #[serde(default)]
    pub execution_count: u64,
    /// By what happened to requests, and by stage.
    #[serde(default)]
    pub inference_stats: InferStatistics,
    /// Of models that answer one request several times; there are none.
    #[serde(default)]
    pub response_stats: BTreeMap<String, Value>,
    /// By size of the passes.
    #[serde(default)]
    pub batch_stats: Vec<BatchStatistics>,
    /// What it takes in memory now.
    #[serde(default)]
    pub memory_usage: Vec<MemoryUsage>,
}

/// How often something happened and how long it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatisticDuration {
    /// How often.
    #[serde(default)]
    pub count: u64,
    /// How long in all, in nanoseconds.
    #[serde(default)]
    pub ns: u64,
}

/// Requests by what became of them, and the stages of those that were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InferStatistics {
    /// Answered.
    pub success: StatisticDuration,
    /// Not answered.
    pub fail: StatisticDuration,
    /// Waiting for a device.
    pub queue: StatisticDuration,
    /// Decoding and preparing.
    pub compute_input: StatisticDuration,
    /// Forward passes.
    pub compute_infer: StatisticDuration,
    /// Interpreting what came out, and writing the answer.
    pub compute_output: StatisticDuration,
    /// Answered from a cache.
    pub cache_hit: StatisticDuration,
    /// Looked for in a cache in vain.
    pub cache_miss: StatisticDuration,
}

/// Passes of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchStatistics {
    /// Images in a pass.
    pub batch_size: u64,
    /// Decoding and preparing, of the requests in such passes.
    pub compute_input: StatisticDuration,
    /// The passes.
    pub compute_infer: StatisticDuration,
    /// Interpreting and writing, of the requests in such passes.
    pub compute_output: StatisticDuration,
}

/// What a version takes in one memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// Which kind of memory, such as `CPU`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which of that kind.
    #[serde(default)]
    pub id: i64,
    /// How much.
    #[serde(default)]
    pub byte_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"model_stats":[{"name":"digits","version":"1","last_inference":1763754787000,"inference_count":3,"execution_count":2,"inference_stats":{"success":{"count":2,"ns":8642},"fail":{"count":0,"ns":0},"queue":{"count":2,"ns":2},"compute_input":{"count":2,"ns":40},"compute_infer":{"count":2,"ns":600},"compute_output":{"count":2,"ns":8000},"cache_hit":{"count":0,"ns":0},"cache_miss":{"count":0,"ns":0}},"response_stats":{},"batch_stats":[{"batch_size":3,"compute_input":{"count":2,"ns":40},"compute_infer":{"count":1,"ns":300},"compute_output":{"count":2,"ns":8000}}],"memory_usage":[{"type":"CPU","id":0,"byte_size":4096}]}]}"#;

    #[test]
    fn statistics_are_spelled_as_clients_read_them() {
        let statistics: Statistics = serde_json::from_str(TEXT).unwrap();
        assert_eq!(serde_json::to_string(&statistics).unwrap(), TEXT);
    }
}
