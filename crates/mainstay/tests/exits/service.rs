//! The service behind the stack: a few handlers that end in every way a handler can.

use std::future::pending;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::FromRef;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use mainstay::auth::{Accounts, Admin, Auth, Keys, Role, RoleFuture, SignedIn, Tokens};
use mainstay::clock::Clock;
use mainstay::error::{Error, codes};
use mainstay::extract::{Json, Path, PathId, parse_uuid_v4};
use mainstay::news::News;
use mainstay::stack::rate_limit::Quota;
use mainstay::testing::{StackSettings, TestServer, routes};
use secrecy::{ExposeSecret, SecretSlice};
use serde::Deserialize;
use uuid::Uuid;

/// The origin that the stack of the tests lets in.
pub(crate) const ORIGIN: &str = "https://app.example.com";

const USER: Uuid = Uuid::from_u128(7);

struct Everyone;

impl Accounts for Everyone {
    fn standing(&self, account: Uuid, _: Uuid, _: Option<Instant>) -> RoleFuture<'_> {
        Box::pin(async move { Ok((account == USER).then_some(Role::User)) })
    }
}

#[derive(Clone)]
struct App(Auth);

impl FromRef<App> for Auth {
    fn from_ref(app: &App) -> Auth {
        app.0.clone()
    }
}

fn tokens() -> Tokens {
    Tokens::new(Keys::from_secret(&SecretSlice::from(vec![7; 32])), "https://issuer.example", "api", Duration::from_secs(60))
}

/// The credentials of an account without any privilege.
pub(crate) fn bearer() -> String {
    format!("Bearer {}", tokens().issue(USER, Uuid::from_u128(8), Role::User, jiff::Timestamp::now()).expose_secret())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: String,
}

struct ItemId;

impl PathId for ItemId {
    const INVALID: &'static str = "Invalid item ID format";
    fn parse(text: &str) -> Option<Self> {
        parse_uuid_v4(text).map(|_| Self)
    }
}

async fn panic_later() {
    tokio::task::yield_now().await;
    panic!("later");
}

async fn panic_at_once() {
    panic!("at once");
}

/// An answer in somebody else's words, with fields of its own.
async fn foreign() -> Response {
    let mut response = (StatusCode::CONFLICT, "somebody else's words, ".repeat(100)).into_response();
    for (name, value) in [(header::VARY, "Accept-Language"), (header::SET_COOKIE, "a=1"), (header::SET_COOKIE, "b=2"), (header::ETAG, "\"1\"")] {
        response.headers_mut().append(name, HeaderValue::from_static(value));
    }
    response
}

/// Serves the handlers behind the stack.
pub(crate) fn start(settings: StackSettings) -> TestServer {
    let quota = Quota::new("account", 1000, Duration::from_secs(60));
    let app = App(Auth::new(tokens(), Clock::system(), Everyone, quota, News::default()));
    let router = Router::new()
        .route("/ok", get(async || "fine"))
        .route("/items", post(async |Json(item): Json<Item>| item.name))
        .route("/items/{id}", get(async |_: Path<ItemId>| "item"))
        .route("/me", get(async |me: SignedIn| me.account.to_string()))
        .route("/admin", get(async |_: Admin| "admin"))
        .route("/panic/at-once", get(panic_at_once))
        .route("/panic/later", get(panic_later))
        .route("/fault", get(async || Error::new(&codes::INTERNAL).caused_by("the disk is on fire")))
        .route("/never", get(async || pending::<()>().await))
        .route("/teapot", get(async || StatusCode::IM_A_TEAPOT))
        .route("/foreign", get(foreign))
        .route("/rejected", post(async |axum::Json(item): axum::Json<Item>| item.name))
        .with_state(app);
    let listed = [
        "GET /ok",
        "POST /items",
        "GET /items/{id}",
        "GET /me",
        "GET /admin",
        "GET /panic/at-once",
        "GET /panic/later",
        "GET /fault",
        "GET /never",
        "GET /teapot",
        "GET /foreign",
        "POST /rejected",
    ];
    TestServer::start(routes(router, &listed, &[]), settings)
}

/// Waits for a condition, with an end.
pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the condition never holds");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
