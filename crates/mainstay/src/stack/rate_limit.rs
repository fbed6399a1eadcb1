//! The rate limit's first stage: per client address, before anyone asks who it is and before any byte of the body is read.
//!
//! Never more than `max` requests in any window, however placed ([`window`]). Answers carry the `RateLimit` and `RateLimit-Policy` fields of
//! draft-ietf-httpapi-ratelimit-headers-10, refusals a `Retry-After` after which a request does pass.

pub mod window;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use self::window::{Decision, Limiter};
use super::{Layer, Outgoing};
use crate::client::{ClientKey, Networks};
use crate::context::Context;
use crate::error::{Error, codes};
use crate::serve::Lines;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A limit under a name that clients see, for one kind of key.
#[derive(Debug)]
pub struct Quota<K> {
    limiter: Limiter<K>,
    /// The name and what follows it in the field that tells where a client stands.
    start: String,
    policy: HeaderValue,
}

impl<K: std::hash::Hash + Eq + Copy> Quota<K> {
    /// At most `max` in any `window`, under this name (letters only: it goes into a structured field as it is).
    pub fn new(name: &'static str, max: u32, window: Duration) -> Self {
        let policy = format!("\"{name}\";q={max};w={}", seconds_up(window));
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(""));
        Self { limiter: Limiter::new(max, window), start: format!("\"{name}\";r="), policy }
    }

    /// Counts a request of `key`, if it may pass.
    ///
    /// # Errors
    /// [`codes::RATE_LIMITED`] with `Retry-After` and the fields.
    pub fn take(&self, key: K, now: std::time::Instant) -> Result<Decision, Error> {
        let decision = self.limiter.take(key, now);
        if decision.allowed {
            return Ok(decision);
        }
        let error = Error::new(&codes::RATE_LIMITED).retry_after(decision.next);
        Err(error.with_header(RATELIMIT, self.state(&decision)).with_header(RATELIMIT_POLICY, self.policy.clone()))
    }

    fn state(&self, decision: &Decision) -> HeaderValue {
        self.with_state(decision, |parts| HeaderValue::try_from(parts.concat())).unwrap_or(HeaderValue::from_static(""))
    }

    /// The parts of the value that tells where a client stands.
    fn with_state<T>(&self, decision: &Decision, work: impl FnOnce(&[&[u8]]) -> T) -> T {
        let (mut remaining, mut reset) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (remaining, reset) = (remaining.format(decision.remaining), reset.format(seconds_up(decision.next)));
        work(&[self.start.as_bytes(), remaining.as_bytes(), b";t=", reset.as_bytes()])
    }
}

/// Whole seconds, rounded up: a client that waits so long is not too early.
fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_millis() > 0))
}

/// The layer.
#[derive(Debug)]
pub struct RateLimit {
    quota: Quota<ClientKey>,
    exempt: Networks,
}

impl RateLimit {
    /// At most `max` requests of one client in any `window`; clients in `exempt` have no limit.
    pub fn new(max: u32, window: Duration, exempt: Networks) -> Self {
        Self { quota: Quota::new("address", max, window), exempt }
    }
}

impl Layer for RateLimit {
    /// Where an admitted request's client stands; nothing for one that is not counted.
    type Visit = Option<Decision>;

    fn request(&self, _: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Option<Decision>> {
        if context.route.unlimited() || self.exempt.contain(context.client) {
            return ControlFlow::Continue(None);
        }
        match self.quota.take(context.client.into(), context.started) {
            Ok(decision) => ControlFlow::Continue(Some(decision)),
            Err(error) => ControlFlow::Break(error.into_response()),
        }
    }

    fn answer(&self, standing: Option<Decision>, answer: &mut Outgoing) {
        if answer.begun() {
            return;
        }
        let headers = answer.headers_mut();
        match standing {
            Some(decision) => {
                headers.insert(RATELIMIT, self.quota.state(&decision));
                headers.insert(RATELIMIT_POLICY, self.quota.policy.clone());
            }
            None => {
                headers.remove(RATELIMIT);
                headers.remove(RATELIMIT_POLICY);
            }
        }
    }

    fn names(&self, headers: &mut HeaderMap) {
        headers.insert(RATELIMIT, HeaderValue::from_static(""));
    }

    fn fill(&self, standing: &Option<Decision>, lines: &mut Lines) {
        if let Some(decision) = standing {
            self.quota.with_state(decision, |parts| lines.put(&RATELIMIT, parts));
        }
    }

    fn forms(&self) -> usize {
        2
    }

    fn form(&self, standing: &Option<Decision>) -> usize {
        usize::from(standing.is_some())
    }

    fn constants(&self, form: usize, headers: &mut HeaderMap) {
        if form == 1 {
            headers.insert(RATELIMIT_POLICY, self.quota.policy.clone());
        }
    }
}
