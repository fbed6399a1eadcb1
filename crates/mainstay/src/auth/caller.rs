//! Who is asking: the access token or the API key of a request, verified, with what the database knows of its account.
//!
//! What a caller may do is the type of a handler's argument ([`super::permission`]).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use moka::sync::Cache;
use uuid::Uuid;

use super::standing::{KEPT_UNTOLD, Standings};
use super::{ApiKey, Change, KeyKind, Role, Scopes, SignedIn, Tokens, Via};
use crate::clock::Clock;
use crate::context;
use crate::error::{Error, Result, codes};
use crate::news::{Hearing, News};
use crate::stack::rate_limit::Quota;
use crate::store::Transaction;

/// The answer of [`Accounts::standing`].
pub type RoleFuture<'a> = Pin<Box<dyn Future<Output = Result<Option<Role>>> + Send + 'a>>;

/// The answer of [`Accounts::key`].
pub type KeyFuture<'a> = Pin<Box<dyn Future<Output = Result<Option<KnownKey>>> + Send + 'a>>;

/// The channel of PostgreSQL on which changes of standing are told.
pub const CHANNEL: &str = "mainstay_standing";

/// After this instance has heard, the others have this long to be run: with two of them in debug builds on two cores that five compilers shared, the other
/// refused 3 ms later in the median and 48 at most. A part of the wait for who hears nothing, not on top of it.
const SETTLED: Duration = Duration::from_millis(50);

/// API keys that are remembered, about 250 bytes each. One more costs a query.
const KEYS_MAX: u64 = 10_000;

/// What never changes of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownKey {
    /// The key's id: never that of a session.
    pub id: Uuid,
    /// Its account.
    pub account: Uuid,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

/// Where accounts, their sessions and their API keys are kept: the service's own tables.
pub trait Accounts: Send + Sync + 'static {
    /// The role of an account that exists and may sign in, if this session of it has not ended. One query: it is on the way of requests.
    fn standing(&self, account: Uuid, session: Uuid, deadline: Option<Instant>) -> RoleFuture<'_>;

    /// The kind of API keys that are taken. A service without them has none.
    fn key_kind(&self) -> Option<KeyKind> {
        None
    }

    /// The key that is [stored](ApiKey::stored) so, if it has not ended. The answer is remembered: whether the key may still be used is for
    /// [`Accounts::key_standing`] to say.
    fn key<'a>(&'a self, _stored: &'a str, _deadline: Option<Instant>) -> KeyFuture<'a> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// As [`Accounts::standing`], of a key. Its end is a [`Change::Session`] with the key's id.
    fn key_standing(&self, _account: Uuid, _key: Uuid, _deadline: Option<Instant>) -> RoleFuture<'_> {
        Box::pin(std::future::ready(Ok(None)))
    }
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
    news: News,
    asked: AtomicU64,
    /// Keys by what is stored of them. Nothing in it can stop to be true: that whoever knows this text has that key. Only keys that exist are kept, so nobody
    /// without one can push anything out.
    keys: Cache<String, KnownKey>,
}

impl Auth {
    /// Verifies `tokens` and asks `accounts`; each account may make as many requests as `quota` says. What others change is heard of in `news`, which
    /// listen from [`News::listen`] on.
    pub fn new(tokens: Tokens, clock: Clock, accounts: impl Accounts, quota: Quota<Uuid>, news: News) -> Self {
        let standings = Arc::new(Standings::new(Instant::now()));
        news.follow(CHANNEL, standings.clone());
        let (accounts, asked, keys) = (Box::new(accounts), AtomicU64::new(0), Cache::new(KEYS_MAX));
        Self(Arc::new(Inner { tokens, clock, accounts, quota, standings, news, asked, keys }))
    }

    /// How it hears of the changes that others make.
    pub fn news(&self) -> &News {
        &self.0.news
    }

    /// Does this instance hear of the changes that others make?
    pub fn hearing(&self) -> Hearing {
        self.0.news.hearing()
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
        let expected = self.0.news.expect(CHANNEL, &mut transaction).await?;
        let outcome = transaction.commit().await;
        // Even if the commit failed: nobody may know whether it did.
        self.0.standings.forget(change);
        outcome?;
        if let Some(expected) = expected {
            expected.heard(KEPT_UNTOLD - SETTLED).await;
            tokio::time::sleep(SETTLED).await;
        } else if self.0.news.leaves_others_untold() {
            tokio::time::sleep(KEPT_UNTOLD).await;
        }
        Ok(())
    }

    /// Sets the metrics `mainstay_standing_*`; call it when the metrics are read.
    pub fn record_metrics(&self) {
        let (heard, interruptions) = (self.0.news.heard(CHANNEL), self.0.news.interruptions());
        metrics::counter!("mainstay_standing_reads_total").absolute(self.asked());
        metrics::counter!("mainstay_standing_news_total").absolute(heard);
        metrics::counter!("mainstay_standing_interruptions_total").absolute(interruptions);
        metrics::gauge!("mainstay_standing_heard").set(f64::from(u8::from(self.hearing() != Hearing::Lost)));
    }

    /// The account that a request's credential names, if it can be verified without asking anybody, and this instance remembers that it may be used: nobody
    /// spends an account's quota with a session or a key that has ended.
    pub(crate) fn account_of(&self, headers: &HeaderMap) -> Option<Uuid> {
        let (text, now) = (bearer(headers).ok()?, self.0.clock.now());
        let (account, id) = match self.0.accounts.key_kind().and_then(|kind| kind.parse(text)) {
            Some(key) => self.0.keys.get(&key.stored()).filter(|known| known.expires_at > now).map(|known| (known.account, known.id))?,
            None => self.0.tokens.verify(text, now).ok().map(|claims| (claims.subject, claims.session))?,
        };
        self.0.standings.get(account, id, Instant::now()).flatten().map(|_| account)
    }

    /// What an account may ask for.
    pub(crate) fn quota(&self) -> &Quota<Uuid> {
        &self.0.quota
    }

    /// How often the database was asked for somebody's standing.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// The role of an account by a session or a key with this id; `ask` asks the database.
    async fn standing<'a>(&'a self, account: Uuid, id: Uuid, ask: impl FnOnce(&'a dyn Accounts) -> RoleFuture<'a>) -> Result<Role> {
        let refused = || invalid_token().caused_by("unknown or disabled account, or its session or key has ended");
        let now = Instant::now();
        if let Some(standing) = self.0.standings.get(account, id, now) {
            return standing.ok_or_else(refused);
        }
        let ticket = self.0.standings.ask(account, now);
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let standing = ask(self.0.accounts.as_ref()).await?;
        self.0.standings.keep(account, id, standing, &ticket);
        standing.ok_or_else(refused)
    }

    /// Who is asking, whatever he may.
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Result<SignedIn> {
        let context = context::current();
        let text = bearer(headers)?;
        let deadline = context.as_ref().and_then(|context| context.deadline());
        // No access token has the form of a key.
        let caller = match self.0.accounts.key_kind().and_then(|kind| kind.parse(text)) {
            Some(key) => self.by_key(&key, deadline).await?,
            None => self.by_token(text, deadline).await?,
        };
        if let Some(context) = context {
            context.set_account(caller.account);
            if !context.route.unlimited() {
                match context.counted(caller.account) {
                    Some(decision) => self.0.quota.judge(decision)?,
                    None => self.0.quota.count(caller.account, context.started).await?,
                };
            }
        }
        Ok(caller)
    }

    async fn by_token(&self, token: &str, deadline: Option<Instant>) -> Result<SignedIn> {
        let claims = self.0.tokens.verify_with_look(token, self.0.clock.now()).await.map_err(|refused| invalid_token().caused_by(refused))?;
        let (account, session) = (claims.subject, claims.session);
        let role = self.standing(account, session, |accounts| accounts.standing(account, session, deadline)).await?;
        Ok(SignedIn { account, via: Via::Session(session), role })
    }

    async fn by_key(&self, key: &ApiKey, deadline: Option<Instant>) -> Result<SignedIn> {
        let stored = key.stored();
        let known = match self.0.keys.get(&stored) {
            Some(known) => known,
            None => {
                let known = self.0.accounts.key(&stored, deadline).await?.ok_or_else(|| invalid_token().caused_by("unknown or ended API key"))?;
                self.0.keys.insert(stored, known);
                known
            }
        };
        if known.expires_at <= self.0.clock.now() {
            return Err(invalid_token().caused_by("expired API key"));
        }
        let KnownKey { id, account, scopes, .. } = known;
        let role = self.standing(account, id, |accounts| accounts.key_standing(account, id, deadline)).await?;
        Ok(SignedIn { account, via: Via::Key { id, scopes }, role: role.min(scopes.role_max()) })
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
