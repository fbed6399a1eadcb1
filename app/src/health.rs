//! May traffic come? The public answers; details are on the management address.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::Timestamp;
use mainstay::error::{Error, codes};
use mainstay::health::Phase;
use mainstay::jobs::State as Job;
use mainstay::news::Hearing;
use mainstay::store::{Out, ReplicaStanding};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

/// The routes that no limit may refuse.
pub const PATHS: &[&str] = &["/health", "/health/live", "/health/ready"];

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(summary)).routes(routes!(live)).routes(routes!(ready))
}

/// How the process is, in a word.
#[derive(Debug, Serialize, ToSchema)]
struct Summary {
    /// Always true; what is not healthy is an error.
    healthy: bool,
    /// `degraded`: it serves, and something is not as it should be: what instances share does not answer, the database takes no writes, the search does not
    /// follow it.
    #[schema(value_type = String, pattern = "^(ok|degraded|draining)$", max_length = 8, example = "ok")]
    status: &'static str,
    /// When this was found.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    timestamp: Timestamp,
}

/// The process lives.
///
/// For the supervisor: it asks neither the database nor anything else, and no limit refuses it.
#[utoipa::path(get, path = "/health/live", tag = "health", operation_id = "live", security(()), responses((status = 200, description = "The process lives", body = Summary)))]
async fn live(State(app): State<App>) -> axum::Json<Summary> {
    axum::Json(Summary { healthy: true, status: "ok", timestamp: app.clock().now() })
}

/// May traffic come?
///
/// For the load balancer: `503` before the process serves and while it drains, whatever the database does.
#[utoipa::path(get, path = "/health/ready", tag = "health", operation_id = "ready", security(()),
    responses((status = 200, description = "Traffic may come", body = Summary), (status = 503, description = "not_ready")))]
async fn ready(State(app): State<App>) -> Response {
    if app.health.phase() == Phase::Ready {
        return axum::Json(Summary { healthy: true, status: "ok", timestamp: app.clock().now() }).into_response();
    }
    let error = Error::new(&codes::NOT_READY).retry_after(std::time::Duration::from_secs(1));
    error.into_response()
}

/// How the process and its database are.
///
/// In one word; the details are on the management address.
#[utoipa::path(get, path = "/health", tag = "health", operation_id = "health", security(()),
    responses((status = 200, description = "All is well", body = Summary), (status = 503, description = "not_ready")))]
async fn summary(State(app): State<App>) -> Response {
    let wait = std::time::Duration::from_secs(1);
    if app.health.phase() != Phase::Ready {
        return Error::new(&codes::NOT_READY).retry_after(wait).into_response();
    }
    match app.database.ping().await {
        Ok(()) => {
            axum::Json(Summary { healthy: true, status: if whole(&app) { "ok" } else { "degraded" }, timestamp: app.clock().now() }).into_response()
        }
        Err(error) => Error::new(&codes::DATABASE_UNAVAILABLE).caused_by(error).retry_after(wait).into_response(),
    }
}

/// Does everything work beside the database's answer?
fn whole(app: &App) -> bool {
    let replicas = app.database.replicas().iter().all(|replica| replica.out.is_none());
    let shared = app.auth.hearing() != Hearing::Lost && app.redis.as_ref().is_none_or(mainstay::redis::Redis::answers) && replicas;
    shared && app.database.limits_hold() && app.database.takes_writes() && app.search.follows()
}

/// Details for the operator.
#[derive(Debug, Serialize)]
pub struct Details {
    healthy: bool,
    status: &'static str,
    timestamp: Timestamp,
    version: &'static str,
    database: Database,
    /// In the order of `DATABASE_REPLICA_URL`.
    replicas: Vec<Replica>,
    /// Nothing without `REDIS_URL`.
    redis: Option<Redis>,
    search: Search,
    /// `live`, `lost` or, with SQLite, `alone`: does this instance hear at once when a session ends elsewhere?
    standing: &'static str,
    writes_in_progress: usize,
    jobs: Jobs,
}

#[derive(Debug, Serialize)]
struct Database {
    kind: String,
    answers: bool,
    error: Option<String>,
    /// False: something in between, a pooler that nobody declared, drops the limits of our connections.
    limits_hold: bool,
    /// False: it is read-only, or SQLite's disk is full.
    takes_writes: bool,
    pool_max: usize,
    size: usize,
    idle: usize,
    in_use: usize,
    waiting: usize,
}

#[derive(Debug, Serialize)]
struct Redis {
    answers: bool,
    /// Why it is not asked, or which node of a cluster is not.
    error: Option<String>,
    questions: u64,
    late: u64,
    outages: u64,
    fallbacks: u64,
}

impl Redis {
    fn of(redis: &mainstay::redis::Redis) -> Self {
        let counts = redis.counts();
        Self {
            answers: redis.answers(),
            error: redis.cause(),
            questions: counts.asked,
            late: counts.late,
            outages: counts.outages,
            fallbacks: counts.fallbacks,
        }
    }
}

#[derive(Debug, Serialize)]
struct Search {
    documents: u64,
    changes_behind: i64,
    caught_up: bool,
    failures: u64,
}

/// Counted by this instance within the last quarter of a minute, so that asking costs nothing.
#[derive(Debug, Serialize)]
struct Jobs {
    running_here: usize,
    waiting: i64,
    running: i64,
    dead: i64,
    uncertain: i64,
    oldest_due_s: Option<u64>,
}

impl Jobs {
    fn of(jobs: &mainstay::jobs::Jobs) -> Self {
        let standing = jobs.standing();
        Self {
            running_here: jobs.running(),
            waiting: standing.count(Job::Waiting),
            running: standing.count(Job::Running),
            dead: standing.count(Job::Dead),
            uncertain: standing.count(Job::Uncertain),
            oldest_due_s: standing.oldest_due.map(|age| age.as_secs()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Replica {
    address: String,
    in_use: bool,
    /// Why not.
    out: Option<&'static str>,
    answers: bool,
    /// At most so far behind, as of the last look; null if that is not known.
    lag_ms: Option<u64>,
    reads: u64,
    size: usize,
    pool_in_use: usize,
}

impl Replica {
    fn of(standing: ReplicaStanding) -> Self {
        let ReplicaStanding { address, answers, out, lag, reads, pool, .. } = standing;
        let lag_ms = lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
        Self { address, in_use: out.is_none(), out: out.map(Out::as_str), answers, lag_ms, reads, size: pool.size, pool_in_use: pool.in_use }
    }
}

/// Everything that the operator wants to know at once.
pub async fn details(State(app): State<App>) -> (StatusCode, axum::Json<Details>) {
    let ping = app.database.ping().await;
    let (stats, search, phase) = (app.database.stats(), app.search.standing(), app.health.phase());
    let healthy = ping.is_ok() && phase == Phase::Ready;
    let status = match phase {
        Phase::Starting => "starting",
        Phase::Draining => "draining",
        Phase::Ready if ping.is_ok() && whole(&app) => "ok",
        Phase::Ready => "degraded",
    };
    let details = Details {
        healthy,
        status,
        timestamp: app.clock().now(),
        version: env!("CARGO_PKG_VERSION"),
        database: Database {
            kind: app.database.dialect().name().to_owned(),
            answers: ping.is_ok(),
            error: ping.err().map(|error| error.to_string()),
            limits_hold: app.database.limits_hold(),
            takes_writes: app.database.takes_writes(),
            pool_max: stats.max,
            size: stats.size,
            idle: stats.idle,
            in_use: stats.in_use,
            waiting: stats.waiting,
        },
        replicas: app.database.replicas().into_iter().map(Replica::of).collect(),
        redis: app.redis.as_ref().map(Redis::of),
        search: Search { documents: search.documents, changes_behind: search.behind, caught_up: search.caught_up, failures: search.failures },
        standing: app.auth.hearing().as_str(),
        writes_in_progress: app.writes.in_progress(),
        jobs: Jobs::of(&app.jobs),
    };
    (if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, axum::Json(details))
}
