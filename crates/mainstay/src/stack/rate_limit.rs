//! The rate limit's first stage: per client address, before anyone asks who it is and before any byte of the body is read.
//!
//! Never more than `max` requests in any window, however placed ([`window`]). Answers carry the `RateLimit` and `RateLimit-Policy` fields of
//! draft-ietf-httpapi-ratelimit-headers-10, refusals a `Retry-After` after which a request does pass.

pub mod window;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use tower::{Layer, Service};

use self::window::{Decision, Limiter};
use super::shortcut::{Amend, Amendment, Shortcut};
use crate::client::{ClientKey, Networks};
use crate::context::Context;
use crate::error::{Error, codes};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A limit under a name that clients see, for one kind of key.
#[derive(Debug)]
pub struct Quota<K> {
    name: &'static str,
    limiter: Limiter<K>,
    policy: HeaderValue,
}

impl<K: std::hash::Hash + Eq + Copy> Quota<K> {
    /// At most `max` in any `window`, under this name (letters only: it goes into a structured field as it is).
    pub fn new(name: &'static str, max: u32, window: Duration) -> Self {
        let policy = format!("\"{name}\";q={max};w={}", seconds_up(window));
        Self { name, limiter: Limiter::new(max, window), policy: HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("")) }
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
        let (mut remaining, mut reset) = (itoa::Buffer::new(), itoa::Buffer::new());
        let parts = ["\"", self.name, "\";r=", remaining.format(decision.remaining), ";t=", reset.format(seconds_up(decision.next))];
        HeaderValue::from_maybe_shared(Bytes::from(parts.concat())).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Whole seconds, rounded up: a client that waits so long is not too early.
fn seconds_up(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// What an admitted request's answer says of its quota. Written only when the answer is there: until then it must be small.
#[derive(Debug)]
pub struct Standing {
    quota: Arc<Quota<ClientKey>>,
    decision: Decision,
}

impl Amendment for Option<Standing> {
    fn amend(self, response: &mut Response) {
        if let Some(Standing { quota, decision }) = self {
            response.headers_mut().insert(RATELIMIT, quota.state(&decision));
            response.headers_mut().insert(RATELIMIT_POLICY, quota.policy.clone());
        }
    }
}

/// The layer.
#[derive(Debug, Clone)]
pub struct RateLimit {
    quota: Arc<Quota<ClientKey>>,
    exempt: Arc<Networks>,
}

impl RateLimit {
    /// At most `max` requests of one client in any `window`; clients in `exempt` have no limit.
    pub fn new(max: u32, window: Duration, exempt: Networks) -> Self {
        Self { quota: Arc::new(Quota::new("address", max, window)), exempt: Arc::new(exempt) }
    }
}

impl<S> Layer<S> for RateLimit {
    type Service = Limited<S>;
    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, limit: self.clone() }
    }
}

/// The service of [`RateLimit`].
#[derive(Debug, Clone)]
pub struct Limited<S> {
    inner: S,
    limit: RateLimit,
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Shortcut<Amend<S::Future, Option<Standing>>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let context = request.extensions().get::<Arc<Context>>();
        let counted = context.filter(|context| !context.route.unlimited() && !self.limit.exempt.contain(context.client));
        match counted.map(|context| self.limit.quota.take(context.client.into(), context.started)).transpose() {
            Ok(decision) => {
                let standing = decision.map(|decision| Standing { quota: self.limit.quota.clone(), decision });
                Shortcut::later(Amend::new(self.inner.call(request), standing))
            }
            Err(error) => Shortcut::now(error.into_response()),
        }
    }
}
