//! The peer inside Mainstay's whole stack: its transport, every layer with the figures of production, its extractors, its
//! token check and its store. Nothing is switched off; the rate limits are only set out of reach.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{FromRef, State};
use axum::routing::{get, post};
use mainstay::auth::caller::RoleFuture;
use mainstay::auth::{Accounts, Auth, Keys, Role, SignedIn, Tokens};
use mainstay::client::Networks;
use mainstay::clock::Clock;
use mainstay::config::{Reader, Settings};
use mainstay::error::{Detail, codes};
use mainstay::extract::{Json, Path, PathId, parse_uuid_v4};
use mainstay::log::Sink;
use mainstay::metrics::Metrics;
use mainstay::news::News;
use mainstay::routes::Routes;
use mainstay::serve::{Drain, Limits};
use mainstay::stack::rate_limit::Quota;
use mainstay::stack::{self, BodyLimit, Compress, Conform, Cors, Deadline, Observe, Overload, PanicBarrier, RateLimit, SecureHeaders};
use mainstay::store::{self, Database};
use mainstay::{Error, Result};
use mainstay_bench::database::{PRODUCT_SQL, Product};
use mainstay_bench::routes::{self, Answer, Order, success};
use mainstay_bench::serve as rig;
use secrecy::{ExposeSecret as _, SecretSlice};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem};
use utoipa::openapi::{OpenApi, OpenApiBuilder, PathsBuilder};
use uuid::Uuid;

// The allocator of the service, in both axum peers: the difference between them is to be the stack alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often recorded latencies are folded into their buckets, as the service does it.
const UPKEEP: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let variables: Vec<(String, String)> = std::env::vars().collect();
    let mut reader = Reader::from_pairs(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let settings = Settings::read(&mut reader);
    reader.finish().map_err(|problems| anyhow::anyhow!("{problems}"))?;

    let log = Sink::to(std::io::stdout(), settings.log_format)?;
    mainstay::log::init(&log, &settings.log_level);
    let metrics = Metrics::global();
    let kept = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            kept.upkeep();
        }
    });
    let routes = Routes::new(router(&settings).await?, &document(), &[], &[]);
    let trusted = Networks::new(settings.trusted_proxies.clone());
    let exempt = Networks::new(settings.rate_limit_allowlist.clone());
    let service = stack::from_the_street(trusted)
        .enter(Observe::new(routes.table(), Detail::Message, log, metrics, Clock::system()))
        .enter(PanicBarrier)
        .enter(SecureHeaders::new(settings.content_policy))
        .enter(Cors::new(settings.allowed_origins.clone(), settings.cors_credentials))
        .enter(Compress)
        .enter(Conform)
        .enter(Deadline::new(settings.request_timeout))
        .enter(Overload::new(settings.concurrency_max).floor(settings.concurrency_min))
        .enter(RateLimit::new(settings.rate_limit_max, settings.rate_limit_window, exempt))
        .enter(BodyLimit::new(settings.body_limit.0))
        .around(routes);
    mainstay::serve::serve(rig::listener().await?, service, Limits::default(), Drain::new()).await;
    Ok(())
}

/// What the product route needs.
#[derive(Clone)]
struct Signed {
    auth: Auth,
    database: Database,
}

impl FromRef<Signed> for Auth {
    fn from_ref(state: &Signed) -> Self {
        state.auth.clone()
    }
}

/// Every account exists and is a user: the Express peer asks no table either.
struct Everyone;

impl Accounts for Everyone {
    fn standing(&self, _: Uuid, _: Uuid, _: Option<Instant>) -> RoleFuture<'_> {
        Box::pin(std::future::ready(Ok(Some(Role::User))))
    }
}

async fn router(settings: &Settings) -> anyhow::Result<Router> {
    let open = routes::open().route("/api/echo", post(echo));
    let Ok(url) = std::env::var("DATABASE_URL") else { return Ok(open) };
    let secret = settings.token_keys.secret.as_ref().context("JWT_SECRET is not set: `bench` starts this program")?;
    let secret = SecretSlice::from(secret.expose_secret().as_bytes().to_vec());
    let tokens = Tokens::new(Keys::from_secret(&secret), &settings.jwt_issuer, &settings.jwt_audience, settings.jwt_expiry);
    let quota = Quota::new("account", settings.rate_limit_account_max, settings.rate_limit_window);
    let auth = Auth::new(tokens, Clock::system(), Everyone, quota, News::default());
    let database = Database::open(&store::Settings::new(url)).await?;
    Ok(open.merge(Router::new().route("/api/products/{id}", get(product)).with_state(Signed { auth, database })))
}

/// The table of routes, which a service has from its handlers' own document.
fn document() -> OpenApi {
    let route = |method| PathItem::new(method, OperationBuilder::new().build());
    let paths = PathsBuilder::new()
        .path("/api/small", route(HttpMethod::Get))
        .path("/api/big", route(HttpMethod::Get))
        .path("/api/echo", route(HttpMethod::Post))
        .path("/api/products/{id}", route(HttpMethod::Get));
    OpenApiBuilder::new().paths(paths.build()).build()
}

/// `POST /api/echo`, read by Mainstay's extractor: strict JSON, the field named.
async fn echo(Json(order): Json<Order>) -> Result<axum::Json<Answer<Order>>> {
    match order.refused_field() {
        Some(field) => Err(Error::new(&codes::VALIDATION_FAILED).with_field(field, "invalid_value", "is outside its limits")),
        None => Ok(success(order)),
    }
}

/// The id of a product in the path.
struct ProductId(Uuid);

impl PathId for ProductId {
    const INVALID: &'static str = "Invalid product ID format";

    fn parse(text: &str) -> Option<Self> {
        parse_uuid_v4(text).map(Self)
    }
}

/// `GET /api/products/{id}` for somebody who is signed in: one row by its primary key.
async fn product(_: SignedIn, State(state): State<Signed>, Path(id): Path<ProductId>) -> Result<axum::Json<Answer<Product>>> {
    let deadline = mainstay::context::current().and_then(|context| context.deadline());
    let mut connection = state.database.acquire(deadline).await?;
    let row = store::query(PRODUCT_SQL).bind(id.0).fetch_optional(&mut connection).await?;
    let row = row.ok_or_else(|| Error::new(&codes::ROUTE_NOT_FOUND))?;
    Ok(success(Product {
        id: row.get("id")?,
        sku: row.get("sku")?,
        name: row.get("name")?,
        manufacturer: row.get("manufacturer")?,
        description: row.get("description")?,
        price: row.get("price")?,
        currency: row.get("currency")?,
        version: row.get("version")?,
    }))
}
