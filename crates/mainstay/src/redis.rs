//! What instances share without a database: a Redis, a Valkey or a Redis Cluster, and the life without it.
//!
//! Nobody waits for it longer than the time that it was given ([`Redis::open`]), and no request longer than it has time itself: one whose answer does not come
//! goes on without. When the connection
//! breaks, when the server refuses, or after three answers in a row that were late, nobody asks anymore, and a keeper in the background
//! connects anew. It believes a server that answers three times in time, so one that is merely slow does not come back for one good moment.

mod address;
mod cluster;
mod line;
pub(crate) mod measure;
mod node;
mod script;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{FromRedisValue, ToRedisArgs};
use tokio::time::Instant;

use crate::context;
use cluster::Cluster;
use node::{Node, Patience, Question, Shared, Unanswered, keep};

pub use address::{Address, TlsFiles, Unusable};
pub use script::Script;

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
    /// Times that nobody asked a server anymore.
    pub outages: u64,
    /// Times that somebody went on without an answer, for whatever reason.
    pub fallbacks: u64,
}

/// The Redis of all instances. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    server: Server,
}

enum Server {
    Single(Arc<Node>),
    Cluster(Arc<Cluster>),
}

impl Redis {
    /// Connects to the Redis at this address, or to the cluster of which these are some nodes. All names there begin with `prefix`, which tells services that
    /// share a server apart. A question waits `wait` at most. If nobody answers, it is [away](Redis::answers) at first.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn open(address: Address, prefix: &str, wait: Duration) -> Self {
        let single = (!address.is_cluster()).then(|| address.places[0].clone());
        let shared = Arc::new(Shared::new(address, prefix, wait));
        let server = match single {
            Some(place) => {
                let node = Node::new(place, Arc::clone(&shared), format!("{prefix}:proof"));
                node.come(1).await;
                tokio::spawn(keep(Arc::downgrade(&node)));
                Server::Single(node)
            }
            None => Server::Cluster(Cluster::open(Arc::clone(&shared)).await),
        };
        Self(Arc::new(Inner { shared, server }))
    }

    /// Is it asked at the moment? Of a cluster: are all that count a part of the keys?
    pub fn answers(&self) -> bool {
        match &self.0.server {
            Server::Single(node) => node.answers(),
            Server::Cluster(cluster) => cluster.answers(),
        }
    }

    /// Why it is not asked, without anything that is secret.
    pub fn cause(&self) -> Option<String> {
        match &self.0.server {
            Server::Single(node) => node.cause(),
            Server::Cluster(cluster) => cluster.cause(),
        }
    }

    /// What names of this service begin with.
    pub fn prefix(&self) -> &str {
        &self.0.shared.prefix
    }

    /// May the keys of one question lie on different nodes?
    pub fn is_cluster(&self) -> bool {
        matches!(self.0.server, Server::Cluster(_))
    }

    /// What became of questions.
    pub fn counts(&self) -> Counts {
        let shared = &self.0.shared;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            asked: count(&shared.asked),
            late: count(&shared.late),
            spared: count(&shared.spared),
            outages: count(&shared.outages),
            fallbacks: count(&shared.fallbacks),
        }
    }

    /// Sets the metrics `mainstay_redis_*`; call it when the metrics are read.
    pub fn record_metrics(&self) {
        let Counts { asked, late, spared, outages, fallbacks } = self.counts();
        metrics::gauge!("mainstay_redis_answers").set(f64::from(u8::from(self.answers())));
        metrics::counter!("mainstay_redis_questions_total").absolute(asked);
        metrics::counter!("mainstay_redis_late_total").absolute(late);
        metrics::counter!("mainstay_redis_spared_total").absolute(spared);
        metrics::counter!("mainstay_redis_outages_total").absolute(outages);
        metrics::counter!("mainstay_redis_fallbacks_total").absolute(fallbacks);
    }

    /// Runs a script on the server. All its keys lie on one node ([`Redis::is_cluster`]). Of one request only the first late answer is waited for, and none
    /// beyond its deadline ([`crate::context::Context::deadline`]).
    ///
    /// # Errors
    /// [`Away`].
    pub async fn run<T: FromRedisValue, A: ToRedisArgs>(&self, script: &Script, keys: &[&str], arguments: &[A]) -> Result<T, Away> {
        let Inner { shared, server } = &*self.0;
        let request = context::current();
        let question = Question { script, keys, arguments };
        let deadline = request.as_ref().and_then(|request| request.deadline()).map(Instant::from_std);
        let patience = Patience::new(Instant::now(), shared.wait, deadline);
        let answer = match (server, patience) {
            _ if request.as_ref().is_some_and(|request| request.redis_was_late()) => Err(Unanswered::Spared),
            (_, None) => Err(Unanswered::Spared),
            (Server::Single(node), Some(patience)) => node.ask(&question, patience, false).await,
            (Server::Cluster(cluster), Some(patience)) => cluster.ask(&question, patience).await,
        };
        answer.map_err(|why| {
            shared.fallbacks.fetch_add(1, Ordering::Relaxed);
            match why {
                Unanswered::Spared => _ = shared.spared.fetch_add(1, Ordering::Relaxed),
                Unanswered::Late => _ = request.map(|request| request.set_redis_was_late()),
                Unanswered::Failed | Unanswered::Moved(_) | Unanswered::Ask(_) => {}
            }
            Away
        })
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its address holds a password.
        f.debug_struct("Redis").field("answers", &self.answers()).finish_non_exhaustive()
    }
}
