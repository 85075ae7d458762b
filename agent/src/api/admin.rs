//! Health and metrics, for whoever runs the agent. On a listener of its own, never through a tunnel.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::reply::{bytes, json, refusal};
use crate::metrics::Metrics;
use crate::serving::Serving;

/// `/healthz` and `/metrics`; it is not healthy where a worker without progress for `patience` is not replaced, or no model
/// is left that answers.
pub fn admin(serving: Serving, metrics: Arc<Metrics>, patience: Duration) -> Router {
    let health = {
        let metrics = metrics.clone();
        async move || {
            let (settled, given_up) = (serving.catalogue().is_settled(), serving.catalogue().given_up());
            if serving.is_alive(patience) {
                json(
                    StatusCode::OK,
                    &json!({
                        "alive": true, "models_loaded": settled, "models_given_up": given_up,
                        "sessions": metrics.sessions(),
                    }),
                )
            } else {
                json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "alive": false, "error": "a model shows no progress" }))
            }
        }
    };
    let text = async move || {
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        bytes(StatusCode::OK, kind, metrics.render().into())
    };
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(text))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "here are /healthz and /metrics"))
}
