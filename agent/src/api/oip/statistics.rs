//! What was counted of models, as the statistics extension tells it. Knows no transport.

use std::collections::BTreeMap;

use adit_common::id::{ModelName, Version};
use adit_common::oip::{BatchStatistics, InferStatistics, MemoryUsage, ModelStatistics, StatisticDuration, Statistics};

use super::super::router::Api;
use crate::error::InferError;
use crate::metrics::{Figures, Total};
use crate::serving::{Card, Choice};

/// The statistics of all models, of one, or of one version of it. A version that was loaded once is told of for as long as the
/// agent runs, so that no sum over agents ever falls.
pub(crate) fn statistics(api: &Api, target: Option<&(ModelName, Choice)>) -> Result<Statistics, InferError> {
    let version = match target {
        Some((model, choice @ Choice::Label(_))) => Some(api.serving.catalogue().card(model, choice)?.version),
        Some((_, Choice::Version(version))) => Some(*version),
        _ => None,
    };
    let mut memory = memory(api);
    let meant = |model: &ModelName, number: Version| {
        target.is_none_or(|(wanted, _)| wanted == model) && version.is_none_or(|wanted| wanted == number)
    };
    let accounts = api.metrics.accounts().into_iter().filter(|(model, version, _)| meant(model, *version));
    let model_stats: Vec<_> = accounts
        .map(|(model, version, account)| {
            let taken = memory.remove(&(model.clone(), version));
            told(&model, version, &account.figures(), taken)
        })
        .collect();
    if let (Some((model, choice)), []) = (target, &model_stats[..]) {
        // Never loaded: the catalogue knows why.
        api.serving.catalogue().card(model, choice)?;
    }
    Ok(Statistics { model_stats })
}

/// What the weights of each version that is awake take, and where.
fn memory(api: &Api) -> BTreeMap<(ModelName, Version), MemoryUsage> {
    let catalogue = api.serving.catalogue();
    let awake = catalogue.entries().filter(|(_, _, entry)| !entry.is_asleep());
    awake.filter_map(|(name, version, entry)| Some(((name.clone(), version), usage(entry.card()?)))).collect()
}

fn usage(card: &Card) -> MemoryUsage {
    // Such as `cpu`, or `cuda:1`.
    let number = card.device.split_once(':').and_then(|(_, number)| number.parse().ok());
    let kind = if number.is_some() { "GPU" } else { "CPU" };
    MemoryUsage { kind: kind.to_owned(), id: number.unwrap_or(0), byte_size: card.bytes }
}

fn told(model: &ModelName, version: Version, figures: &Figures, memory: Option<MemoryUsage>) -> ModelStatistics {
    let fail = figures.failures.iter().fold(Total::default(), |sum, failure| Total {
        count: sum.count + failure.count,
        nanos: sum.nanos + failure.nanos,
    });
    let sizes = figures.sizes.iter().map(|(size, [input, infer, output])| BatchStatistics {
        batch_size: *size as u64,
        compute_input: duration(*input),
        compute_infer: duration(*infer),
        compute_output: duration(*output),
    });
    ModelStatistics {
        name: model.to_string(),
        version: version.to_string(),
        last_inference: figures.last,
        inference_count: figures.images,
        execution_count: figures.passes,
        inference_stats: InferStatistics {
            success: duration(figures.success),
            fail: duration(fail),
            queue: duration(figures.queue),
            compute_input: duration(figures.input),
            compute_infer: duration(figures.infer),
            compute_output: duration(figures.output),
            // There is no cache.
            ..InferStatistics::default()
        },
        response_stats: BTreeMap::new(),
        batch_stats: sizes.collect(),
        memory_usage: memory.into_iter().collect(),
    }
}

const fn duration(total: Total) -> StatisticDuration {
    StatisticDuration { count: total.count, ns: total.nanos }
}
