//! The management address: metrics and health details. It is bound to loopback unless the operator says otherwise, and never serves the public.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{StatusCode, header};
use mainstay::log::Sink;
use mainstay::metrics::Metrics;

use crate::app::App;
use crate::health;

/// The routes of the management address.
pub fn router(app: App, metrics: Metrics, log: Sink) -> Router {
    let scrape = async move |State(app): State<App>| {
        app.database.record_metrics();
        app.auth.record_metrics();
        if let Some(redis) = &app.redis {
            redis.record_metrics();
        }
        app.cache.record_metrics();
        app.overload.record_metrics();
        let search = app.search.standing();
        #[allow(clippy::cast_precision_loss)] // Exact up to 2^53 documents.
        {
            metrics::gauge!("mainstay_search_documents").set(search.documents as f64);
            metrics::gauge!("mainstay_search_changes_behind").set(search.behind as f64);
            metrics::gauge!("mainstay_writes_in_progress").set(app.writes.in_progress() as f64);
            metrics::gauge!("mainstay_jobs_running_here").set(app.jobs.running() as f64);
        }
        metrics::counter!("mainstay_log_lines_dropped_total").absolute(log.dropped());
        metrics::counter!("mainstay_search_failures_total").absolute(search.failures);
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
    };
    Router::new()
        .route("/metrics", get(scrape))
        .route("/health", get(health::details))
        .route("/health/live", get(async || "live\n"))
        .fallback(async || (StatusCode::NOT_FOUND, "There are /health, /health/live and /metrics.\n"))
        .with_state(app)
}
