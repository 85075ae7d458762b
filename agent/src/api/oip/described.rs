//! What is told of models and of the server, as messages of gRPC: the same as over HTTP.

use std::collections::{BTreeMap, HashMap};

use adit_common::oip::{
    BatchStatistics, Datatype, InferStatistics, LogSettings, LogUpdate, ModelConfig, ModelStatistics,
    StatisticDuration, TraceSettings, VersionPolicy,
};
use adit_proto::inference as proto;
use proto::model_version_policy::PolicyChoice;

/// A model's configuration.
pub(super) fn config(config: ModelConfig) -> proto::ModelConfig {
    let input = config.input.into_iter().map(|input| proto::ModelInput {
        name: input.name,
        data_type: data_type(input.data_type),
        format: format(&input.format),
        dims: input.dims,
    });
    let output = config.output.into_iter().map(|output| proto::ModelOutput {
        name: output.name,
        data_type: data_type(output.data_type),
        dims: output.dims,
        label_filename: String::new(),
    });
    let groups = config.instance_group.into_iter().map(|group| proto::ModelInstanceGroup {
        kind: proto::model_instance_group::Kind::from_str_name(&group.kind).unwrap_or_default().into(),
        name: group.name,
        count: i32::try_from(group.count).unwrap_or(i32::MAX),
        gpus: Vec::new(),
    });
    let batching = config.dynamic_batching.map(|batching| {
        let policy = batching.default_queue_policy;
        let action = proto::model_queue_policy::TimeoutAction::from_str_name(&policy.timeout_action);
        proto::ModelDynamicBatching {
            preferred_batch_size: batching.preferred_batch_size.into_iter().map(|size| size as i32).collect(),
            max_queue_delay_microseconds: batching.max_queue_delay_microseconds,
            preserve_ordering: false,
            priority_levels: batching.priority_levels,
            default_priority_level: batching.default_priority_level,
            default_queue_policy: Some(proto::ModelQueuePolicy {
                timeout_action: action.unwrap_or_default().into(),
                default_timeout_microseconds: policy.default_timeout_microseconds,
                allow_timeout_override: policy.allow_timeout_override,
                max_queue_size: policy.max_queue_size,
            }),
        }
    });
    let policy = match config.version_policy {
        VersionPolicy::Latest { num_versions } => {
            PolicyChoice::Latest(proto::model_version_policy::Latest { num_versions })
        }
        VersionPolicy::All {} => PolicyChoice::All(proto::model_version_policy::All {}),
        VersionPolicy::Specific { versions } => PolicyChoice::Specific(proto::model_version_policy::Specific {
            versions: versions.into_iter().map(|version| i64::try_from(version).unwrap_or(i64::MAX)).collect(),
        }),
    };
    proto::ModelConfig {
        name: config.name,
        platform: config.platform,
        version_policy: Some(proto::ModelVersionPolicy { policy_choice: Some(policy) }),
        max_batch_size: i32::try_from(config.max_batch_size).unwrap_or(i32::MAX),
        input: input.collect(),
        output: output.collect(),
        instance_group: groups.collect(),
        dynamic_batching: batching,
        backend: config.backend,
        model_transaction_policy: Some(proto::ModelTransactionPolicy {
            decoupled: config.model_transaction_policy.decoupled,
        }),
    }
}

fn data_type(datatype: Datatype) -> i32 {
    proto::DataType::from_str_name(datatype.config_name()).unwrap_or_default().into()
}

fn format(name: &str) -> i32 {
    proto::model_input::Format::from_str_name(name).unwrap_or_default().into()
}

/// What was counted of one version of a model.
pub(super) fn statistics(counted: ModelStatistics) -> proto::ModelStatistics {
    let memory = counted.memory_usage.into_iter().map(|usage| proto::MemoryUsage {
        r#type: usage.kind,
        id: usage.id,
        byte_size: usage.byte_size,
    });
    proto::ModelStatistics {
        name: counted.name,
        version: counted.version,
        last_inference: counted.last_inference,
        inference_count: counted.inference_count,
        execution_count: counted.execution_count,
        inference_stats: Some(stages(&counted.inference_stats)),
        batch_stats: counted.batch_stats.iter().map(batch).collect(),
        memory_usage: memory.collect(),
    }
}

fn stages(counted: &InferStatistics) -> proto::InferStatistics {
    proto::InferStatistics {
        success: duration(counted.success),
        fail: duration(counted.fail),
        queue: duration(counted.queue),
        compute_input: duration(counted.compute_input),
        compute_infer: duration(counted.compute_infer),
        compute_output: duration(counted.compute_output),
        cache_hit: duration(counted.cache_hit),
        cache_miss: duration(counted.cache_miss),
    }
}

fn batch(counted: &BatchStatistics) -> proto::InferBatchStatistics {
    proto::InferBatchStatistics {
        batch_size: counted.batch_size,
        compute_input: duration(counted.compute_input),
        compute_infer: duration(counted.compute_infer),
        compute_output: duration(counted.compute_output),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a message within a message is optional")]
const fn duration(counted: StatisticDuration) -> Option<proto::StatisticDuration> {
    Some(proto::StatisticDuration { count: counted.count, ns: counted.ns })
}

/// The settings of traces.
pub(super) fn traces(settings: TraceSettings) -> proto::TraceSettingResponse {
    let value = |value: Vec<String>| proto::trace_setting_response::SettingValue { value };
    let settings = [
        ("trace_level", settings.trace_level),
        ("trace_rate", vec![settings.trace_rate]),
        ("trace_count", vec![settings.trace_count]),
        ("log_frequency", vec![settings.log_frequency]),
        ("trace_file", vec![settings.trace_file]),
        ("trace_mode", vec![settings.trace_mode]),
    ];
    let settings = settings.into_iter().map(|(name, values)| (name.to_owned(), value(values)));
    proto::TraceSettingResponse { settings: settings.collect() }
}

/// The traces' settings that a request changes.
pub(super) fn trace_update(
    settings: HashMap<String, proto::trace_setting_request::SettingValue>,
) -> BTreeMap<String, Vec<String>> {
    settings.into_iter().map(|(name, setting)| (name, setting.value)).collect()
}

/// The log's settings.
pub(super) fn log(settings: LogSettings) -> proto::LogSettingsResponse {
    use proto::log_settings_response::SettingValue;
    use proto::log_settings_response::setting_value::ParameterChoice::{BoolParam, StringParam, Uint32Param};
    let settings = [
        ("log_file", StringParam(settings.log_file)),
        ("log_info", BoolParam(settings.log_info)),
        ("log_warning", BoolParam(settings.log_warning)),
        ("log_error", BoolParam(settings.log_error)),
        ("log_verbose_level", Uint32Param(settings.log_verbose_level)),
        ("log_format", StringParam(settings.log_format)),
    ];
    let value = |choice| SettingValue { parameter_choice: Some(choice) };
    proto::LogSettingsResponse {
        settings: settings.into_iter().map(|(name, choice)| (name.to_owned(), value(choice))).collect(),
    }
}

/// The log's settings that a request changes. An error is for the caller.
pub(super) fn log_update(
    settings: HashMap<String, proto::log_settings_request::SettingValue>,
) -> Result<LogUpdate, String> {
    use proto::log_settings_request::setting_value::ParameterChoice::{BoolParam, StringParam, Uint32Param};
    let mut update = LogUpdate::default();
    for (name, setting) in settings {
        match (name.as_str(), setting.parameter_choice) {
            ("log_file", Some(StringParam(file))) => update.log_file = Some(file),
            ("log_info", Some(BoolParam(on))) => update.log_info = Some(on),
            ("log_warning", Some(BoolParam(on))) => update.log_warning = Some(on),
            ("log_error", Some(BoolParam(on))) => update.log_error = Some(on),
            ("log_verbose_level", Some(Uint32Param(level))) => update.log_verbose_level = Some(level),
            ("log_format", Some(StringParam(format))) => update.log_format = Some(format),
            // Without a value a setting stays as it is.
            (_, None) => {}
            (other, Some(_)) => {
                let other: String = other.chars().take(80).collect();
                return Err(format!("`{other}` is no setting of the log, or has a value of another kind"));
            }
        }
    }
    Ok(update)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_has_its_number() {
        for datatype in Datatype::ALL {
            assert_ne!(data_type(datatype), 0, "{}", datatype.name());
        }
        assert_eq!((data_type(Datatype::Bytes), data_type(Datatype::Fp32)), (13, 11));
    }

    #[test]
    fn a_setting_of_another_kind_is_refused_by_name() {
        use proto::log_settings_request::SettingValue;
        use proto::log_settings_request::setting_value::ParameterChoice;
        let one = |name: &str, choice| {
            log_update(HashMap::from([(name.to_owned(), SettingValue { parameter_choice: choice })]))
        };
        assert_eq!(one("log_info", Some(ParameterChoice::BoolParam(false))).unwrap().log_info, Some(false));
        assert_eq!(one("log_info", None).unwrap(), LogUpdate::default());
        assert!(one("log_info", Some(ParameterChoice::StringParam("no".into()))).unwrap_err().contains("`log_info`"));
    }
}
