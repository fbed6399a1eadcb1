//! What every request counts: how many, with which status, how long. Plain atomics per route: a request costs four additions and no look-up by name.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;

use super::LATENCY_S;
use crate::routes::RouteTable;

/// Statuses from 100 to 599.
const STATUSES: usize = 500;

/// The counters of one stack.
pub(crate) struct Requests {
    /// One per route, and the last for all unknown ones: no stranger chooses our labels.
    routes: Box<[PerRoute]>,
    begun: AtomicU64,
}

struct PerRoute {
    pattern: String,
    by_status: Box<[AtomicU64]>,
    /// Requests by the first bound that they do not exceed; the last is for those over all bounds.
    buckets: [AtomicU64; LATENCY_S.len() + 1],
    sum_us: AtomicU64,
}

impl PerRoute {
    fn new(pattern: &str) -> Self {
        Self {
            pattern: pattern.to_owned(),
            by_status: (0..STATUSES).map(|_| AtomicU64::new(0)).collect(),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Requests {
    pub(super) fn new(table: &RouteTable) -> Self {
        let routes = table.all.iter().map(|route| PerRoute::new(&route.pattern)).chain([PerRoute::new("unknown")]).collect();
        Self { routes, begun: AtomicU64::new(0) }
    }

    /// Requests that began and did not end: what is counted anyway says it.
    fn in_flight(&self) -> u64 {
        let ended: u64 = self.routes.iter().flat_map(|route| &route.buckets).map(|count| count.load(Relaxed)).sum();
        self.begun.load(Relaxed).saturating_sub(ended)
    }

    /// A request began.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    /// A request ended: with a status, or without one because its client left.
    pub(crate) fn end(&self, route: Option<usize>, status: Option<StatusCode>, took: Duration) {
        let Some(per_route) = route.and_then(|index| self.routes.get(index)).or(self.routes.last()) else { return };
        // 499: the client closed the request, as nginx counts it.
        let status = status.map_or(499, |status| status.as_u16());
        if let Some(count) = per_route.by_status.get(usize::from(status.saturating_sub(100))) {
            count.fetch_add(1, Relaxed);
        }
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_S.iter().position(|bound| seconds <= *bound).unwrap_or(LATENCY_S.len());
        if let Some(count) = per_route.buckets.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        per_route.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl fmt::Display for Requests {
    /// The Prometheus text format, version 0.0.4. Routes that nobody asked for are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# HELP mainstay_http_requests_in_flight Requests being worked on")?;
        writeln!(f, "# TYPE mainstay_http_requests_in_flight gauge")?;
        writeln!(f, "mainstay_http_requests_in_flight {}\n", self.in_flight())?;
        writeln!(f, "# HELP mainstay_http_requests_total Requests answered, by route and status; 499: the client left first")?;
        writeln!(f, "# TYPE mainstay_http_requests_total counter")?;
        for PerRoute { pattern, by_status, .. } in &self.routes {
            for (index, count) in by_status.iter().enumerate() {
                let count = count.load(Relaxed);
                if count > 0 {
                    writeln!(f, "mainstay_http_requests_total{{route=\"{pattern}\",status=\"{}\"}} {count}", index + 100)?;
                }
            }
        }
        writeln!(f, "\n# HELP mainstay_http_request_seconds Time from the head of the request to the head of the answer")?;
        writeln!(f, "# TYPE mainstay_http_request_seconds histogram")?;
        for PerRoute { pattern, buckets, sum_us, .. } in &self.routes {
            let counts: Vec<u64> = buckets.iter().map(|count| count.load(Relaxed)).collect();
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let mut below = 0;
            for (bound, count) in LATENCY_S.iter().map(f64::to_string).chain(["+Inf".to_owned()]).zip(&counts) {
                below += count;
                writeln!(f, "mainstay_http_request_seconds_bucket{{route=\"{pattern}\",le=\"{bound}\"}} {below}")?;
            }
            #[allow(clippy::cast_precision_loss)] // Exact for 285 years of requests.
            let sum_s = sum_us.load(Relaxed) as f64 / 1e6;
            writeln!(f, "mainstay_http_request_seconds_sum{{route=\"{pattern}\"}} {sum_s}")?;
            writeln!(f, "mainstay_http_request_seconds_count{{route=\"{pattern}\"}} {below}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("routes", &self.routes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_every_end_is_counted_once() {
        let requests = Requests { routes: [PerRoute::new("/a"), PerRoute::new("unknown")].into(), begun: AtomicU64::new(0) };
        for (route, status, took_ms) in [(Some(0), Some(StatusCode::OK), 1), (Some(0), Some(StatusCode::OK), 40_000), (None, None, 3)] {
            requests.begin();
            requests.end(route, status, Duration::from_millis(took_ms));
        }
        let text = requests.to_string();
        for line in [
            "mainstay_http_requests_in_flight 0",
            "mainstay_http_requests_total{route=\"/a\",status=\"200\"} 2",
            "mainstay_http_requests_total{route=\"unknown\",status=\"499\"} 1",
            "mainstay_http_request_seconds_bucket{route=\"/a\",le=\"0.0005\"} 0",
            "mainstay_http_request_seconds_bucket{route=\"/a\",le=\"0.001\"} 1",
            "mainstay_http_request_seconds_bucket{route=\"/a\",le=\"30\"} 1",
            "mainstay_http_request_seconds_bucket{route=\"/a\",le=\"+Inf\"} 2",
            "mainstay_http_request_seconds_sum{route=\"/a\"} 40.001",
            "mainstay_http_request_seconds_count{route=\"/a\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
    }
}
