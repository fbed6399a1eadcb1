//! Sessions: one for each sign-in, seen and ended by its owner, kept alive by refresh tokens. Routes, wire types and handlers.
//!
//! What becomes of a refresh token is decided in `sessions/rotation.rs`; the SQL stands in `sessions/sql.rs`. Whatever ends a session is committed by
//! [`mainstay::auth::Auth::commit`]: when the answer is here, its access tokens are refused by every instance.

mod device;
mod rotation;
pub mod sql;
mod sweep;
mod token;

use std::fmt;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use mainstay::auth::{Admin, Change, Person};
use mainstay::error::{Error, Result};
use mainstay::extract::{Json, Path, PathId, parse_uuid_v4};
use mainstay::stack::compress;
use mainstay::store;
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::api_keys;
use crate::app::{App, Envelope};
use crate::audit::{self, Actor, Entry, actions};
use crate::codes;
use crate::mail::{self, Letter, To};
use crate::settings::SESSIONS_MAX_MOST;
use crate::users::{self, User, UserId};

pub use device::Device;
pub use rotation::Grant;
use rotation::{Policy, Turn};
pub use sql::{Because, Family};
pub use sweep::sweep;
pub use token::RefreshToken;

/// Writes that keep somebody signed in, or end it: one row each, and whoever is refused them asks for a sign-in, which is dear.
pub const CHEAP: &[&str] = &["POST /api/auth/refresh", "POST /api/auth/logout"];

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(logout_all))
        .routes(routes!(list))
        .routes(routes!(remove))
        .routes(routes!(remove_all))
}

/// What a sign-in gives, and each refresh again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Signed {
    /// For `Authorization: Bearer`.
    #[schema(
        max_length = 4096,
        pattern = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$",
        example = "eyJ0eXAiOiJhdCtqd3QifQ.eyJzdWIiOiIzZjJjMWI5ZSJ9.c2lnbmF0dXJl"
    )]
    access_token: String,
    /// Always `Bearer`.
    #[schema(pattern = "^Bearer$", max_length = 6, example = "Bearer")]
    token_type: String,
    /// Seconds until the access token ends.
    #[schema(example = 900, minimum = 1, maximum = 31_536_000)]
    expires_in: u64,
    /// For `POST /api/auth/refresh`, once: each refresh gives another one.
    #[schema(min_length = 47, max_length = 47, pattern = "^mrt_[A-Za-z0-9_-]{43}$", example = "mrt_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q")]
    refresh_token: String,
    /// Seconds until the session ends if it is not refreshed.
    #[schema(example = 2_592_000, minimum = 0, maximum = 31_536_000)]
    refresh_expires_in: u64,
    /// Who signed in.
    user: User,
}

/// What somebody typed who signs in.
pub struct Typed {
    /// The hash against which the password was found right.
    pub hash: String,
    /// A code of the second factor.
    pub code: Option<SecretString>,
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed(..)")
    }
}

/// Opens a session of an account. Whoever typed a password is asked for a second factor if the account has one; nobody else is.
///
/// # Errors
/// [`codes::INVALID_CREDENTIALS`] when the account may not sign in anymore; [`codes::SECOND_FACTOR_REQUIRED`], [`codes::INVALID_SECOND_FACTOR`].
pub async fn open(app: &App, account: Uuid, typed: Option<Typed>, device: Device) -> Result<Grant> {
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    let (policy, factors) = (Policy::of(&app.settings), app.second_factors.clone());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        let hash = typed.as_ref().map(|typed| typed.hash.as_str());
        let begun = rotation::begin(&mut transaction, account, hash, &device, policy, now, &SystemRandom::new()).await?;
        if let Some(typed) = &typed {
            // Here, under the lock of the account: a factor that is enabled meanwhile ends this session or is asked for, and a code is used if this commits.
            factors.take(&mut transaction, account, typed.code.as_ref(), now).await?;
        }
        let detail = json!({"session": begun.grant.session, "displaced": begun.displaced});
        let entry = Entry::new(Actor::Person(account), actions::SESSION_OPENED).about(account).from(&device).with(detail);
        audit::record(&mut transaction, entry, now).await?;
        match begun.displaced {
            0 => transaction.commit().await?,
            _ => auth.commit(transaction, Change::Account(account)).await?,
        }
        Ok::<_, Error>(begun.grant)
    };
    app.writes.finish(write).await
}

/// The answer to whoever was granted a session, with the access token that goes with it.
///
/// # Errors
/// [`codes::INVALID_CREDENTIALS`] when the account is gone meanwhile.
pub async fn signed(app: &App, grant: &Grant) -> Result<Response> {
    let now = app.clock().now();
    let user = users::sql::find(&mut *app.read().await?, grant.account).await?.ok_or_else(|| Error::new(&codes::INVALID_CREDENTIALS))?;
    let left_s = grant.expires_at.as_second().saturating_sub(now.as_second());
    let signed = Signed {
        access_token: app.auth.tokens().issue(grant.account, grant.session, grant.role, now).expose_secret().to_owned(),
        token_type: "Bearer".to_owned(),
        expires_in: app.auth.tokens().expiry().as_secs(),
        refresh_token: grant.refresh.text().expose_secret().to_owned(),
        refresh_expires_in: u64::try_from(left_s).unwrap_or(0),
        user,
    };
    let mut response = Envelope::of(signed).into_response();
    // RFC 6749, 5.1: no cache keeps a token; and none is compressed beside the caller's own words.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(compress::Never);
    Ok(response)
}

/// A refresh token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"refresh_token": "mrt_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q"}))]
struct Refresh {
    /// The newest one of the session.
    #[schema(value_type = String, max_length = 47, pattern = r"^[^\u0000]*$", example = "mrt_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q")]
    refresh_token: SecretString,
}

/// Gives the next access token and the next refresh token.
///
/// A refresh token is good for one use. For a few seconds after it (`REFRESH_REUSE_WINDOW`) it gives the same successor again, so an answer that was lost on
/// the way, or two requests at once, sign nobody out. Used again later, it ends the session: somebody has a copy.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "sign-in", operation_id = "refresh", request_body = Refresh, security(()),
    responses((status = 200, description = "The next tokens", body = Envelope<Signed>), (status = 401, description = "invalid_refresh_token, invalid_credentials")))]
async fn refresh(State(app): State<App>, device: Device, Json(input): Json<Refresh>) -> Result<Response> {
    let presented = RefreshToken::parse(input.refresh_token.expose_secret()).ok_or_else(|| refused("not of the form of one"))?;
    let grant = exchange(&app, presented, device).await?;
    signed(&app, &grant).await
}

/// Presents a refresh token.
///
/// # Errors
/// [`codes::INVALID_REFRESH_TOKEN`].
pub async fn exchange(app: &App, presented: RefreshToken, device: Device) -> Result<Grant> {
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    let policy = Policy::of(&app.settings);
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        match rotation::turn(&mut transaction, &presented, &device, policy, now, &SystemRandom::new()).await? {
            Turn::Granted(grant) => {
                transaction.commit().await?;
                Ok(grant)
            }
            Turn::Reused(family) => {
                reuse_detected(&mut transaction, &family, &device, now).await?;
                auth.commit(transaction, Change::Session { account: family.account, session: family.session }).await?;
                Err(refused("used before"))
            }
            Turn::Refused(reason) => Err(refused(reason)),
        }
    };
    app.writes.finish(write).await
}

/// Ends a session of which two parties have tokens. Everything that is to happen then happens in this transaction, once: a family ends once.
async fn reuse_detected(session: &mut store::Session, family: &Family, device: &Device, now: Timestamp) -> Result<()> {
    sql::revoke(session, family.account, family.session, Because::TokenReused, now).await?;
    let entry =
        Entry::new(Actor::Stranger, actions::SESSION_REFUSED_REUSE).about(family.account).from(device).with(json!({"session": family.session}));
    audit::record(session, entry, now).await?;
    if let Some(user) = users::sql::find(session, family.account).await? {
        let to = To::person(&user.email, &user.name);
        mail::send(session, &to, &Letter::SessionRevokedForReuse, &family.session.to_string(), now).await?;
    }
    metrics::counter!("mainstay_refresh_tokens_reused_total").increment(1);
    tracing::warn!(account = %family.account, session = %family.session, address = %device.address, "a refresh token was used again: its session was ended");
    Ok(())
}

fn refused(reason: &'static str) -> Error {
    Error::new(&codes::INVALID_REFRESH_TOKEN).caused_by(format!("refresh token: {reason}"))
}

/// Which session is to end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"refresh_token": "mrt_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q"}))]
struct Logout {
    /// A refresh token of the session; without one it is the session of the access token.
    #[schema(value_type = Option<String>, max_length = 47, pattern = r"^[^\u0000]*$", example = "mrt_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q")]
    refresh_token: Option<SecretString>,
}

/// Signs out.
///
/// Ends the session of the refresh token in the body, whatever became of the access token; `204` also if there is no such session (as RFC 7009 has it).
/// Without a body, ends the session of the access token. Its tokens are refused by every instance from now on.
#[utoipa::path(post, path = "/api/auth/logout", tag = "sign-in", operation_id = "logout", request_body = Option<Logout>, security((), ("bearer" = [])),
    responses((status = 204, description = "The session has ended")))]
async fn logout(State(app): State<App>, caller: Result<Person, Error>, device: Device, input: Option<Json<Option<Logout>>>) -> Result<StatusCode> {
    match input.and_then(|Json(input)| input?.refresh_token) {
        Some(token) => {
            if let Some(token) = RefreshToken::parse(token.expose_secret()) {
                end_family(&app, token, &device).await?;
            }
        }
        None => {
            let caller = caller?;
            end(&app, caller.account, caller.session, Because::SignedOut, &device).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Signs out everywhere.
///
/// Ends all sessions of the caller's account, this one as well.
#[utoipa::path(post, path = "/api/auth/logout-all", tag = "sign-in", operation_id = "logoutAll", security(("bearer" = [])),
    responses((status = 204, description = "The sessions have ended")))]
async fn logout_all(State(app): State<App>, caller: Person, device: Device) -> Result<StatusCode> {
    end_all(&app, caller, caller.account, Because::SignedOutEverywhere, &device).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionView {
    /// The id.
    #[schema(example = "5f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e")]
    id: Uuid,
    /// Is it the one of the access token?
    #[schema(example = true)]
    current: bool,
    /// When it was opened.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    created_at: Timestamp,
    /// When it was refreshed last.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    last_used_at: Timestamp,
    /// When it ends if it is not refreshed.
    #[schema(value_type = String, format = DateTime, example = "2026-01-31T00:00:00Z")]
    expires_at: Timestamp,
    /// From where it was opened or refreshed last.
    #[schema(max_length = 45, pattern = "^[0-9a-fA-F.:]+$", example = "192.0.2.1")]
    address: String,
    /// What the client called itself.
    #[schema(required, max_length = 256, example = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")]
    user_agent: Option<String>,
}

/// Lists the caller's sessions.
///
/// All that have not ended, the one used last first; there are `SESSIONS_MAX` at most.
#[utoipa::path(get, path = "/api/auth/sessions", tag = "sign-in", operation_id = "listSessions", security(("bearer" = [])),
    responses((status = 200, description = "The sessions", body = Envelope<Vec<SessionView>>)))]
async fn list(State(app): State<App>, caller: Person) -> Result<axum::Json<Envelope<Vec<SessionView>>>> {
    let listed = sql::list(&mut *app.read().await?, caller.account, app.clock().now(), i64::from(SESSIONS_MAX_MOST)).await?;
    let view = |session: sql::Listed| SessionView {
        id: session.id,
        current: session.id == caller.session,
        created_at: session.created_at,
        last_used_at: session.last_used_at,
        expires_at: session.expires_at,
        address: session.address,
        user_agent: session.user_agent,
    };
    Ok(Envelope::of(listed.into_iter().map(view).collect()))
}

/// The id of a session, in a path.
#[derive(Debug, Clone, Copy)]
struct SessionId(Uuid);

impl PathId for SessionId {
    const INVALID: &'static str = "Invalid session ID format";
    fn parse(text: &str) -> Option<Self> {
        parse_uuid_v4(text).map(Self)
    }
}

/// Ends one of the caller's sessions.
///
/// The one of the access token as well.
#[utoipa::path(delete, path = "/api/auth/sessions/{id}", tag = "sign-in", operation_id = "removeSession", params(("id" = Uuid, Path, description = "The session")), security(("bearer" = [])),
    responses((status = 204, description = "The session has ended"), (status = 404, description = "session_not_found")))]
async fn remove(State(app): State<App>, caller: Person, device: Device, Path(SessionId(id)): Path<SessionId>) -> Result<StatusCode> {
    // Somebody else's session does not exist here, to the owner of none and to an administrator alike.
    if !end(&app, caller.account, id, Because::EndedByOwner, &device).await? {
        return Err(Error::new(&codes::SESSION_NOT_FOUND));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Ends all sessions and API keys of an account.
///
/// For administrators: when a device is lost, or an account is in the wrong hands. Its owner can sign in again.
#[utoipa::path(delete, path = "/api/users/{id}/sessions", tag = "users", operation_id = "removeUserSessions", params(("id" = Uuid, Path, description = "The account")), security(("bearer" = []), ("api_key" = ["admin"])),
    responses((status = 204, description = "The sessions and API keys have ended"), (status = 403, description = "forbidden"), (status = 404, description = "user_not_found")))]
async fn remove_all(State(app): State<App>, Admin(caller): Admin, device: Device, Path(UserId(id)): Path<UserId>) -> Result<StatusCode> {
    end_all(&app, caller, id, Because::EndedByAdministrator, &device).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session of an account, by whoever has one of its tokens. Had it not ended yet?
async fn end(app: &App, account: Uuid, session: Uuid, because: Because, device: &Device) -> Result<bool> {
    let entry = Entry::new(Actor::Person(account), actions::SESSION_ENDED).about(account).from(device);
    let entry = entry.with(json!({"session": session, "because": because.as_str()}));
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        if !sql::revoke(&mut transaction, account, session, because, now).await? {
            return Ok(false);
        }
        audit::record(&mut transaction, entry, now).await?;
        auth.commit(transaction, Change::Session { account, session }).await?;
        Ok::<_, Error>(true)
    };
    app.writes.finish(write).await
}

/// Ends the session of a refresh token, if there is one. Whoever has any token of it may end it: the worst that comes of a stolen one.
async fn end_family(app: &App, token: RefreshToken, device: &Device) -> Result<()> {
    let mut connection = app.read().await?;
    let Some((account, session)) = sql::of_family(&mut connection, &token.family()).await? else { return Ok(()) };
    drop(connection);
    end(app, account, session, Because::SignedOut, device).await.map(drop)
}

/// Ends all sessions of an account, and if an administrator takes it out of the wrong hands its API keys too: whoever had a session may have made one.
///
/// # Errors
/// [`codes::USER_NOT_FOUND`].
pub async fn end_all(app: &App, actor: impl Into<Actor>, account: Uuid, because: Because, device: &Device) -> Result<()> {
    let entry = Entry::new(actor, actions::SESSIONS_ENDED).about(account).from(device);
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        users::sql::lock(&mut transaction, account).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))?;
        let mut ended = sql::revoke_all(&mut transaction, account, 0, because, now).await?;
        if because == Because::EndedByAdministrator {
            ended += api_keys::sql::revoke_all(&mut transaction, account, now).await?;
        }
        match ended {
            0 => Ok(transaction.commit().await?),
            ended => {
                let entry = entry.with(json!({"sessions": ended, "because": because.as_str()}));
                audit::record(&mut transaction, entry, now).await?;
                auth.commit(transaction, Change::Account(account)).await
            }
        }
    };
    app.writes.finish(write).await
}
