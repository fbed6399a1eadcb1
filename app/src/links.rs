//! What strangers do with their mailbox: ask for a letter, and come back with the token of its link.

use std::time::Instant;

use axum::extract::State;
use http::StatusCode;
use mainstay::auth::{AccountKey, Asker, Change, PasswordContext, Passwords, Role, Secret};
use mainstay::context;
use mainstay::error::{Error, Fields, Result};
use mainstay::extract::Json;
use mainstay::store::Session;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::api_keys;
use crate::app::{App, Envelope};
use crate::audit::{self, Actor, Entry, actions};
use crate::errands::{self, Accepted};
use crate::mail::{self, Letter, To};
use crate::one_time::{self, Purpose, registrations};
use crate::sessions::{self, Because, Device};
use crate::users::{self, Email, User};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(resend_verification))
        .routes(routes!(verify_email))
        .routes(routes!(forgot_password))
        .routes(routes!(reset_password))
}

/// Whose mailbox.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com"}))]
struct Mailbox {
    /// The address.
    #[schema(schema_with = users::email_schema)]
    email: String,
}

impl Mailbox {
    fn parse(&self) -> Result<Email> {
        let mut fields = Fields::new();
        let email = fields.take("email", Email::parse(&self.email));
        fields.finish()?;
        Ok(email.unwrap_or_else(|| unreachable!("a field that was not taken is a flaw that finish reports")))
    }
}

/// The token of a link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"token": "mot_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q"}))]
pub struct Link {
    /// What stood behind `#token=`.
    #[schema(value_type = String, max_length = 47, pattern = r"^[^\u0000]*$", example = "mot_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q")]
    pub token: SecretString,
}

/// Asks for another link to prove an address.
///
/// `202` whatever becomes of it: for an account or a registration that is not proven yet a letter goes out, else nothing. One mailbox gets five such letters an
/// hour at most. An older link is good for nothing any more.
#[utoipa::path(post, path = "/api/auth/resend-verification", tag = "sign-in", operation_id = "resendVerification", request_body = Mailbox, security(()),
    responses((status = 202, description = "Whatever becomes of it", body = Envelope<Accepted>)))]
async fn resend_verification(
    State(app): State<App>,
    device: Device,
    Json(input): Json<Mailbox>,
) -> Result<(StatusCode, axum::Json<Envelope<Accepted>>)> {
    errands::verify(&app, &input.parse()?, device).await?;
    Ok((StatusCode::ACCEPTED, Envelope::of(Accepted::said())))
}

/// Proves an address.
///
/// With the token of the link of `VerifyAddress`. With `REGISTRATION=verified` the account comes into being by it.
#[utoipa::path(post, path = "/api/auth/verify-email", tag = "sign-in", operation_id = "verifyEmail", request_body = Link, security(()),
    responses((status = 204, description = "The address is proven"), (status = 404, description = "invalid_link"), (status = 409, description = "email_taken")))]
async fn verify_email(State(app): State<App>, device: Device, Json(input): Json<Link>) -> Result<StatusCode> {
    let token = one_time::parse(&input.token)?;
    let (database, now, deadline) = (app.database.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        match registrations::take(&mut transaction, &token, now).await? {
            Some(registration) => open_registered(&mut transaction, registration, &device, now).await?,
            None => verify(&mut transaction, &token, &device, now).await?,
        }
        Ok::<_, Error>(transaction.commit().await?)
    };
    app.writes.finish(write).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes an account of a registration.
async fn open_registered(session: &mut Session, given: registrations::Registration, device: &Device, now: jiff::Timestamp) -> Result<()> {
    let email = Email::parse(&given.email).map_err(|_| one_time::invalid("its address is none"))?;
    let user = User {
        id: Uuid::new_v4(),
        email: given.email,
        name: given.name,
        role: Role::User,
        verified: true,
        disabled: false,
        created_at: now,
        updated_at: now,
    };
    users::sql::insert(session, &user, &email, &given.password_hash).await?;
    let entry = Entry::new(Actor::Stranger, actions::USER_REGISTERED).about(user.id).from(device);
    audit::record(session, entry.with(json!({"role": user.role.as_str()})), now).await
}

/// Notes that the address of an account is proven.
async fn verify(session: &mut Session, token: &Secret, device: &Device, now: jiff::Timestamp) -> Result<()> {
    let found = one_time::find(session, token, &[Purpose::VerifyAddress], now).await?;
    users::sql::lock(session, found.account).await?;
    one_time::take(session, token, now).await?;
    users::sql::verify(session, found.account, now).await?;
    audit::record(session, Entry::new(Actor::Stranger, actions::USER_VERIFIED).about(found.account).from(device), now).await
}

/// Asks for a way to a new password.
///
/// `202` whatever becomes of it, after the same time: an account gets a letter, else nothing happens. One mailbox gets five such letters an hour at most. The
/// link is good for an hour, and an older one for nothing any more.
#[utoipa::path(post, path = "/api/auth/forgot-password", tag = "sign-in", operation_id = "forgotPassword", request_body = Mailbox, security(()),
    responses((status = 202, description = "Whatever becomes of it", body = Envelope<Accepted>)))]
async fn forgot_password(State(app): State<App>, device: Device, Json(input): Json<Mailbox>) -> Result<(StatusCode, axum::Json<Envelope<Accepted>>)> {
    errands::reset(&app, &input.parse()?, device).await?;
    Ok((StatusCode::ACCEPTED, Envelope::of(Accepted::said())))
}

/// A new password, with the token of a link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"token": "mot_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q", "password": "a longer sentence is better"}))]
struct ResetPassword {
    /// What stood behind `#token=`.
    #[schema(value_type = String, max_length = 47, pattern = r"^[^\u0000]*$", example = "mot_c29tZWJvZHkga2VlcCB0aGlzIHNhZmUgYXQgYWxsIGNvc3Q")]
    token: SecretString,
    /// 8 to 128 characters; not a common password, and not made of the name or the address.
    #[schema(value_type = String, format = Password, example = "a longer sentence is better", min_length = 8, max_length = 128, pattern = r"^(?!([\s\S])\1*$)[^\u0000]*$")]
    password: SecretString,
}

/// Sets a new password.
///
/// With the token of the link. All sessions of the account end, its owner is told by mail, and the address counts as proven.
#[utoipa::path(post, path = "/api/auth/reset-password", tag = "sign-in", operation_id = "resetPassword", request_body = ResetPassword, security(()),
    responses((status = 204, description = "The password is set"), (status = 404, description = "invalid_link")))]
async fn reset_password(State(app): State<App>, device: Device, Json(input): Json<ResetPassword>) -> Result<StatusCode> {
    let token = one_time::parse(&input.token)?;
    let user = owner(&app, &token).await?;
    check_password("password", &input.password, &user)?;
    let password_hash = app.passwords.hash(input.password, Asker::Known(context::client())).await?;
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    let (address, account) = (device.address, user.id);
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        let user = users::sql::lock(&mut transaction, account).await?.filter(|user| !user.disabled).ok_or_else(|| one_time::invalid("no account"))?;
        let event = token.stored();
        one_time::take(&mut transaction, &token, now).await?;
        users::sql::verify(&mut transaction, account, now).await?;
        users::sql::set_password(&mut transaction, account, &password_hash, now).await?;
        one_time::forget(&mut transaction, account).await?;
        // Whoever takes an account back by mail wants nobody else in it: its keys end as well.
        let keys = api_keys::sql::revoke_all(&mut transaction, account, now).await?;
        let ended = sessions::sql::revoke_all(&mut transaction, account, 0, Because::PasswordChanged, now).await?;
        let entry = Entry::new(Actor::Stranger, actions::PASSWORD_RESET).about(account).from(&device).with(json!({"sessions": ended, "keys": keys}));
        audit::record(&mut transaction, entry, now).await?;
        mail::send(&mut transaction, &To::person(&user.email, &user.name), &Letter::PasswordChanged, &event, now).await?;
        auth.commit(transaction, Change::Account(account)).await?;
        Ok::<_, Error>(user)
    };
    let user = app.writes.finish(write).await?;
    // Whoever reads the mailbox is the owner: guessing elsewhere does not keep him out, and where a thief was known he is no more.
    if let Ok(email) = Email::parse(&user.email) {
        app.throttle.vouch_alone(AccountKey::of(email.folded()), address.into(), Instant::now());
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The account of a token that may set a password.
async fn owner(app: &App, token: &Secret) -> Result<User> {
    let mut connection = app.read().await?;
    let found = one_time::find(&mut connection, token, &[Purpose::ResetPassword], app.clock().now()).await?;
    let user = users::sql::find(&mut connection, found.account).await?;
    user.ok_or_else(|| one_time::invalid("the account is gone"))
}

/// May this be the new password of an account?
///
/// # Errors
/// [`mainstay::error::codes::VALIDATION_FAILED`], naming `field`.
pub fn check_password(field: &str, password: &SecretString, user: &User) -> Result<()> {
    let mut fields = Fields::new();
    let context = PasswordContext { email: Some(&user.email), name: Some(&user.name), service: users::SERVICE_NAME };
    fields.take(field, Passwords::check(password, &context));
    fields.finish()
}
