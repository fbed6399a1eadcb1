//! The table of contents: the resources, what they share, and the stack around them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRef;
use mainstay::auth::{AccountKey, Allowance, Asker, Auth, Keys, Passwords, Role, Sealer, Throttle, ThrottleLimits, Tokens};
use mainstay::cache::Cache;
use mainstay::client::Networks;
use mainstay::clock::Clock;
use mainstay::config::ContentPolicy;
use mainstay::context;
use mainstay::error::{Detail, Error, Result};
use mainstay::health::Health;
use mainstay::jobs::{Chance, Jobs, Kinds, Limits};
use mainstay::log::Sink;
use mainstay::metrics::Metrics;
use mainstay::news::News;
use mainstay::redis::Redis;
use mainstay::routes::{Cost, Routes};
use mainstay::serve;
use mainstay::stack::rate_limit::{Quota, Together};
use mainstay::stack::{BodyLimit, Compress, Conform, Cors, Deadline, Observe, Overload, PanicBarrier, RateLimit, SecureHeaders, from_the_street};
use mainstay::store::{Connection, Database};
use mainstay::writes::Writes;
use ring::rand::SystemRandom;
use serde::Serialize;
use serde_json::json;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::api_keys::{self, AccountsTable};
use crate::audit::{self, Entry};
use crate::mail::{self, Letter, Mailer, To};
use crate::one_time::{self, Purpose};
use crate::search::Search;
use crate::second_factor::{self, SecondFactors};
use crate::settings::Settings;
use crate::users::{self, NewAccount, User};
use crate::{codes, docs, errands, health, jwks, links, own_account, products, search, sessions, sign_in};

/// The document's own words; its paths and schemas come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(title = "Mainstay", description = "Accounts, products and product search behind a production stack.\n\nSuccess is `{\"status\":\"success\",\"data\":...}`, failure `{\"status\":\"error\",\"code\":...}`; `Accept: application/problem+json` asks for RFC 9457 instead.", license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"), contact(name = "Mainstay", url = "https://github.com/mainstay-rs/mainstay")),
    servers((url = "/", description = "The server that gave out this document, local or production")),
    components(schemas(search::FacetCount)),
    tags(
        (name = "sign-in", description = "Open an account, sign in, stay signed in, sign out; second factor and API keys"),
        (name = "users", description = "Accounts"),
        (name = "products", description = "The catalogue"),
        (name = "search", description = "Full-text search over the catalogue"),
        (name = "health", description = "May traffic come?"),
    )
)]
struct Document;

/// Every resource, one line each.
fn resources() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(sign_in::router())
        .merge(links::router())
        .merge(own_account::router())
        .merge(sessions::router())
        .merge(second_factor::router())
        .merge(api_keys::router())
        .merge(jwks::router())
        .merge(users::router())
        .merge(audit::router())
        .merge(products::router())
        .merge(search::router())
        .merge(health::router())
}

/// The OpenAPI document, complete.
pub fn document() -> utoipa::openapi::OpenApi {
    let (_, mut document) = resources().split_for_parts();
    mainstay::openapi::complete(&mut document, codes::ALL);
    document
}

/// Is the address of a new account known to be its owner's?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Somebody who may says so.
    Vouched,
    /// Its mailbox is asked.
    Asked,
}

/// Where things are kept.
#[derive(Debug, Clone)]
pub struct Stores {
    /// What lasts.
    pub database: Database,
    /// What instances count together.
    pub redis: Option<Redis>,
    /// Answers of hot reads.
    pub cache: Cache,
    /// The index.
    pub search: Search,
}

/// What handlers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    /// The settings.
    pub settings: Arc<Settings>,
    /// The database.
    pub database: Database,
    /// Where all instances count together.
    pub redis: Option<Redis>,
    /// Who is asking.
    pub auth: Auth,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Checks second factors.
    pub second_factors: SecondFactors,
    /// Slows down who guesses them.
    pub throttle: Throttle,
    /// Letters that strangers cause to one mailbox.
    pub letters: Arc<Quota<AccountKey>>,
    /// Answers of hot reads.
    pub cache: Cache,
    /// Finds products.
    pub search: Search,
    /// How many requests are worked on at once.
    pub overload: Overload,
    /// Writes in progress.
    pub writes: Writes,
    /// The phase of the process's life.
    pub health: Health,
    /// Work that outlives its request: mails. It begins with [`Jobs::start`].
    pub jobs: Jobs,
}

impl FromRef<App> for Auth {
    fn from_ref(app: &App) -> Self {
        app.auth.clone()
    }
}

impl App {
    /// Puts together what the handlers share. `keys` sign access tokens, the secrets of authenticators are sealed by `sealer`.
    ///
    /// # Errors
    /// When the system has no randomness to give, or TLS to the mail server is not possible.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: it begins to listen to other instances.
    pub fn new(settings: Arc<Settings>, stores: Stores, keys: Keys, sealer: Option<Sealer>, clock: Clock) -> Result<Self> {
        let Stores { database, redis, cache, search } = stores;
        let stack = &settings.stack;
        let tokens = Tokens::new(keys, &stack.jwt_issuer, &stack.jwt_audience, stack.jwt_expiry);
        let together = redis.clone().map(|redis| Together::new(redis, stack.instances));
        let quota = Quota::new("account", stack.rate_limit_account_max, stack.rate_limit_window).together(together.clone());
        let jobs_limits = Limits { concurrency_max: settings.jobs_concurrency, lease: settings.jobs_lease };
        let kinds = errands::add_to(Mailer::new(&settings)?.add_to(Kinds::new()), database.clone(), clock.clone());
        let jobs = Jobs::new(database.clone(), clock.clone(), Chance::system(), kinds, jobs_limits);
        let accounts = AccountsTable::new(database.clone(), clock.clone());
        let news = News::default();
        cache.follow(&news, products::sql::CHANGES);
        let auth = Auth::new(tokens, clock, accounts, quota, news.clone());
        news.listen(&database);
        let overload = Overload::new(stack.concurrency_max).floor(stack.concurrency_min).knowing(auth.clone());
        // Half of the cores hash, the others serve: a flood of sign-ins slows no reader.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let passwords = Passwords::new(cores.div_ceil(2))?;
        let second_factors = SecondFactors::new(sealer, redis.clone(), Instant::now());
        let limits = ThrottleLimits { strangers: Some(Allowance::of_cores(cores)), ..ThrottleLimits::default() };
        let throttle = Throttle::new(limits, Instant::now()).together("sign_in", redis.clone());
        let (letters, writes, health) = (Arc::new(errands::quota(together)), Writes::default(), Health::default());
        Ok(Self { settings, database, redis, auth, passwords, second_factors, throttle, letters, cache, search, overload, writes, health, jobs })
    }

    /// A connection for reading, within the request's time.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn read(&self) -> Result<Connection> {
        Ok(self.database.acquire(self.deadline()).await?)
    }

    /// A connection for reading what may be a little old: a replica's, for a request without credentials. Whoever shows who he is reads from the primary,
    /// on every instance, and so finds what he wrote (docs/decisions/0023-who-signs-in-reads-from-the-primary.md).
    ///
    /// Nothing that was read so may be kept for others: they could have been told meanwhile that it changed.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn read_tolerant(&self) -> Result<Connection> {
        match context::current() {
            Some(request) if !request.credentials => Ok(self.database.acquire_tolerant(self.deadline()).await?),
            _ => self.read().await,
        }
    }

    /// A connection to make an answer of that the cache keeps: the primary's. Where nothing is kept (`CACHE_SIZE=0`) it may be [a replica's](App::read_tolerant).
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn read_to_keep(&self) -> Result<Connection> {
        if self.settings.stack.cache_size.0 == 0 { self.read_tolerant().await } else { self.read().await }
    }

    /// The end of the current request's time for the database: a little before the request's own, so that a silent database is a 503 that says so,
    /// and not a 504 that leaves the cause open.
    pub fn deadline(&self) -> Option<Instant> {
        const MARGIN: Duration = Duration::from_millis(100);
        context::current().and_then(|request| request.deadline()?.checked_sub(MARGIN))
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        self.auth.clock()
    }

    /// Opens an account with its profile, and writes to its address if that is to be proven. `cause` is who did it, for the audit trail.
    ///
    /// # Errors
    /// [`codes::EMAIL_TAKEN`].
    pub async fn open_account(&self, account: NewAccount, role: Role, address: Address, cause: Entry) -> Result<User> {
        let asker = match address {
            Address::Vouched => Asker::Known(context::client()),
            Address::Asked => Asker::Stranger(context::client()),
        };
        let password_hash = self.passwords.hash(account.password, asker).await?;
        let now = self.clock().now();
        let user = User {
            id: Uuid::new_v4(),
            email: account.email.given().to_owned(),
            name: account.name.as_str().to_owned(),
            role,
            verified: address == Address::Vouched,
            disabled: false,
            created_at: now,
            updated_at: now,
        };
        let (database, deadline) = (self.database.clone(), self.deadline());
        self.writes
            .finish(async move {
                let mut transaction = database.begin(deadline).await?;
                users::sql::insert(&mut transaction, &user, &account.email, &password_hash).await?;
                audit::record(&mut transaction, cause.about(user.id).with(json!({"role": role.as_str()})), now).await?;
                if !user.verified {
                    let token = one_time::issue(&mut transaction, user.id, Purpose::VerifyAddress, None, now, &SystemRandom::new()).await?;
                    mail::send(&mut transaction, &To::address(&user.email), &Letter::VerifyAddress { token }, &user.id.to_string(), now).await?;
                }
                transaction.commit().await?;
                Ok::<_, Error>(user)
            })
            .await
    }

    /// The routes and the table of them.
    pub fn routes(&self) -> Routes {
        let (router, _) = resources().split_for_parts();
        let document = document();
        let router = router.with_state(self.clone()).merge(docs::router(&document));
        Routes::new(router, &document, docs::PATHS, health::PATHS)
            .costing(Cost::Memory, docs::FROM_MEMORY)
            .costing(Cost::Memory, jwks::FROM_MEMORY)
            .costing(Cost::Kept, products::KEPT)
            .costing(Cost::Cheap, sessions::CHEAP)
            .costing(Cost::Dear, search::DEAR)
    }

    /// The service: the stack around the routes. This is the whole of it, in order.
    pub fn service(&self, log: Sink, metrics: Metrics) -> impl serve::Stack {
        let settings = &self.settings.stack;
        let routes = self.routes();
        let trusted = Networks::new(settings.trusted_proxies.clone());
        let exempt = Networks::new(settings.rate_limit_allowlist.clone());
        let together = self.redis.clone().map(|redis| Together::new(redis, settings.instances));
        let detail = if settings.production() { Detail::Message } else { Detail::Causes };
        let policy: ContentPolicy = settings.content_policy;
        from_the_street(trusted)
            .enter(Observe::new(routes.table(), detail, log, metrics, self.clock().clone()))
            .enter(PanicBarrier)
            .enter(SecureHeaders::new(policy))
            .enter(Cors::new(settings.allowed_origins.clone(), settings.cors_credentials))
            .enter(Compress)
            .enter(Conform)
            .enter(Deadline::new(settings.request_timeout))
            .enter(self.overload.clone().naming(routes.table()))
            .enter(RateLimit::new(settings.rate_limit_max, settings.rate_limit_window, exempt).together(together, self.auth.clone()))
            .enter(BodyLimit::new(settings.body_limit.0))
            .around(routes)
    }
}

/// A success in the envelope.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// Always `success`.
    #[schema(pattern = "^success$", max_length = 7, example = "success")]
    pub status: String,
    /// What was asked for.
    pub data: T,
}

impl<T> Envelope<T> {
    /// The answer that holds `data`.
    pub fn of(data: T) -> axum::Json<Self> {
        axum::Json(Self { status: "success".to_owned(), data })
    }
}
