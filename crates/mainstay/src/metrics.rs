//! Metrics in the Prometheus text format. Those that every request touches are counted by plain atomics of our own (in `metrics/requests.rs`).

mod requests;

use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub(crate) use requests::Requests;

/// Bounds of the latency histograms in seconds: from a cached answer to the deadline, about two per doubling where answers usually are.
const LATENCY_S: [f64; 15] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Where metrics are kept and read.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    /// One per stack: a process has one, a test may have many.
    requests: Arc<Mutex<Vec<Weak<Requests>>>>,
}

impl Metrics {
    /// Metrics of their own, for tests that count.
    pub fn local() -> Self {
        let buckets = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_S);
        // The only error is an empty list of buckets.
        let recorder = buckets.unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder();
        Self { handle: recorder.handle(), recorder: Arc::new(recorder), requests: Arc::default() }
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
        let mut text = self.handle.render();
        for requests in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{requests}");
        }
        text
    }

    /// Counters for the requests of one stack.
    pub(crate) fn requests(&self, table: &crate::routes::RouteTable) -> Arc<Requests> {
        let requests = Arc::new(Requests::new(table));
        let mut all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|requests| requests.strong_count() > 0);
        all.push(Arc::downgrade(&requests));
        requests
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
