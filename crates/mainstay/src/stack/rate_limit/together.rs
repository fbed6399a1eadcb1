//! Quotas that all instances count together, in Redis, and each by itself while Redis does not answer.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{FromRedisValue, ParsingError, Value};

use super::window::Decision;
use crate::redis::{Away, Redis, Script};

/// Up to this quota every admitted request is remembered by its own time: ten bytes each, so 10 KB for a key.
const EXACT_MAX: u32 = 1024;

/// One step on the server, by the server's own clock, for one or several keys: a key is counted only if those before it admitted the request.
///
/// A small quota is a list of times. A large one is a table with a count for each granule, 1/128 of the window, as if all of a granule had come at its end:
/// late, so the bound holds ([`super::window`] does the same in the process). A clock that was set back stands still until it is right again.
static COUNT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("count.lua")));

/// Counts together with the other instances.
#[derive(Debug, Clone)]
pub struct Together {
    redis: Redis,
    instances: u32,
}

/// What is to be counted: of whom, and how many may pass in which time.
#[derive(Debug)]
pub(super) struct Entry {
    key: String,
    max: u32,
    window: Duration,
}

impl Together {
    /// Counts in this Redis. Without it, each of `instances` admits its part of a quota.
    pub fn new(redis: Redis, instances: u32) -> Self {
        Self { redis, instances: instances.max(1) }
    }

    /// The part of a quota that each instance admits by itself.
    pub(super) fn part(&self, max: u32) -> u32 {
        (max / self.instances).max(1)
    }

    /// What is to be counted. The form of the value and the window are a part of its name: a quota whose window changes, or that grows large, begins anew.
    pub(super) fn entry(&self, quota: &str, max: u32, window: Duration, of: impl fmt::Display) -> Entry {
        let form = if max <= EXACT_MAX { "times" } else { "counts" };
        Entry { key: format!("{}:limit:{quota}:{form}:{}:{of}", self.redis.prefix(), window.as_micros()), max, window }
    }

    /// Counts a request in one round trip. One decision for each entry up to the first that refuses.
    pub(super) async fn count(&self, entries: &[Entry]) -> Result<Vec<Decision>, Away> {
        // The keys of one script lie on one node; of a cluster, several nodes are asked at once. There a request that the first entry refuses is counted by
        // the others all the same.
        if self.redis.is_cluster() && entries.len() > 1 {
            let each = futures_util::future::try_join_all(entries.iter().map(|entry| self.on_one_node(std::slice::from_ref(entry))));
            return Ok(each.await?.into_iter().flatten().collect());
        }
        self.on_one_node(entries).await
    }

    async fn on_one_node(&self, entries: &[Entry]) -> Result<Vec<Decision>, Away> {
        let mut arguments = Vec::with_capacity(3 * entries.len());
        let mut keys = Vec::with_capacity(entries.len());
        for Entry { key, max, window } in entries {
            keys.push(key.as_str());
            let exact = *max <= EXACT_MAX;
            arguments.extend([i64::from(*max), i64::try_from(window.as_micros()).unwrap_or(i64::MAX), i64::from(exact)]);
        }
        let Decisions(decisions) = self.redis.run::<_, i64>(&COUNT, &keys, &arguments).await?;
        Ok(decisions)
    }
}

/// What the script answers: one decision at least.
struct Decisions(Vec<Decision>);

impl FromRedisValue for Decisions {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let answer = Vec::<(i64, i64, i64)>::from_redis_value(value)?;
        if answer.is_empty() {
            return Err(ParsingError::from("no decision"));
        }
        let decision = |(allowed, remaining, next_us): (i64, i64, i64)| Decision {
            allowed: allowed == 1,
            remaining: u32::try_from(remaining).unwrap_or(0),
            next: Duration::from_micros(u64::try_from(next_us).unwrap_or(0)),
        };
        Ok(Self(answer.into_iter().map(decision).collect()))
    }
}
