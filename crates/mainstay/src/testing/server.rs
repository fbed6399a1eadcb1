//! A server with the whole stack on a free port, whose log and metrics a test can read.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use mainstay::testing::{StackSettings, TestServer, request, routes};
//!
//! let router = axum::Router::new().route("/hello", axum::routing::get(async || "Hello"));
//! let settings = StackSettings { rate_limit_max: 2, ..StackSettings::default() };
//! let server = TestServer::start(routes(router, &["GET /hello"], &[]), settings);
//! let answer = server.exchange(request("GET", "/hello", &[], "")).await;
//! assert_eq!((answer.status, server.count("/hello", 200)), (200, 1));
//! # }
//! ```

// A test's tool fails by panicking.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use serde_json::Value;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::{OpenApiBuilder, PathItem, PathsBuilder};

use super::client::{Answer, Client};
use crate::auth::Auth;
use crate::client::Networks;
use crate::clock::Clock;
use crate::config::{ContentPolicy, LogFormat, Origins};
use crate::error::Detail;
use crate::log::{self, Sink};
use crate::metrics::Metrics;
use crate::routes::Routes;
use crate::serve::{Drain, Limits, Stack, bind, serve};
use crate::stack::{BodyLimit, Compress, Conform, Cors, Deadline, Observe, Overload, PanicBarrier, RateLimit, SecureHeaders, from_the_street};

/// How long [`TestServer::logged`] waits for a line that is not there yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// The settings of the stack. The default is the stack of production as far as a test allows: limits so wide that a test meets only the one it sets.
#[derive(Debug, Clone)]
pub struct StackSettings {
    /// The proxies whose `X-Forwarded-For` counts. Default: none.
    pub trusted: Networks,
    /// What the client is told of a fault. Default: no causes.
    pub detail: Detail,
    /// The content security policy. Default: that of documents, which is helmet's.
    pub policy: ContentPolicy,
    /// The origins that may read answers. Default: `https://app.example.com`.
    pub origins: Origins,
    /// Whether pages may send credentials. Default: yes.
    pub credentials: bool,
    /// The time budget of a request. Default: 30 s.
    pub budget: Duration,
    /// Most requests worked on at once. Default: 1,000.
    pub concurrency_max: usize,
    /// As few as the limit may be when it is learnt. Default: it is not.
    pub concurrency_min: usize,
    /// Whose accounts come before strangers under load. Default: nobody's.
    pub auth: Option<Auth>,
    /// Requests of one client in any window. Default: 1,000,000.
    pub rate_limit_max: u32,
    /// The window. Default: 15 min.
    pub rate_limit_window: Duration,
    /// Clients without a limit. Default: none.
    pub exempt: Networks,
    /// The bounds of bodies. Default: 1 MiB at the usual pace.
    pub body: BodyLimit,
    /// The limits of the transport. Default: those of production.
    pub limits: Limits,
}

impl Default for StackSettings {
    fn default() -> Self {
        Self {
            trusted: Networks::default(),
            detail: Detail::Message,
            policy: ContentPolicy::Documents,
            origins: Origins { any: false, list: vec!["https://app.example.com".to_owned()] },
            credentials: true,
            budget: Duration::from_secs(30),
            concurrency_max: 1000,
            concurrency_min: usize::MAX,
            auth: None,
            rate_limit_max: 1_000_000,
            rate_limit_window: Duration::from_secs(900),
            exempt: Networks::default(),
            body: BodyLimit::new(1 << 20),
            limits: Limits::default(),
        }
    }
}

/// Routes without a document of their own: each of `listed` is a method and a pattern, such as `GET /products/{id}`. No limit refuses those of `unlimited`.
///
/// # Panics
/// When a line of `listed` is no method of OpenAPI and a pattern.
pub fn routes(router: Router, listed: &[&str], unlimited: &[&str]) -> Routes {
    let mut paths = PathsBuilder::new();
    for line in listed {
        let (method, pattern) = line.split_once(' ').unwrap_or_else(|| panic!("{line}: not a method and a pattern"));
        let method = match method {
            "GET" => HttpMethod::Get,
            "POST" => HttpMethod::Post,
            "PUT" => HttpMethod::Put,
            "PATCH" => HttpMethod::Patch,
            "DELETE" => HttpMethod::Delete,
            _ => panic!("{line}: not a method of OpenAPI"),
        };
        paths = paths.path(pattern, PathItem::new(method, Operation::new()));
    }
    Routes::new(router, &OpenApiBuilder::new().paths(paths).build(), &[], unlimited)
}

/// A server on a free port of the loopback interface. Dropping it cuts its connections.
pub struct TestServer {
    address: SocketAddr,
    drain: Drain,
    log: Lines,
    metrics: Metrics,
}

/// A log that is kept.
struct Lines {
    sink: Sink,
    read: Mutex<Vec<Value>>,
}

impl Lines {
    fn new() -> Lines {
        Lines { sink: Sink::memory(LogFormat::Json), read: Mutex::default() }
    }

    fn all(&self) -> Vec<Value> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.extend(self.sink.take().lines().map(|line| serde_json::from_str(line).unwrap()));
        read.clone()
    }
}

/// Events of `tracing` belong to the process, not to one server.
static EVENTS: OnceLock<Lines> = OnceLock::new();

impl TestServer {
    /// Serves these routes behind the whole stack.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and when no port can be had.
    pub fn start(routes: Routes, settings: StackSettings) -> TestServer {
        let StackSettings { trusted, detail, policy, origins, credentials, budget, concurrency_max, concurrency_min, .. } = settings;
        let overload = Overload::new(concurrency_max).floor(concurrency_min).naming(routes.table());
        let overload = settings.auth.into_iter().fold(overload, Overload::knowing);
        let rate_limit = RateLimit::new(settings.rate_limit_max, settings.rate_limit_window, settings.exempt);
        Self::around(settings.limits, |log, metrics| {
            from_the_street(trusted)
                .enter(Observe::new(routes.table(), detail, log, metrics, Clock::system()))
                .enter(PanicBarrier)
                .enter(SecureHeaders::new(policy))
                .enter(Cors::new(origins, credentials))
                .enter(Compress)
                .enter(Conform)
                .enter(Deadline::new(budget))
                .enter(overload)
                .enter(rate_limit)
                .enter(settings.body)
                .around(routes)
        })
    }

    /// Serves what `make` puts together, a service with a stack of its own; it writes to the log and the metrics that `make` is given.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and when no port can be had.
    pub fn around<S: Stack>(limits: Limits, make: impl FnOnce(Sink, Metrics) -> S) -> TestServer {
        // Access lines need a subscriber that wants them.
        log::init(&EVENTS.get_or_init(Lines::new).sink, "info");
        let (log, metrics, drain) = (Lines::new(), Metrics::local(), Drain::new());
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, make(log.sink.clone(), metrics.clone()), limits, drain.clone()));
        TestServer { address, drain, log, metrics }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to it.
    ///
    /// # Panics
    /// When it does not take one.
    pub async fn connect(&self) -> Client {
        Client::connect(self.address).await.unwrap()
    }

    /// Sends one request, as it is, over a connection of its own and reads the answer.
    ///
    /// # Panics
    /// When there is none.
    pub async fn exchange(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        // A server that refuses early may close before all is sent; its answer is there all the same.
        let _ = client.write(request.as_ref()).await;
        client.read(request.as_ref().starts_with(b"HEAD ")).await.unwrap()
    }

    /// The access lines so far.
    ///
    /// # Panics
    /// When a line is no JSON.
    pub fn log(&self) -> Vec<Value> {
        self.log.all()
    }

    /// All lines under this request id, events included, as soon as its access line is there; those that there are after 10 s.
    ///
    /// # Panics
    /// When a line is no JSON.
    pub async fn logged(&self, request_id: &str) -> Vec<Value> {
        let begun = Instant::now();
        let of = |lines: Vec<Value>| lines.into_iter().filter(|line| line["request_id"] == request_id).collect::<Vec<_>>();
        loop {
            let mut lines = of(self.log());
            if !lines.is_empty() || begun.elapsed() > PATIENCE {
                lines.extend(EVENTS.get().map(|events| of(events.all())).unwrap_or_default());
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Requests counted so far for a pattern (`unknown` for what is no route) and a status.
    #[must_use]
    pub fn count(&self, route: &str, status: u16) -> u64 {
        let series = format!("mainstay_http_requests_total{{route=\"{route}\",status=\"{status}\"}} ");
        let text = self.metrics();
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
    }

    /// Its metrics in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics.render()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.drain.cut();
    }
}
