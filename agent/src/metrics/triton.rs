//! The accounts of models under the names of Triton's metrics, so that dashboards made for it find what they look for.
//!
//! What is not there is not told: no cache, and no GPU.

use std::sync::Arc;

use adit_common::id::{ModelName, Version};

use super::account::{Account, Failure, Figures};
use super::text::{escape, head, line};

/// A name behind `nv_inference_`, what it counts, and where that is read.
type Metric = (&'static str, &'static str, fn(&Figures) -> u64);

const COUNTERS: [Metric; 7] = [
    ("count", "Images of answered requests.", |figures| figures.images),
    ("exec_count", "Forward passes run to their end.", |figures| figures.passes),
    ("request_duration_us", "Time of answered requests.", |figures| figures.success.nanos / 1000),
    ("queue_duration_us", "Waiting for a core or a worker.", |figures| figures.queue.nanos / 1000),
    ("compute_input_duration_us", "Decoding and preparing.", |figures| figures.input.nanos / 1000),
    ("compute_infer_duration_us", "Forward passes.", |figures| figures.infer.nanos / 1000),
    ("compute_output_duration_us", "Interpreting and writing.", |figures| figures.output.nanos / 1000),
];

/// Writes all accounts.
pub(super) fn render(out: &mut String, accounts: &[(ModelName, Version, Arc<Account>)]) {
    let label =
        |model: &ModelName, version: &Version| format!("model=\"{}\",version=\"{version}\"", escape(model.as_str()));
    let figures: Vec<_> =
        accounts.iter().map(|(model, version, account)| (label(model, version), account.figures())).collect();
    head(out, "nv_inference_request_success", "counter", "Answered requests.");
    for (label, figures) in &figures {
        line(out, format_args!("nv_inference_request_success{{{label}}} {}", figures.success.count));
    }
    head(out, "nv_inference_request_failure", "counter", "Requests without an answer, by reason.");
    for (label, figures) in &figures {
        for (reason, total) in Failure::ALL.iter().zip(figures.failures) {
            let reason = reason.name();
            line(out, format_args!("nv_inference_request_failure{{{label},reason=\"{reason}\"}} {}", total.count));
        }
    }
    for (name, help, read) in COUNTERS {
        head(out, &format!("nv_inference_{name}"), "counter", help);
        for (label, figures) in &figures {
            line(out, format_args!("nv_inference_{name}{{{label}}} {}", read(figures)));
        }
    }
    head(out, "nv_inference_pending_request_count", "gauge", "Requests that wait for a worker now.");
    for (label, figures) in &figures {
        line(out, format_args!("nv_inference_pending_request_count{{{label}}} {}", figures.pending));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::account::Spent;
    use super::*;

    #[test]
    fn an_account_is_told_under_tritons_names() {
        let account = Arc::new(Account::default());
        let micros = Duration::from_micros;
        let spent = Spent { queue: micros(1), input: micros(20), infer: micros(300), output: micros(4000) };
        account.ran(3, micros(300));
        account.answered(3, 3, spent);
        account.failed(Failure::Rejected, Duration::ZERO);
        let mut text = String::new();
        render(&mut text, &[(ModelName::new("digits").unwrap(), Version(7), account)]);
        for (name, value) in [
            ("request_success", 1),
            ("count", 3),
            ("exec_count", 1),
            ("request_duration_us", 4321),
            ("queue_duration_us", 1),
            ("compute_input_duration_us", 20),
            ("compute_infer_duration_us", 300),
            ("compute_output_duration_us", 4000),
            ("pending_request_count", 0),
        ] {
            let expected = format!("\nnv_inference_{name}{{model=\"digits\",version=\"7\"}} {value}\n");
            assert!(text.contains(&expected), "{expected} is not in\n{text}");
            assert!(text.contains(&format!("# HELP nv_inference_{name} ")), "{name}");
            assert!(text.contains(&format!("# TYPE nv_inference_{name} ")), "{name}");
        }
        let failure = "nv_inference_request_failure{model=\"digits\",version=\"7\",reason=";
        assert!(text.contains(&format!("{failure}\"REJECTED\"}} 1\n{failure}\"CANCELED\"}} 0\n")), "{text}");
    }
}
