//! The caller as an argument of the handler: a handler that takes [`Editor`] cannot be reached by anybody who is none.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use moka::sync::Cache;
use uuid::Uuid;

use super::{Role, Tokens};
use crate::clock::Clock;
use crate::context;
use crate::error::{Error, Result, codes};
use crate::stack::rate_limit::Quota;

/// What an account may do is asked of the database again after this time, so a change made behind this instance's back is seen that late at most.
const STANDING_TTL: Duration = Duration::from_secs(5);
/// Accounts remembered; 48 bytes each.
const STANDING_MAX: u64 = 100_000;

/// The answer of [`Accounts::role`].
pub type RoleFuture<'a> = Pin<Box<dyn Future<Output = Result<Option<Role>>> + Send + 'a>>;

/// Where accounts are kept: the service's own table.
pub trait Accounts: Send + Sync + 'static {
    /// The role of an account that exists and may sign in.
    fn role(&self, account: Uuid, deadline: Option<Instant>) -> RoleFuture<'_>;
}

/// Finds out who is asking. Part of a service's state.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    tokens: Tokens,
    clock: Clock,
    accounts: Box<dyn Accounts>,
    quota: Quota<Uuid>,
    standings: Cache<Uuid, Option<Role>>,
    changes: AtomicU64,
}

impl Auth {
    /// Verifies `tokens` and asks `accounts`; each account may make as many requests as `quota` says.
    pub fn new(tokens: Tokens, clock: Clock, accounts: impl Accounts, quota: Quota<Uuid>) -> Self {
        let standings = Cache::builder().max_capacity(STANDING_MAX).time_to_live(STANDING_TTL).build();
        Self(Arc::new(Inner { tokens, clock, accounts: Box::new(accounts), quota, standings, changes: AtomicU64::new(0) }))
    }

    /// The tokens of this service.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// The clock by which tokens are judged.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Says that an account changed: its next request asks the database.
    pub fn changed(&self, account: Uuid) {
        // Counted before the entry goes: a reader that began earlier will not put its old answer back.
        self.0.changes.fetch_add(1, Ordering::SeqCst);
        self.0.standings.invalidate(&account);
    }

    async fn standing(&self, account: Uuid, deadline: Option<Instant>) -> Result<Option<Role>> {
        if let Some(standing) = self.0.standings.get(&account) {
            return Ok(standing);
        }
        let before = self.0.changes.load(Ordering::SeqCst);
        let standing = self.0.accounts.role(account, deadline).await?;
        if self.0.changes.load(Ordering::SeqCst) == before {
            self.0.standings.insert(account, standing);
        }
        Ok(standing)
    }

    async fn caller(&self, headers: &HeaderMap) -> Result<SignedIn> {
        let context = context::current();
        let token = bearer(headers)?;
        let claims = self.0.tokens.verify_with_look(token, self.0.clock.now()).await.map_err(|refused| invalid_token().caused_by(refused))?;
        let deadline = context.as_ref().and_then(|context| context.deadline());
        let role = self.standing(claims.subject, deadline).await?.ok_or_else(|| invalid_token().caused_by("unknown or disabled account"))?;
        if let Some(context) = context {
            context.set_account(claims.subject);
            if !context.route.unlimited() {
                self.0.quota.take(claims.subject, context.started)?;
            }
        }
        Ok(SignedIn { account: claims.subject, role })
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth")
    }
}

fn invalid_token() -> Error {
    // RFC 6750, 3.1.
    Error::new(&codes::INVALID_TOKEN).with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer error="invalid_token""#))
}

fn bearer(headers: &HeaderMap) -> Result<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| Error::new(&codes::AUTHENTICATION_REQUIRED))?;
    // Two credentials are two answers to one question.
    if values.next().is_some() {
        return Err(invalid_token().caused_by("repeated Authorization"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(invalid_token)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim_start_matches(' ')) } else { Err(Error::new(&codes::AUTHENTICATION_REQUIRED)) }
}

/// Somebody who is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedIn {
    /// The account.
    pub account: Uuid,
    /// Its role, as the database has it.
    pub role: Role,
}

impl SignedIn {
    /// Passes for the account itself and for administrators.
    ///
    /// # Errors
    /// [`codes::FORBIDDEN`] for everyone else.
    pub fn itself_or_admin(self, account: Uuid) -> Result<Self> {
        if self.account == account || self.role >= Role::Admin { Ok(self) } else { Err(Error::new(&codes::FORBIDDEN)) }
    }

    fn at_least(self, role: Role) -> Result<Self> {
        if self.role >= role { Ok(self) } else { Err(Error::new(&codes::FORBIDDEN)) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SignedIn
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Auth::from_ref(state).caller(&parts.headers).await
    }
}

/// Somebody who may change products: an editor or an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Editor(pub SignedIn);

impl<S: Send + Sync> FromRequestParts<S> for Editor
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        SignedIn::from_request_parts(parts, state).await?.at_least(Role::Editor).map(Self)
    }
}

/// An administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admin(pub SignedIn);

impl<S: Send + Sync> FromRequestParts<S> for Admin
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        SignedIn::from_request_parts(parts, state).await?.at_least(Role::Admin).map(Self)
    }
}
