//! What is told of the server and of its models. Knows no transport.

use adit_common::id::{ModelName, Version};
use adit_common::manifest::ModelState;
use adit_common::oip::{
    Datatype, DynamicBatching, IndexEntry, InstanceGroup, ModelConfig, ModelInput, ModelMetadata, ModelOutput,
    Parameters, QueuePolicy, ServerMetadata, TensorMetadata, TransactionPolicy, VersionPolicy,
};

use super::super::router::Api;
use super::ask::IMAGE;
use super::outputs::outputs;
use crate::error::InferError;
use crate::serving::{self, Choice, Priority};

/// What this server can do beyond what every one can.
const EXTENSIONS: [&str; 8] = [
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

/// What runs all models, as Triton names such things.
const BACKEND: &str = "candle";

/// The server.
pub(crate) fn server() -> ServerMetadata {
    ServerMetadata {
        name: "adit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

/// Whether there is a model to ask, or why there is none.
pub(crate) fn readiness(api: &Api) -> Result<(), &'static str> {
    let catalogue = api.serving.catalogue();
    match (catalogue.is_settled(), catalogue.first_ready()) {
        (true, Some(_)) => Ok(()),
        (true, None) => Err("no model is ready"),
        (false, _) => Err("models are being loaded"),
    }
}

/// Whether a model can be asked, or why not.
pub(crate) fn model_readiness(api: &Api, (model, choice): &(ModelName, Choice)) -> Result<(), InferError> {
    api.serving.catalogue().card(model, choice).map(drop)
}

/// Whether there is such a model, in whatever state.
pub(crate) fn known(api: &Api, model: &ModelName) -> Result<(), InferError> {
    let there = api.serving.catalogue().versions(model).is_some();
    there.then_some(()).ok_or_else(|| InferError::NotFound { model: model.to_string(), version: None })
}

/// What a model takes and gives.
pub(crate) fn metadata(api: &Api, (model, choice): &(ModelName, Choice)) -> Result<ModelMetadata, InferError> {
    let catalogue = api.serving.catalogue();
    let card = catalogue.card(model, choice)?;
    let ready = catalogue.versions(model).into_iter().flatten().filter(|(_, entry)| entry.card().is_some());
    let mut parameters = Parameters::default();
    for (label, version) in catalogue.labels(model) {
        parameters.set(&format!("label.{label}"), version.0);
    }
    Ok(ModelMetadata {
        name: model.to_string(),
        versions: ready.map(|(version, _)| version.to_string()).collect(),
        platform: card.platform.clone(),
        // `input` is another way to say the same: a client that fills every input it reads of must find one.
        inputs: vec![TensorMetadata { name: IMAGE.into(), datatype: Datatype::Bytes, shape: vec![-1, 1] }],
        outputs: outputs(card.labels.all().len(), card.detects),
        parameters,
    })
}

/// How a model is served.
pub(crate) fn configuration(api: &Api, (model, choice): &(ModelName, Choice)) -> Result<ModelConfig, InferError> {
    let catalogue = api.serving.catalogue();
    let card = catalogue.card(model, choice)?;
    let batching = card.batching;
    // The first dimension is that of the batch.
    let dims = |shape: &[i64]| shape.iter().skip(1).copied().collect();
    let output = |output: TensorMetadata| ModelOutput {
        dims: dims(&output.shape),
        name: output.name,
        data_type: output.datatype,
    };
    let version_policy = match catalogue.policy(model) {
        serving::VersionPolicy::Latest(count) => VersionPolicy::Latest { num_versions: narrow(*count) },
        serving::VersionPolicy::All => VersionPolicy::All {},
        serving::VersionPolicy::Specific(versions) => {
            VersionPolicy::Specific { versions: versions.iter().map(|version| version.0).collect() }
        }
    };
    let shared = || DynamicBatching {
        preferred_batch_size: (batching.max_batch > 0).then(|| narrow(batching.max_batch)).into_iter().collect(),
        max_queue_delay_microseconds: u64::try_from(batching.max_delay.as_micros()).unwrap_or(u64::MAX),
        priority_levels: Priority::LEVELS,
        default_priority_level: Priority::DEFAULT,
        default_queue_policy: QueuePolicy {
            timeout_action: "REJECT".to_owned(),
            default_timeout_microseconds: 0,
            allow_timeout_override: true,
            max_queue_size: narrow(card.queue),
        },
    };
    Ok(ModelConfig {
        name: model.to_string(),
        platform: card.platform.clone(),
        backend: BACKEND.to_owned(),
        version_policy,
        max_batch_size: narrow(api.serving.max_images()),
        input: vec![ModelInput {
            name: IMAGE.to_owned(),
            data_type: Datatype::Bytes,
            format: "FORMAT_NONE".to_owned(),
            dims: vec![1],
            optional: false,
        }],
        output: outputs(card.labels.all().len(), card.detects).into_iter().map(output).collect(),
        instance_group: vec![InstanceGroup {
            name: model.to_string(),
            kind: if &*card.device == "cpu" { "KIND_CPU" } else { "KIND_GPU" }.to_owned(),
            count: narrow(card.workers),
        }],
        dynamic_batching: (batching.max_batch != 1).then(shared),
        model_transaction_policy: TransactionPolicy { decoupled: false },
    })
}

/// Every version of every model with its state, or those that can be asked.
pub(crate) fn index(api: &Api, ready: bool) -> Vec<IndexEntry> {
    let models = api.serving.catalogue().report().into_iter();
    let entry = |model: adit_common::manifest::Model| IndexEntry {
        name: model.name.to_string(),
        // Zero stands for a version that is not known.
        version: if model.version == Version(0) { String::new() } else { model.version.to_string() },
        state: Some(model.state),
        reason: model.reason,
    };
    models.filter(|model| !ready || model.state == ModelState::Ready).map(entry).collect()
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
