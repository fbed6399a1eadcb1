//! API keys: by which machines act for an account, within scopes and for a time. Routes, wire types and handlers; the SQL stands in `api_keys/sql.rs`.
//!
//! A key is shown once; stored is its hash. It can never do more than its account may at the moment, and stops with it. Only a person in a session makes,
//! sees and revokes keys: a stolen key makes no other.

pub mod sql;
mod table;

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use mainstay::auth::{Change, KeyKind, Person, Role, Scope, Scopes};
use mainstay::error::{Error, Fields, Flaw, Result};
use mainstay::extract::{Json, Path, PathId, parse_uuid_v4};
use mainstay::stack::compress;
use ring::rand::SystemRandom;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::{App, Envelope};
use crate::audit::{self, Action, Entry};
use crate::codes;
use crate::mail::{self, Letter, To};
use crate::sessions::Device;
use crate::users;

pub use table::AccountsTable;

/// The kind of our keys: `msk_...`.
pub const KEYS: KeyKind = KeyKind::new("msk");

/// A key was made; the detail says which and with what scopes.
const MADE: Action = Action::new("key.made");
/// A key was revoked; the detail says which.
const REVOKED: Action = Action::new("key.revoked");

/// Keys of one account: one for each machine that a team runs, and a list that a person can read.
const KEYS_MAX: i64 = 50;
/// A key that is forgotten ends within a year.
const DAYS_MAX: u32 = 365;
const DAYS_DEFAULT: u32 = 90;
const NAME_CHARS_MAX: usize = 100;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(remove))
}

/// An API key as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    /// The id.
    #[schema(example = "7a2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e")]
    id: Uuid,
    /// What its owner calls it.
    #[schema(example = "Nightly import", min_length = 1, max_length = 100)]
    name: String,
    /// How the key begins, by which one that is found somewhere is told from others.
    #[schema(min_length = 12, max_length = 12, pattern = "^msk_[0-9A-Za-z]{8}$", example = "msk_4fGh71Lp")]
    begins: String,
    /// What it may be used for.
    #[schema(max_items = 4, example = json!(["read", "products:write"]))]
    scopes: Vec<Scope>,
    /// Since when.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    created_at: Timestamp,
    /// When it ends.
    #[schema(value_type = String, format = DateTime, example = "2026-04-01T00:00:00Z")]
    expires_at: Timestamp,
    /// Its last use, to the minute.
    #[schema(required, value_type = Option<String>, format = DateTime, example = "2026-01-02T00:00:00Z")]
    last_used_at: Option<Timestamp>,
}

impl From<sql::Listed> for KeyView {
    fn from(listed: sql::Listed) -> Self {
        Self {
            id: listed.id,
            name: listed.name,
            begins: format!("msk_{}", listed.public_id),
            scopes: listed.scopes.iter().collect(),
            created_at: listed.created_at,
            expires_at: listed.expires_at,
            last_used_at: listed.last_used_at,
        }
    }
}

/// A new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Nightly import", "scopes": ["read"], "expires_in_days": 90}))]
struct CreateKey {
    /// What you call it.
    #[schema(
        example = "Nightly import",
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
    )]
    name: String,
    /// What it may be used for: nothing that your role may not.
    #[schema(min_items = 1, max_items = 4)]
    scopes: Vec<Scope>,
    /// Days until it ends.
    #[schema(minimum = 1, maximum = 365, default = 90)]
    expires_in_days: Option<u32>,
}

/// What a key is made of.
struct NewKey {
    name: String,
    scopes: Scopes,
    life: Duration,
}

impl CreateKey {
    fn parse(self, role: Role) -> Result<NewKey> {
        let mut fields = Fields::new();
        let name = fields.take("name", name(self.name));
        let scopes = fields.take("scopes", scopes(&self.scopes, role));
        let days = self.expires_in_days.unwrap_or(DAYS_DEFAULT);
        let in_range = (1..=DAYS_MAX).contains(&days).then_some(days);
        let days = fields.take("expires_in_days", in_range.ok_or_else(|| Flaw::new("out_of_range", format!("must be 1 to {DAYS_MAX}"))));
        fields.finish()?;
        let life = Duration::from_secs(u64::from(days.unwrap_or(DAYS_DEFAULT)) * 86_400);
        Ok(NewKey { name: name.unwrap_or_default(), scopes: scopes.unwrap_or_default(), life })
    }
}

fn name(text: String) -> Result<String, Flaw> {
    if text.trim().is_empty() {
        return Err(Flaw::new("required", "must not be blank"));
    }
    if text.chars().count() > NAME_CHARS_MAX {
        return Err(Flaw::new("too_long", format!("must have at most {NAME_CHARS_MAX} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Flaw::new("invalid_character", "must not contain control characters"));
    }
    Ok(text)
}

/// A scope beyond the owner's role would be a promise for the day on which the role is raised.
fn scopes(given: &[Scope], role: Role) -> Result<Scopes, Flaw> {
    if given.is_empty() {
        return Err(Flaw::new("required", "must name at least one scope"));
    }
    if given.len() > Scope::ALL.len() {
        return Err(Flaw::new("too_many", format!("must name at most {}", Scope::ALL.len())));
    }
    match given.iter().find(|scope| scope.role() > role) {
        Some(beyond) => Err(Flaw::new("not_allowed", format!("`{beyond}` is for the role `{}`", beyond.role()))),
        None => Ok(given.iter().copied().collect()),
    }
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeKey {
    /// For `Authorization: Bearer`. It is shown this once.
    #[schema(
        min_length = 62,
        max_length = 62,
        pattern = "^msk_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}$",
        example = "msk_4fGh71Lp_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q00"
    )]
    key: String,
    #[serde(flatten)]
    view: KeyView,
}

/// Lists the caller's API keys.
///
/// All that have not ended, the newest first; there are 50 at most. The keys themselves are shown only when they are made.
#[utoipa::path(get, path = "/api/auth/keys", tag = "sign-in", operation_id = "listKeys", security(("bearer" = [])),
    responses((status = 200, description = "The keys", body = Envelope<Vec<KeyView>>)))]
async fn list(State(app): State<App>, caller: Person) -> Result<axum::Json<Envelope<Vec<KeyView>>>> {
    let listed = sql::list(&mut *app.read().await?, caller.account, app.clock().now(), KEYS_MAX).await?;
    Ok(Envelope::of(listed.into_iter().map(KeyView::from).collect()))
}

/// Makes an API key.
///
/// For machines: a key takes the place of an access token, within its scopes, until it ends (after 90 days unless you say otherwise, after a year at most). It
/// can never do more than its account, and nothing that concerns passwords, sessions, keys and second factors.
#[utoipa::path(post, path = "/api/auth/keys", tag = "sign-in", operation_id = "createKey", request_body = CreateKey, security(("bearer" = [])),
    responses((status = 201, description = "The key, shown once", body = Envelope<MadeKey>), (status = 404, description = "user_not_found"), (status = 409, description = "too_many_keys")))]
async fn create(State(app): State<App>, caller: Person, device: Device, Json(input): Json<CreateKey>) -> Result<Response> {
    let new = input.parse(caller.role)?;
    let key = KEYS.make(&SystemRandom::new())?;
    let (database, now, deadline, account) = (app.database.clone(), app.clock().now(), app.deadline(), caller.account);
    let expires_at = now.checked_add(new.life).unwrap_or(Timestamp::MAX);
    let public_id = key.name().to_owned();
    let listed = sql::Listed { id: Uuid::new_v4(), name: new.name, public_id, scopes: new.scopes, created_at: now, expires_at, last_used_at: None };
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        // Of two that are made at once, one counts the other.
        let user = users::sql::lock(&mut transaction, account).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))?;
        if sql::count(&mut transaction, account, now).await? >= KEYS_MAX {
            return Err(Error::new(&codes::TOO_MANY_KEYS));
        }
        sql::forget_ended(&mut transaction, account, now).await?;
        sql::insert(&mut transaction, account, &key, &listed).await?;
        let detail = json!({"made": listed.id, "scopes": listed.scopes.to_string()});
        audit::record(&mut transaction, Entry::new(caller, MADE).about(account).from(&device).with(detail), now).await?;
        // A key outlives the session that made it: its owner is told.
        let event = mail::now_and_then("made", account, now);
        mail::send(&mut transaction, &To::person(&user.email, &user.name), &Letter::KeyMade, &event, now).await?;
        transaction.commit().await?;
        Ok::<_, Error>((key, listed))
    };
    let (key, listed) = app.writes.finish(write).await?;
    let made = MadeKey { key: key.text().expose_secret().to_owned(), view: KeyView::from(listed) };
    let mut response = (StatusCode::CREATED, Envelope::of(made)).into_response();
    // No cache keeps a key, and none is compressed beside the caller's own words.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(compress::Never);
    Ok(response)
}

/// The id of a key, in a path.
#[derive(Debug, Clone, Copy)]
struct KeyId(Uuid);

impl PathId for KeyId {
    const INVALID: &'static str = "Invalid key ID format";
    fn parse(text: &str) -> Option<Self> {
        parse_uuid_v4(text).map(Self)
    }
}

/// Revokes one of the caller's API keys.
///
/// It is refused by every instance from now on.
#[utoipa::path(delete, path = "/api/auth/keys/{id}", tag = "sign-in", operation_id = "removeKey", params(("id" = Uuid, Path, description = "The key")), security(("bearer" = [])),
    responses((status = 204, description = "The key is revoked"), (status = 404, description = "key_not_found")))]
async fn remove(State(app): State<App>, caller: Person, device: Device, Path(KeyId(id)): Path<KeyId>) -> Result<StatusCode> {
    let (database, auth, now, deadline, account) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline(), caller.account);
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        // Somebody else's key does not exist here.
        if !sql::revoke(&mut transaction, account, id, now).await? {
            return Err(Error::new(&codes::KEY_NOT_FOUND));
        }
        audit::record(&mut transaction, Entry::new(caller, REVOKED).about(account).from(&device).with(json!({"revoked": id})), now).await?;
        auth.commit(transaction, Change::Session { account, session: id }).await
    };
    app.writes.finish(write).await?;
    Ok(StatusCode::NO_CONTENT)
}
