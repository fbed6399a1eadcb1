//! What instances share without a database: a Redis, a Valkey or a Redis Cluster, and the life without it.
//!
//! Nobody waits for it longer than the time that it was given ([`Redis::open`]): a request whose answer does not come goes on without. When the connection
//! breaks, when the server refuses, or after three answers in a row that were late, nobody asks anymore, and a keeper in the background
//! connects anew. It believes a server that answers three times in time, so one that is merely slow does not come back for one good moment.

mod script;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, RedisFuture, ServerErrorKind, ToRedisArgs, Value};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

use crate::context;

pub use script::Script;

/// Late answers in a row before nobody asks anymore: one may be chance, and each costs somebody the whole wait.
const LATE_MAX: u32 = 3;
/// Answers in time before a server is believed.
const PROOFS: usize = 3;
/// Between them.
const PROOF_PAUSE: Duration = Duration::from_millis(20);
/// Connecting takes a handshake or two, and one of TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Before the next attempt to connect, at first and at most: a server that is back is found within a second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// A connection that lasted this long was a good one.
const STEADY: Duration = Duration::from_secs(5);

/// It does not answer, or not in time. Whoever asked goes on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis does not answer")
    }
}

impl std::error::Error for Away {}

/// What became of questions since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions that were sent.
    pub asked: u64,
    /// Answers that were late.
    pub late: u64,
    /// Questions that were not sent because nobody asks at the moment.
    pub spared: u64,
    /// Times that nobody asked anymore.
    pub outages: u64,
}

/// The Redis of all instances. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    server: Server,
    prefix: String,
    wait: Duration,
    link: RwLock<Option<Link>>,
    late_in_a_row: AtomicU32,
    left: Notify,
    asked: AtomicU64,
    late: AtomicU64,
    spared: AtomicU64,
    outages: AtomicU64,
}

enum Server {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// A connection that all requests share; the number tells it from the one before.
#[derive(Clone)]
struct Link {
    number: u64,
    connection: Connection,
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Can this be an address of Redis, or several of a cluster, with commas between them?
///
/// # Errors
/// What it must look like.
pub fn check_url(url: &SecretString) -> Result<(), &'static str> {
    server(url, Duration::from_secs(1)).map(drop)
}

fn server(url: &SecretString, wait: Duration) -> Result<Server, &'static str> {
    const FORM: &str = "must be `redis://host:port` or, with TLS, `rediss://host:port`, with `user:password@` before the host if it is needed; several nodes of a cluster stand with commas between them";
    let nodes: Vec<&str> = url.expose_secret().split(',').map(str::trim).collect();
    if nodes.iter().any(|node| !(node.starts_with("redis://") || node.starts_with("rediss://"))) {
        return Err(FORM);
    }
    // The library's own words may hold the password.
    match nodes.as_slice() {
        [one] => Client::open(*one).map(Box::new).map(Server::Single).map_err(|_| FORM),
        _ => {
            let builder = ClusterClientBuilder::new(nodes).connection_timeout(CONNECT_TIMEOUT).response_timeout(wait).retries(2).max_retry_wait(20);
            builder.build().map(Box::new).map(Server::Cluster).map_err(|_| FORM)
        }
    }
}

impl Redis {
    /// Connects to the Redis at this address, or to the cluster of which these are some nodes. All names there begin with `prefix`, which tells services that
    /// share a server apart. A question waits `wait` at most. If nobody answers, it is [away](Redis::answers) at first.
    ///
    /// # Errors
    /// When it is no such address.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn open(url: &SecretString, prefix: &str, wait: Duration) -> Result<Self, &'static str> {
        let inner = Inner {
            server: server(url, wait)?,
            prefix: prefix.to_owned(),
            wait,
            link: RwLock::default(),
            late_in_a_row: AtomicU32::new(0),
            left: Notify::new(),
            asked: AtomicU64::new(0),
            late: AtomicU64::new(0),
            spared: AtomicU64::new(0),
            outages: AtomicU64::new(0),
        };
        let redis = Self(Arc::new(inner));
        if let Err(cause) = redis.0.come(1).await {
            tracing::warn!(cause, "Redis does not answer; every instance counts by itself until it does");
        }
        tokio::spawn(keep(Arc::downgrade(&redis.0)));
        Ok(redis)
    }

    /// Is it asked at the moment?
    pub fn answers(&self) -> bool {
        self.0.link().is_some()
    }

    /// What names of this service begin with.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// May the keys of one question lie on different nodes?
    pub fn is_cluster(&self) -> bool {
        matches!(self.0.server, Server::Cluster(_))
    }

    /// What became of questions.
    pub fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts { asked: count(&self.0.asked), late: count(&self.0.late), spared: count(&self.0.spared), outages: count(&self.0.outages) }
    }

    /// Sets the metrics `mainstay_redis_*`; call it when the metrics are read.
    pub fn record_metrics(&self) {
        let Counts { asked, late, spared, outages } = self.counts();
        metrics::gauge!("mainstay_redis_answers").set(f64::from(u8::from(self.answers())));
        metrics::counter!("mainstay_redis_questions_total").absolute(asked);
        metrics::counter!("mainstay_redis_late_total").absolute(late);
        metrics::counter!("mainstay_redis_spared_total").absolute(spared);
        metrics::counter!("mainstay_redis_outages_total").absolute(outages);
    }

    /// Runs a script on the server. All its keys lie on one node ([`Redis::is_cluster`]). Of one request only the first late answer is waited for.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn run<T: FromRedisValue, A: ToRedisArgs>(&self, script: &Script, keys: &[&str], arguments: &[A]) -> Result<T, Away> {
        let request = context::current();
        let link = self.0.link().filter(|_| request.as_ref().is_none_or(|request| !request.redis_was_late()));
        let Some(mut link) = link else {
            self.0.spared.fetch_add(1, Ordering::Relaxed);
            return Err(Away);
        };
        let asking = async {
            match self.0.ask(&mut link, &script.by_hash(keys, arguments)).await {
                // A server that was started anew knows no script yet.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.0.ask(&mut link, &script.by_text(keys, arguments)).await
                }
                answer => answer,
            }
        };
        match timeout(self.0.wait, asking).await {
            Ok(Ok(value)) => {
                // Read first: a counter that nobody writes to stays in every core's cache.
                if self.0.late_in_a_row.load(Ordering::Relaxed) != 0 {
                    self.0.late_in_a_row.store(0, Ordering::Relaxed);
                }
                T::from_redis_value(value).map_err(|_| Away)
            }
            Ok(Err(error)) => {
                self.0.leave(link.number, &words(&error));
                Err(Away)
            }
            Err(_) => {
                if let Some(request) = request {
                    request.set_redis_was_late();
                }
                self.0.note_late(link.number);
                Err(Away)
            }
        }
    }
}

impl Inner {
    fn link(&self) -> Option<Link> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One question.
    async fn ask(&self, link: &mut Link, command: &Cmd) -> Result<Value, RedisError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // The library gives a refusal of the server as a value.
        link.connection.req_packed_command(command).await?.extract_error()
    }

    fn note_late(&self, number: u64) {
        self.late.fetch_add(1, Ordering::Relaxed);
        // What was asked over a connection before says nothing of this one.
        let current = self.link().is_some_and(|link| link.number == number);
        if current && self.late_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= LATE_MAX {
            self.leave(number, "answers come late");
        }
    }

    /// Nobody asks over this connection anymore.
    fn leave(&self, number: u64, cause: &str) {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if link.as_ref().is_some_and(|link| link.number == number) {
            *link = None;
            self.outages.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(cause, "Redis is left alone; every instance counts by itself until it answers again");
            self.left.notify_one();
        }
    }

    /// Connects, and begins to ask if three answers come in time.
    async fn come(&self, number: u64) -> Result<(), String> {
        let connecting = async {
            match &self.server {
                Server::Single(client) => {
                    // The waits are ours: theirs would be one timer more for each question.
                    let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
                    client.get_multiplexed_async_connection_with_config(&settings).await.map(Connection::Single)
                }
                Server::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
            }
        };
        let mut connection = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| "no connection in a second")?.map_err(|error| words(&error))?;
        // What is asked for later, a script that writes: a server that is full, or a replica, answers a PING as well as any.
        let mut proof = redis::cmd("EVAL");
        proof.arg("return redis.call('SET', KEYS[1], '1', 'PX', 1000)").arg(1).arg(format!("{}:proof", self.prefix));
        for _ in 0..PROOFS {
            let answer = timeout(self.wait, connection.req_packed_command(&proof)).await.map_err(|_| "answers come late")?;
            answer.and_then(Value::extract_error).map_err(|error| words(&error))?;
            tokio::time::sleep(PROOF_PAUSE).await;
        }
        self.late_in_a_row.store(0, Ordering::Relaxed);
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = Some(Link { number, connection });
        Ok(())
    }
}

/// What an error is, without anything that somebody typed.
fn words(error: &RedisError) -> String {
    match error.code() {
        Some("MOVED" | "CROSSSLOT") => "this is a node of a cluster: name several of its nodes in the address".to_owned(),
        Some(code) => format!("{} ({code})", error.category()),
        None => error.category().to_owned(),
    }
}

/// The pauses before attempts to connect: each is twice the one before, until a connection lasted. One that comes and goes is not asked for more often
/// than one that stays away.
struct Pauses {
    next: Duration,
}

impl Pauses {
    /// The pause before the next attempt, after a connection that lasted so long, or none.
    fn after(&mut self, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted > STEADY) {
            self.next = PAUSE.0;
        }
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE.1);
        pause
    }
}

/// Connects anew whenever nobody asks, as long as somebody might.
async fn keep(inner: Weak<Inner>) {
    let (mut number, mut pauses, mut came) = (1, Pauses { next: PAUSE.0 }, Some(Instant::now()));
    loop {
        let Some(redis) = inner.upgrade() else { return };
        if redis.link().is_some() {
            // Wakes now and then, to end with the service.
            let _ = timeout(Duration::from_secs(10), redis.left.notified()).await;
            continue;
        }
        drop(redis);
        let pause = pauses.after(came.take().map(|came| came.elapsed()));
        // Instances that lost the same server do not come back in step.
        let jitter = Uuid::new_v4().as_u128() % (pause.as_micros() / 2).max(1);
        tokio::time::sleep(pause - Duration::from_micros(u64::try_from(jitter).unwrap_or(0))).await;
        let Some(redis) = inner.upgrade() else { return };
        number += 1;
        if redis.come(number).await.is_ok() {
            tracing::info!("Redis answers again: all instances count together");
            came = Some(Instant::now());
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(&'a mut self, pipeline: &'a redis::Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its address holds a password.
        f.debug_struct("Redis").field("answers", &self.answers()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(url: &str) -> bool {
        check_url(&SecretString::from(url.to_owned())).is_ok()
    }

    #[test]
    fn pauses_grow_until_a_connection_lasted() {
        let mut pauses = Pauses { next: PAUSE.0 };
        let away: Vec<u128> = (0..6).map(|_| pauses.after(None).as_millis()).collect();
        assert_eq!(away, [50, 100, 200, 400, 500, 500], "however long it stays away");
        assert_eq!(pauses.after(Some(STEADY)), PAUSE.1, "it came and went");
        assert_eq!([pauses.after(Some(2 * STEADY)), pauses.after(None)], [PAUSE.0, 2 * PAUSE.0]);
    }

    #[test]
    fn addresses_of_one_server_and_of_a_cluster_are_known_and_others_are_not() {
        for url in [
            "redis://127.0.0.1:6379",
            "redis://:secret@redis.internal/1",
            "rediss://user:secret@redis.internal:6380",
            "redis://a:1,redis://b:2, redis://c:3",
        ] {
            assert!(checked(url), "{url}");
        }
        for url in ["", "127.0.0.1:6379", "http://redis", "redis://", "redis://a:1,b:2", "redis://a:port", "unix:///tmp/redis"] {
            assert!(!checked(url), "{url}");
        }
    }
}
