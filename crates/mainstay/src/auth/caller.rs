//! The caller as an argument of the handler: a handler that takes [`Editor`] cannot be reached by anybody who is none.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use uuid::Uuid;

use super::standing::Standings;
use super::told::{Ear, Hearing};
use super::{Change, Role, Tokens};
use crate::clock::Clock;
use crate::context;
use crate::error::{Error, Result, codes};
use crate::stack::rate_limit::Quota;
use crate::store::{Database, Transaction};

/// The answer of [`Accounts::standing`].
pub type RoleFuture<'a> = Pin<Box<dyn Future<Output = Result<Option<Role>>> + Send + 'a>>;

/// Where accounts and their sessions are kept: the service's own tables.
pub trait Accounts: Send + Sync + 'static {
    /// The role of an account that exists and may sign in, if this session of it has not ended. One query: it is on the way of requests.
    fn standing(&self, account: Uuid, session: Uuid, deadline: Option<Instant>) -> RoleFuture<'_>;
}

/// Finds out who is asking. Part of a service's state.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    tokens: Tokens,
    clock: Clock,
    accounts: Box<dyn Accounts>,
    quota: Quota<Uuid>,
    standings: Arc<Standings>,
    ear: Ear,
    asked: AtomicU64,
}

impl Auth {
    /// Verifies `tokens` and asks `accounts`; each account may make as many requests as `quota` says.
    pub fn new(tokens: Tokens, clock: Clock, accounts: impl Accounts, quota: Quota<Uuid>) -> Self {
        let standings = Arc::new(Standings::new(Instant::now()));
        let ear = Ear::new(standings.clone());
        Self(Arc::new(Inner { tokens, clock, accounts: Box::new(accounts), quota, standings, ear, asked: AtomicU64::new(0) }))
    }

    /// Listens from now on to the changes that other instances make in this database, as long as this value lives. It takes one connection beside the pool
    /// ([`crate::store::check_arithmetic`] counts it). On SQLite there are no other instances.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn listen(&self, database: &Database) {
        self.0.ear.listen(database);
    }

    /// Does this instance hear of the changes that others make?
    pub fn hearing(&self) -> Hearing {
        self.0.ear.hearing()
    }

    /// The tokens of this service.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// The clock by which tokens are judged.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Commits a transaction that changes somebody's standing, and returns when the change counts: here at once, elsewhere 50 ms after this
    /// instance has heard of it, or after a quarter of a second, when no instance that hears nothing believes anymore what it knew before.
    ///
    /// # Errors
    /// Those of [`Transaction::commit`].
    pub async fn commit(&self, mut transaction: Transaction, change: Change) -> Result<()> {
        let expected = self.0.ear.expect(&mut transaction).await?;
        let outcome = transaction.commit().await;
        // Even if the commit failed: nobody may know whether it did.
        self.0.standings.forget(change);
        outcome?;
        if let Some(expected) = expected {
            expected.heard().await;
        }
        Ok(())
    }

    /// Sets the metrics `mainstay_standing_*`; call it when the metrics are read.
    pub fn record_metrics(&self) {
        let (heard, interruptions) = self.0.ear.counts();
        metrics::counter!("mainstay_standing_reads_total").absolute(self.asked());
        metrics::counter!("mainstay_standing_news_total").absolute(heard);
        metrics::counter!("mainstay_standing_interruptions_total").absolute(interruptions);
        metrics::gauge!("mainstay_standing_heard").set(f64::from(u8::from(self.hearing() != Hearing::Lost)));
    }

    /// How often the database was asked for somebody's standing.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    async fn standing(&self, account: Uuid, session: Uuid, deadline: Option<Instant>) -> Result<Option<Role>> {
        let now = Instant::now();
        if let Some(standing) = self.0.standings.get(account, session, now) {
            return Ok(standing);
        }
        let ticket = self.0.standings.ask(account, now);
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let standing = self.0.accounts.standing(account, session, deadline).await?;
        self.0.standings.keep(account, session, standing, &ticket);
        Ok(standing)
    }

    async fn caller(&self, headers: &HeaderMap) -> Result<SignedIn> {
        let context = context::current();
        let token = bearer(headers)?;
        let claims = self.0.tokens.verify_with_look(token, self.0.clock.now()).await.map_err(|refused| invalid_token().caused_by(refused))?;
        let deadline = context.as_ref().and_then(|context| context.deadline());
        let standing = self.standing(claims.subject, claims.session, deadline).await?;
        let role = standing.ok_or_else(|| invalid_token().caused_by("unknown or disabled account, or its session has ended"))?;
        if let Some(context) = context {
            context.set_account(claims.subject);
            if !context.route.unlimited() {
                self.0.quota.take(claims.subject, context.started)?;
            }
        }
        Ok(SignedIn { account: claims.subject, session: claims.session, role })
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
    /// Its session, to which the token belongs.
    pub session: Uuid,
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
