//! The rate limit's first stage: per client address, before anyone asks who it is and before any byte of the body is read.
//!
//! Never more than `max` requests in any window, however placed ([`window`]). Answers carry the `RateLimit` and `RateLimit-Policy` fields of
//! draft-ietf-httpapi-ratelimit-headers-10, refusals a `Retry-After` after which a request does pass.
//!
//! With [`Together`] all instances count as one, in one round trip for both stages: if the request shows whose it is (a token that is verified without asking
//! anybody), its account is counted in the same step as its address. What is known to be refused asks nobody.

mod together;
pub mod window;

use std::fmt;
use std::future::Future;

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use self::together::Entry;
pub use self::together::Together;
use self::window::{Decision, Limiter};
use super::{Layer, Outgoing};
use crate::auth::Auth;
use crate::client::{ClientKey, Networks};
use crate::context::Context;
use crate::error::{Error, codes};
use crate::serve::Lines;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A limit under a name that clients see, for one kind of key.
#[derive(Debug)]
pub struct Quota<K> {
    name: &'static str,
    max: u32,
    window: Duration,
    limiter: Limiter<K>,
    together: Option<Together>,
    /// The name and what follows it in the field that tells where a client stands.
    start: String,
    policy: HeaderValue,
}

impl<K: std::hash::Hash + Eq + Copy + fmt::Display> Quota<K> {
    /// At most `max` in any `window`, under this name (letters only: it goes into a structured field as it is).
    pub fn new(name: &'static str, max: u32, window: Duration) -> Self {
        let policy = format!("\"{name}\";q={max};w={}", seconds_up(window));
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(""));
        Self { name, max, window, limiter: Limiter::new(max, window), together: None, start: format!("\"{name}\";r="), policy }
    }

    /// Counted together with the other instances, if there are any.
    #[must_use]
    pub fn together(self, together: Option<Together>) -> Self {
        Self { together, ..self }
    }

    /// Counts a request of `key`, if it may pass.
    ///
    /// # Errors
    /// [`codes::RATE_LIMITED`] with `Retry-After` and the fields.
    pub async fn count(&self, key: K, now: Instant) -> Result<Decision, Error> {
        let Some(together) = &self.together else { return self.judge(self.limiter.take(key, now)) };
        if let Some(refusal) = self.limiter.refused(key, now) {
            return self.judge(refusal);
        }
        self.judge(match together.count(&[self.entry(together, key)]).await {
            Ok(decisions) => self.noted(key, decisions.first().copied(), now),
            Err(_) => self.take_part(key, now),
        })
    }

    /// Counts it in this process alone: whole if there are no other instances, else in this one's part.
    fn take_part(&self, key: K, now: Instant) -> Decision {
        match &self.together {
            None => self.limiter.take(key, now),
            Some(together) => self.limiter.take_of(together.part(self.max), key, now),
        }
    }

    fn entry(&self, together: &Together, key: K) -> Entry {
        together.entry(self.name, self.max, self.window, key)
    }

    /// What all instances decided. `None` is no decision, which does not happen; then this one decides.
    fn noted(&self, key: K, decision: Option<Decision>, now: Instant) -> Decision {
        let Some(decision) = decision else { return self.take_part(key, now) };
        self.limiter.note(key, &decision, now);
        decision
    }

    /// An admission, or the refusal that the client gets.
    ///
    /// # Errors
    /// [`codes::RATE_LIMITED`] with `Retry-After` and the fields.
    pub(crate) fn judge(&self, decision: Decision) -> Result<Decision, Error> {
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
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// The layer.
#[derive(Debug)]
pub struct RateLimit {
    quota: Arc<Quota<ClientKey>>,
    exempt: Networks,
    /// Who knows whose a token is, where both stages are counted together.
    auth: Option<Auth>,
}

impl RateLimit {
    /// At most `max` requests of one client in any `window`; clients in `exempt` have no limit.
    pub fn new(max: u32, window: Duration, exempt: Networks) -> Self {
        Self { quota: Arc::new(Quota::new("address", max, window)), exempt, auth: None }
    }

    /// Counted together with the other instances, if there are any; the accounts that `auth` knows in the same step.
    #[must_use]
    pub fn together(self, together: Option<Together>, auth: Auth) -> Self {
        let Quota { name, max, window, .. } = *self.quota;
        Self { quota: Arc::new(Quota::new(name, max, window).together(together)), auth: Some(auth), ..self }
    }

    /// Asks all instances about a request, and notes what they say of its account for the second stage.
    fn ask(&self, together: &Together, request: &Request<Body>, context: &Arc<Context>) -> Asked {
        let (together, quota, auth, context) = (together.clone(), self.quota.clone(), self.auth.clone(), context.clone());
        let account = auth.as_ref().and_then(|auth| auth.account_of(request.headers()));
        Box::pin(async move {
            let (client, now) = (ClientKey::from(context.client), context.started);
            let mut entries = vec![quota.entry(&together, client)];
            let second = auth.as_ref().zip(account).map(|(auth, account)| (auth.quota(), account));
            let known = second.and_then(|(accounts, account)| accounts.limiter.refused(account, now));
            if let (Some((accounts, account)), None) = (second, known) {
                entries.push(accounts.entry(&together, account));
            }
            let Ok(decisions) = together.count(&entries).await else { return quota.take_part(client, now) };
            if let Some((accounts, account)) = second {
                let told = decisions.get(1).map(|decision| accounts.noted(account, Some(*decision), now));
                if let Some(decision) = told.or(known) {
                    context.set_counted(account, decision);
                }
            }
            quota.noted(client, decisions.first().copied(), now)
        })
    }
}

type Asked = Pin<Box<dyn Future<Output = Decision> + Send>>;

/// How a request's client stands.
pub enum Standing {
    /// It is not counted.
    Exempt,
    /// It was admitted.
    Counted(Decision),
    /// All instances are being asked.
    Asked(Asked),
    /// It waits for its place, and is counted when it has one: by this instance, or by all.
    Later(Option<Asked>, ClientKey),
}

impl Layer for RateLimit {
    type Visit = Standing;

    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Standing> {
        if context.route.unlimited() || self.exempt.contain(context.client) {
            return ControlFlow::Continue(Standing::Exempt);
        }
        let client = ClientKey::from(context.client);
        if context.waits() {
            // What asks them does nothing before it is waited for.
            let asked = self.quota.together.as_ref().map(|together| self.ask(together, request, context));
            return ControlFlow::Continue(Standing::Later(asked, client));
        }
        let decision = match &self.quota.together {
            None => self.quota.limiter.take(client, context.started),
            Some(together) => match self.quota.limiter.refused(client, context.started) {
                Some(refusal) => refusal,
                None => return ControlFlow::Continue(Standing::Asked(self.ask(together, request, context))),
            },
        };
        match self.quota.judge(decision) {
            Ok(decision) => ControlFlow::Continue(Standing::Counted(decision)),
            Err(error) => ControlFlow::Break(error.into_response()),
        }
    }

    fn wait(&self, standing: &mut Standing, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        if let Standing::Later(asked, client) = standing {
            let now = Instant::now();
            *standing = match (asked.take(), self.quota.limiter.refused(*client, now)) {
                (Some(_), Some(refusal)) => Standing::Counted(refusal),
                (Some(asked), None) => Standing::Asked(asked),
                (None, _) => Standing::Counted(self.quota.limiter.take(*client, now)),
            };
            if let Standing::Counted(decision) = standing
                && !decision.allowed
            {
                return Poll::Ready(Error::new(&codes::RATE_LIMITED).retry_after(decision.next).into_response());
            }
        }
        if let Standing::Asked(asked) = standing {
            let decision = ready!(asked.as_mut().poll(task));
            *standing = Standing::Counted(decision);
            if !decision.allowed {
                // Its fields come with the way out.
                return Poll::Ready(Error::new(&codes::RATE_LIMITED).retry_after(decision.next).into_response());
            }
        }
        inside(task)
    }

    fn answer(&self, standing: Standing, answer: &mut Outgoing) {
        if answer.begun() {
            return;
        }
        let status = answer.status();
        let headers = answer.headers_mut();
        match standing {
            // Both fields are lists: what a later stage refused for stands first.
            Standing::Counted(decision) if status == StatusCode::TOO_MANY_REQUESTS && headers.contains_key(RATELIMIT) => {
                headers.append(RATELIMIT, self.quota.state(&decision));
                headers.append(RATELIMIT_POLICY, self.quota.policy.clone());
            }
            Standing::Counted(decision) => {
                headers.insert(RATELIMIT, self.quota.state(&decision));
                headers.insert(RATELIMIT_POLICY, self.quota.policy.clone());
            }
            Standing::Exempt => {
                headers.remove(RATELIMIT);
                headers.remove(RATELIMIT_POLICY);
            }
            // There was no place for it: it costs nothing.
            Standing::Later(..) if status == StatusCode::SERVICE_UNAVAILABLE => {
                headers.remove(RATELIMIT);
                headers.remove(RATELIMIT_POLICY);
            }
            Standing::Later(None, client) => {
                self.quota.limiter.take(client, Instant::now());
                headers.remove(RATELIMIT);
                headers.insert(RATELIMIT_POLICY, self.quota.policy.clone());
            }
            // Refused by a layer inside before anybody waited, for its body's announced size, say: it counts all the same.
            Standing::Asked(asked) | Standing::Later(Some(asked), _) => {
                headers.remove(RATELIMIT);
                headers.insert(RATELIMIT_POLICY, self.quota.policy.clone());
                tokio::spawn(asked);
            }
        }
    }

    fn names(&self, headers: &mut HeaderMap) {
        headers.insert(RATELIMIT, HeaderValue::from_static(""));
    }

    fn fill(&self, standing: &Standing, lines: &mut Lines) {
        if let Standing::Counted(decision) = standing {
            self.quota.with_state(decision, |parts| lines.put(&RATELIMIT, parts));
        }
    }

    fn forms(&self) -> usize {
        2
    }

    fn form(&self, standing: &Standing) -> usize {
        usize::from(matches!(standing, Standing::Counted(_)))
    }

    fn constants(&self, form: usize, headers: &mut HeaderMap) {
        if form == 1 {
            headers.insert(RATELIMIT_POLICY, self.quota.policy.clone());
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exempt => f.write_str("Exempt"),
            Self::Counted(decision) => f.debug_tuple("Counted").field(decision).finish(),
            Self::Asked(_) => f.write_str("Asked"),
            Self::Later(..) => f.write_str("Later"),
        }
    }
}
