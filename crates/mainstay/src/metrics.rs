//! Metrics in the Prometheus text format, and the two that every request touches, ready at hand per route.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::routes::RouteTable;

/// Bounds of the latency histogram in seconds: from a cached answer to the deadline, about two per doubling where answers usually are.
const LATENCY_S: [f64; 15] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

static METADATA: Metadata<'static> = Metadata::new("mainstay", Level::INFO, None);

/// Where metrics are kept and read.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Metrics {
    /// Metrics of their own, for tests that count.
    pub fn local() -> Self {
        let buckets = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_S);
        // The only error is an empty list of buckets.
        let recorder = buckets.unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder();
        Self { handle: recorder.handle(), recorder: Arc::new(recorder) }
    }

    /// The metrics of the process, to which the macros of the `metrics` crate also write.
    pub fn global() -> Self {
        static GLOBAL: OnceLock<Metrics> = OnceLock::new();
        let metrics = GLOBAL.get_or_init(|| {
            let metrics = Self::local();
            // Fails only when another recorder was set before: then the macros write there, and requests are still counted here.
            let _ = metrics::set_global_recorder(metrics.recorder.clone());
            metrics
        });
        metrics.clone()
    }

    /// All metrics as text, and the upkeep without which histograms grow.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Folds recorded samples into their buckets; call it every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Counters of requests, one line of handles per route, so that a request costs no look-up by name.
pub(crate) struct Requests {
    metrics: Metrics,
    /// One per route, and the last for all unknown ones: no stranger chooses our labels.
    routes: Box<[PerRoute]>,
    pub(crate) in_flight: Gauge,
}

struct PerRoute {
    pattern: String,
    latency: Histogram,
    by_status: Box<[OnceLock<Counter>]>,
}

impl Requests {
    pub(crate) fn new(metrics: Metrics, table: &RouteTable) -> Self {
        let per_route = |pattern: &str| PerRoute {
            latency: metrics
                .recorder
                .register_histogram(&key("mainstay_http_request_seconds", vec![Label::new("route", pattern.to_owned())]), &METADATA),
            pattern: pattern.to_owned(),
            by_status: (100..600).map(|_| OnceLock::new()).collect(),
        };
        let routes = table.all.iter().map(|route| per_route(&route.pattern)).chain([per_route("unknown")]).collect();
        let in_flight = metrics.recorder.register_gauge(&key("mainstay_http_requests_in_flight", Vec::new()), &METADATA);
        metrics.recorder.describe_counter(
            "mainstay_http_requests_total".into(),
            None,
            "Requests answered, by route and status; 499: the client left first".into(),
        );
        metrics.recorder.describe_histogram(
            "mainstay_http_request_seconds".into(),
            None,
            "Time from the head of the request to the head of the answer".into(),
        );
        metrics.recorder.describe_gauge("mainstay_http_requests_in_flight".into(), None, "Requests being worked on".into());
        Self { metrics, routes, in_flight }
    }

    /// Counts a request that ended.
    pub(crate) fn count(&self, route: Option<usize>, status: Option<StatusCode>, took: Duration) {
        let Some(per_route) = route.and_then(|index| self.routes.get(index)).or(self.routes.last()) else { return };
        per_route.latency.record(took.as_secs_f64());
        let status = status.map_or(499, |status| status.as_u16());
        if let Some(counter) = per_route.by_status.get(usize::from(status.saturating_sub(100))) {
            let counter = counter.get_or_init(|| {
                let labels = vec![Label::new("route", per_route.pattern.clone()), Label::new("status", status.to_string())];
                self.metrics.recorder.register_counter(&key("mainstay_http_requests_total", labels), &METADATA)
            });
            counter.increment(1);
        }
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("routes", &self.routes.len()).finish()
    }
}

fn key(name: &'static str, labels: Vec<Label>) -> Key {
    Key::from_parts(name, labels)
}
