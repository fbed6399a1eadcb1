//! The second factor: an authenticator beside the password, and ten recovery codes for the day on which it is lost. Routes, wire types and handlers.
//!
//! Nothing about it changes without the password and, once it is enabled, a code of it; an administrator can remove another's. How a code is taken stands in
//! `second_factor/check.rs`, the SQL in `second_factor/sql.rs`. A sign-in asks [`SecondFactors::take`].

mod check;
mod sql;

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use mainstay::auth::{AdminPerson, Asker, Change, Person, RecoveryCode};
use mainstay::context;
use mainstay::error::{Error, Result};
use mainstay::extract::{Json, Path};
use mainstay::stack::compress;
use mainstay::store::Transaction;
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::{App, Envelope};
use crate::audit::{self, Action, Entry};
use crate::codes;
use crate::mail::{self, Letter, To};
use crate::sessions::{self, Because, Device};
use crate::users::{self, User, UserId};

pub use check::SecondFactors;

/// An authenticator was confirmed.
const ENABLED: Action = Action::new("second_factor.enabled");
/// The second factor was removed.
const REMOVED: Action = Action::new("second_factor.removed");
/// Somebody who had the password tried to sign in with a wrong code.
pub const DENIED: Action = Action::new("second_factor.denied");
/// The recovery codes were replaced.
const NEW_CODES: Action = Action::new("second_factor.new_codes");

/// Longer than it takes to find the telephone; a secret that was on a screen yesterday enables nothing.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show, create, remove))
        .routes(routes!(confirm))
        .routes(routes!(create_recovery_codes))
        .routes(routes!(remove_of_user))
}

/// The second factor of the caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecondFactor {
    /// Does a sign-in ask for a code?
    #[schema(example = true)]
    enabled: bool,
    /// Since when.
    #[schema(required, value_type = Option<String>, format = DateTime, example = "2026-01-01T00:00:00Z")]
    enabled_at: Option<Timestamp>,
    /// Recovery codes that were not used.
    #[schema(example = 10, minimum = 0, maximum = 10)]
    recovery_codes_left: i64,
}

/// Shows whether the caller has a second factor.
///
/// And how many recovery codes are left of ten.
#[utoipa::path(get, path = "/api/auth/totp", tag = "sign-in", operation_id = "showSecondFactor", security(("bearer" = [])),
    responses((status = 200, description = "The second factor", body = Envelope<SecondFactor>)))]
async fn show(State(app): State<App>, caller: Person) -> Result<axum::Json<Envelope<SecondFactor>>> {
    let mut connection = app.read().await?;
    let enabled_at = sql::find(&mut connection, caller.account).await?.and_then(|kept| kept.enabled_at);
    let recovery_codes_left = sql::recovery_codes_left(&mut connection, caller.account).await?;
    Ok(Envelope::of(SecondFactor { enabled: enabled_at.is_some(), enabled_at, recovery_codes_left }))
}

/// The password of the caller, again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"password": "a long sentence is best"}))]
struct Prove {
    /// The password.
    #[schema(value_type = String, format = Password, example = "a long sentence is best", max_length = 128, pattern = r"^[^\u0000]*$")]
    password: SecretString,
}

/// A secret for an authenticator.
#[derive(Debug, Serialize, ToSchema)]
pub struct Enrolment {
    /// In Base32, for who types it.
    #[schema(min_length = 32, max_length = 32, pattern = "^[A-Z2-7]{32}$", example = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")]
    secret: String,
    /// For a QR code.
    #[schema(
        max_length = 4096,
        pattern = "^otpauth://totp/",
        example = "otpauth://totp/Shop:ada%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Shop&algorithm=SHA1&digits=6&period=30"
    )]
    uri: String,
}

/// Begins a second factor.
///
/// Gives a secret for an authenticator app (TOTP, RFC 6238). Nobody is asked for a code before `POST /api/auth/totp/confirm` has shown, within 15 minutes,
/// that the app knows it.
#[utoipa::path(post, path = "/api/auth/totp", tag = "sign-in", operation_id = "createSecondFactor", request_body = Prove, security(("bearer" = [])),
    responses((status = 200, description = "The secret, shown once", body = Envelope<Enrolment>), (status = 403, description = "wrong_password"), (status = 404, description = "user_not_found"),
        (status = 409, description = "second_factor_enabled"), (status = 429, description = "too_many_attempts"), (status = 503, description = "second_factor_unavailable")))]
async fn create(State(app): State<App>, caller: Person, Json(input): Json<Prove>) -> Result<Response> {
    let account = caller.account;
    app.second_factors.counted(account, prove(&app, account, input.password)).await?;
    let (totp, sealed) = app.second_factors.make(account)?;
    let (database, now, deadline) = (app.database.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        let user = locked(&mut transaction, account).await?;
        if !sql::begin(&mut transaction, account, &sealed, now).await? {
            return Err(Error::new(&codes::SECOND_FACTOR_ENABLED));
        }
        transaction.commit().await?;
        Ok::<_, Error>(user)
    };
    let user = app.writes.finish(write).await?;
    let uri = totp.uri(&mail::service_name(&app.settings.mail_from), &user.email);
    Ok(shown_once(Enrolment { secret: totp.base32().expose_secret().to_owned(), uri: uri.expose_secret().to_owned() }))
}

/// A code of the authenticator.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"code": "287082"}))]
struct Confirm {
    /// Six digits.
    #[schema(value_type = String, example = "287082", max_length = 64, pattern = r"^[^\u0000]*$")]
    code: SecretString,
}

/// Recovery codes.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecoveryCodes {
    /// Ten, each good for one sign-in in the place of a code of the authenticator.
    #[schema(min_items = 10, max_items = 10, example = json!(["7k2m-9xqd-w0re-4c8t"]))]
    recovery_codes: Vec<String>,
}

impl RecoveryCodes {
    fn of(codes: &[RecoveryCode]) -> Self {
        Self { recovery_codes: codes.iter().map(|code| code.text().expose_secret().to_owned()).collect() }
    }
}

/// Enables the second factor.
///
/// With a code of the authenticator. From now on a sign-in asks for one. The other sessions of the account end: they were opened without.
#[utoipa::path(post, path = "/api/auth/totp/confirm", tag = "sign-in", operation_id = "confirmSecondFactor", request_body = Confirm, security(("bearer" = [])),
    responses((status = 200, description = "Recovery codes, shown once", body = Envelope<RecoveryCodes>), (status = 401, description = "invalid_second_factor"), (status = 404, description = "user_not_found, second_factor_not_found"),
        (status = 409, description = "second_factor_enabled"), (status = 429, description = "too_many_attempts"), (status = 503, description = "second_factor_unavailable")))]
async fn confirm(State(app): State<App>, caller: Person, device: Device, Json(input): Json<Confirm>) -> Result<Response> {
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    let (factors, Person { account, session, .. }) = (app.second_factors.clone(), caller);
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        let user = locked(&mut transaction, account).await?;
        let oldest = now.checked_sub(CONFIRMED_WITHIN).unwrap_or(Timestamp::MIN);
        let kept = sql::find(&mut transaction, account).await?.ok_or_else(not_found)?;
        if kept.enabled_at.is_some() {
            return Err(Error::new(&codes::SECOND_FACTOR_ENABLED));
        }
        if kept.created_at < oldest {
            return Err(not_found());
        }
        let step = factors.open(account, &kept.sealed)?.check(input.code.expose_secret(), now, None);
        let step = step.ok_or_else(|| Error::new(&codes::INVALID_SECOND_FACTOR))?;
        if !sql::enable(&mut transaction, account, step, now).await? {
            return Err(Error::new(&codes::SECOND_FACTOR_ENABLED));
        }
        let made = RecoveryCode::make_all(&SystemRandom::new())?;
        sql::replace_recovery_codes(&mut transaction, account, &made, now).await?;
        let ended = sessions::sql::revoke_others(&mut transaction, account, session, Because::SecondFactorAdded, now).await?;
        changed(&mut transaction, &user, Entry::new(caller, ENABLED).from(&device), now).await?;
        match ended {
            0 => transaction.commit().await?,
            _ => auth.commit(transaction, Change::Account(account)).await?,
        }
        Ok::<_, Error>(made)
    };
    let made = app.second_factors.counted(account, app.writes.finish(write)).await?;
    Ok(shown_once(RecoveryCodes::of(&made)))
}

/// The password of the caller, and a code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"password": "a long sentence is best", "code": "287082"}))]
struct ProveBoth {
    /// The password.
    #[schema(value_type = String, format = Password, example = "a long sentence is best", max_length = 128, pattern = r"^[^\u0000]*$")]
    password: SecretString,
    /// Of the authenticator, or a recovery code.
    #[schema(value_type = String, example = "287082", max_length = 64, pattern = r"^[^\u0000]*$")]
    code: SecretString,
}

/// Removes the second factor.
///
/// With the password and a code. A sign-in asks for the password alone again.
#[utoipa::path(delete, path = "/api/auth/totp", tag = "sign-in", operation_id = "removeSecondFactor", request_body = ProveBoth, security(("bearer" = [])),
    responses((status = 204, description = "It is removed"), (status = 401, description = "invalid_second_factor"), (status = 403, description = "wrong_password"), (status = 404, description = "user_not_found, second_factor_not_found"),
        (status = 429, description = "too_many_attempts"), (status = 503, description = "second_factor_unavailable")))]
async fn remove(State(app): State<App>, caller: Person, device: Device, Json(input): Json<ProveBoth>) -> Result<StatusCode> {
    proven(&app, caller.account, input, None, Entry::new(caller, REMOVED).from(&device)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes new recovery codes.
///
/// With the password and a code. Those of before are good for nothing any more.
#[utoipa::path(post, path = "/api/auth/totp/recovery-codes", tag = "sign-in", operation_id = "createRecoveryCodes", request_body = ProveBoth, security(("bearer" = [])),
    responses((status = 200, description = "Recovery codes, shown once", body = Envelope<RecoveryCodes>), (status = 401, description = "invalid_second_factor"), (status = 403, description = "wrong_password"), (status = 404, description = "user_not_found, second_factor_not_found"),
        (status = 429, description = "too_many_attempts"), (status = 503, description = "second_factor_unavailable")))]
async fn create_recovery_codes(State(app): State<App>, caller: Person, device: Device, Json(input): Json<ProveBoth>) -> Result<Response> {
    let made = RecoveryCode::make_all(&SystemRandom::new())?;
    let shown = RecoveryCodes::of(&made);
    proven(&app, caller.account, input, Some(made), Entry::new(caller, NEW_CODES).from(&device)).await?;
    Ok(shown_once(shown))
}

/// Removes the second factor of an account.
///
/// For administrators in person: when its owner has lost the authenticator and all recovery codes. Ask for more than a mail before you do.
#[utoipa::path(delete, path = "/api/users/{id}/totp", tag = "users", operation_id = "removeUserSecondFactor", params(("id" = Uuid, Path, description = "The account")), security(("bearer" = [])),
    responses((status = 204, description = "It is removed"), (status = 403, description = "forbidden"), (status = 404, description = "user_not_found, second_factor_not_found")))]
async fn remove_of_user(
    State(app): State<App>,
    AdminPerson(caller): AdminPerson,
    device: Device,
    Path(UserId(id)): Path<UserId>,
) -> Result<StatusCode> {
    let (database, now, deadline) = (app.database.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        let user = locked(&mut transaction, id).await?;
        if !sql::delete(&mut transaction, id).await? {
            return Err(not_found());
        }
        changed(&mut transaction, &user, Entry::new(caller, REMOVED).from(&device), now).await?;
        Ok(transaction.commit().await?)
    };
    app.writes.finish(write).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes an enabled second factor for whoever has the password and a code of it: new recovery codes, or without them its end.
async fn proven(app: &App, account: Uuid, given: ProveBoth, replaced_by: Option<Vec<RecoveryCode>>, entry: Entry) -> Result<()> {
    let (database, now, deadline, factors) = (app.database.clone(), app.clock().now(), app.deadline(), app.second_factors.clone());
    let ProveBoth { password, code } = given;
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        let user = locked(&mut transaction, account).await?;
        if !factors.take(&mut transaction, account, Some(&code), now).await? {
            return Err(not_found());
        }
        match replaced_by {
            Some(made) => {
                sql::replace_recovery_codes(&mut transaction, account, &made, now).await?;
            }
            None => {
                sql::delete(&mut transaction, account).await?;
            }
        }
        changed(&mut transaction, &user, entry, now).await?;
        Ok(transaction.commit().await?)
    };
    let tried = async {
        prove(app, account, password).await?;
        app.writes.finish(write).await
    };
    app.second_factors.counted(account, tried).await
}

/// Is it the account's password? Whoever finds an open session does not change what its owner signs in with.
async fn prove(app: &App, account: Uuid, password: SecretString) -> Result<()> {
    let hash = sql::password_hash(&mut *app.read().await?, account).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))?;
    let verified = app.passwords.verify(password, Some(hash), Asker::Known(context::client())).await?;
    if verified.right { Ok(()) } else { Err(Error::new(&codes::WRONG_PASSWORD)) }
}

async fn locked(transaction: &mut Transaction, account: Uuid) -> Result<User> {
    users::sql::lock(transaction, account).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))
}

fn not_found() -> Error {
    Error::new(&codes::SECOND_FACTOR_NOT_FOUND)
}

/// What every change brings with it, in its transaction: an entry in the audit trail, and a letter to the owner.
async fn changed(transaction: &mut Transaction, user: &User, entry: Entry, now: Timestamp) -> Result<()> {
    let event = mail::now_and_then(entry.action_name(), user.id, now);
    audit::record(transaction, entry.about(user.id), now).await?;
    mail::send(transaction, &To::person(&user.email, &user.name), &Letter::SecondFactorChanged, &event, now).await?;
    Ok(())
}

/// An answer with a secret: no cache keeps it, and it is not compressed.
fn shown_once<T: Serialize>(data: T) -> Response {
    let mut response = Envelope::of(data).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(compress::Never);
    response
}
