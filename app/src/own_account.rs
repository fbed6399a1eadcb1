//! What somebody who is signed in changes of what he signs in with: the password, and the address, which both mailboxes confirm.

use axum::extract::State;
use http::StatusCode;
use mainstay::auth::{Asker, Change, Person};
use mainstay::context;
use mainstay::error::{Error, Fields, Flaw, Result, codes as stack_codes};
use mainstay::extract::Json;
use mainstay::store::Session;
use ring::rand::SystemRandom;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, Instant};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::{App, Envelope};
use crate::audit::{self, Actor, Entry, actions};
use crate::codes;
use crate::credentials::{self, Proven};
use crate::errands::{self, Accepted};
use crate::links::{Link, check_password};
use crate::mail::{self, Letter, To};
use crate::one_time::{self, Purpose};
use crate::sessions::{self, Because, Device};
use crate::users::{self, Email, User};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(change_password)).routes(routes!(change_email)).routes(routes!(confirm_email)).routes(routes!(refuse_email))
}

/// A new password, by whoever knows the old one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"current_password": "a long sentence is best", "new_password": "a longer sentence is better"}))]
struct ChangePassword {
    /// The password that is to go.
    #[schema(value_type = String, format = Password, example = "a long sentence is best", max_length = 128, pattern = r"^[^\u0000]*$")]
    current_password: SecretString,
    /// 8 to 128 characters; not a common password, and not made of the name or the address.
    #[schema(value_type = String, format = Password, example = "a longer sentence is better", min_length = 8, max_length = 128, pattern = r"^(?!([\s\S])\1*$)[^\u0000]*$")]
    new_password: SecretString,
}

/// Changes the caller's password.
///
/// All other sessions of the account end, this one stays. The owner is told by mail.
#[utoipa::path(post, path = "/api/auth/change-password", tag = "sign-in", operation_id = "changePassword", request_body = ChangePassword, security(("bearer" = [])),
    responses((status = 204, description = "The password is changed"), (status = 403, description = "wrong_password"), (status = 404, description = "user_not_found")))]
async fn change_password(State(app): State<App>, caller: Person, device: Device, Json(input): Json<ChangePassword>) -> Result<StatusCode> {
    let user = own(&app, caller).await?;
    check_password("new_password", &input.new_password, &user)?;
    let proven = prove(&app, &user, input.current_password, &device).await?;
    let password_hash = app.passwords.hash(input.new_password, Asker::Known(context::client())).await?;
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        lock_proven(&mut transaction, &proven).await?;
        users::sql::set_password(&mut transaction, user.id, &password_hash, now).await?;
        one_time::forget(&mut transaction, user.id).await?;
        let ended = sessions::sql::revoke_others(&mut transaction, user.id, caller.session, Because::PasswordChanged, now).await?;
        let entry = Entry::new(caller, actions::PASSWORD_CHANGED).about(user.id).from(&device).with(json!({"sessions": ended}));
        audit::record(&mut transaction, entry, now).await?;
        let to = To::person(&user.email, &user.name);
        mail::send(&mut transaction, &to, &Letter::PasswordChanged, &Uuid::new_v4().to_string(), now).await?;
        auth.commit(transaction, Change::Account(user.id)).await
    };
    app.writes.finish(write).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn own(app: &App, caller: Person) -> Result<User> {
    users::sql::find(&mut *app.read().await?, caller.account).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))
}

async fn prove(app: &App, user: &User, password: SecretString, device: &Device) -> Result<Proven> {
    let (proven, pass) = credentials::prove(app, &user.email, password, device).await?.ok_or_else(|| Error::new(&codes::WRONG_PASSWORD))?;
    // Whoever has a session has given everything else before.
    pass.succeeded(Instant::now());
    Ok(proven)
}

/// Locks an account whose password was given, if that is still its password.
async fn lock_proven(session: &mut Session, proven: &Proven) -> Result<User> {
    let user = users::sql::lock(session, proven.account).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))?;
    if users::sql::password_hash(session, proven.account).await?.as_ref() != Some(&proven.password_hash) {
        let overtaken = Error::new(&stack_codes::TRANSACTION_CONFLICT).caused_by("the password was changed meanwhile");
        return Err(overtaken.retry_after(Duration::from_secs(1)));
    }
    Ok(user)
}

/// A new address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.org", "password": "a long sentence is best"}))]
struct ChangeEmail {
    /// The address that the account is to have.
    #[schema(schema_with = users::email_schema)]
    email: String,
    /// The account's password.
    #[schema(value_type = String, format = Password, example = "a long sentence is best", max_length = 128, pattern = r"^[^\u0000]*$")]
    password: SecretString,
}

impl ChangeEmail {
    fn parse(&self, user: &User) -> Result<Email> {
        let mut fields = Fields::new();
        let other =
            |email: Email| if email.given() == user.email { Err(Flaw::new("invalid_value", "is the account's address already")) } else { Ok(email) };
        let email = fields.take("email", Email::parse(&self.email).and_then(other));
        fields.finish()?;
        Ok(email.unwrap_or_else(|| unreachable!("a field that was not taken is a flaw that finish reports")))
    }
}

/// Asks for another address.
///
/// Two letters go out, to the new address and to the present one, and nothing changes before both have confirmed within a day. Either can refuse. Whether the
/// new address belongs to an account already is told to nobody who does not read its mailbox.
#[utoipa::path(post, path = "/api/auth/change-email", tag = "sign-in", operation_id = "changeEmail", request_body = ChangeEmail, security(("bearer" = [])),
    responses((status = 202, description = "Both mailboxes are asked", body = Envelope<Accepted>), (status = 403, description = "wrong_password"), (status = 404, description = "user_not_found")))]
async fn change_email(
    State(app): State<App>,
    caller: Person,
    device: Device,
    Json(input): Json<ChangeEmail>,
) -> Result<(StatusCode, axum::Json<Envelope<Accepted>>)> {
    let user = own(&app, caller).await?;
    let email = input.parse(&user)?;
    let proven = prove(&app, &user, input.password, &device).await?;
    if errands::may_write(&app, &email).await {
        let (database, now, deadline) = (app.database.clone(), app.clock().now(), app.deadline());
        let write = async move {
            let mut transaction = database.begin(deadline).await?;
            let user = lock_proven(&mut transaction, &proven).await?;
            ask_both(&mut transaction, &user, &email, now).await?;
            audit::record(&mut transaction, Entry::new(caller, actions::EMAIL_CHANGE_REQUESTED).about(user.id).from(&device), now).await?;
            Ok::<_, Error>(transaction.commit().await?)
        };
        app.writes.finish(write).await?;
    }
    Ok((StatusCode::ACCEPTED, Envelope::of(Accepted::said())))
}

/// Writes to both mailboxes. Of an account one change waits at most: this one takes the place of an older one.
async fn ask_both(session: &mut Session, user: &User, email: &Email, now: jiff::Timestamp) -> Result<()> {
    let (random, event) = (SystemRandom::new(), Uuid::new_v4().to_string());
    let token = one_time::issue(session, user.id, Purpose::ConfirmNewAddress, Some(email.given()), now, &random).await?;
    mail::send(session, &To::address(email.given()), &Letter::ConfirmNewAddress { token }, &event, now).await?;
    let token = one_time::issue(session, user.id, Purpose::ConfirmOldAddress, Some(email.given()), now, &random).await?;
    mail::send(session, &To::person(&user.email, &user.name), &Letter::AddressChangeRequested { token }, &event, now).await?;
    Ok(())
}

/// What became of a confirmation.
#[derive(Debug, Serialize, ToSchema)]
struct Confirmation {
    /// Has the account the new address now? Else the other mailbox has not confirmed yet.
    #[schema(example = true)]
    changed: bool,
}

const BOTH: [Purpose; 2] = [Purpose::ConfirmOldAddress, Purpose::ConfirmNewAddress];

/// Confirms a change of the address.
///
/// With the token of the link, in any of the two letters. With the second confirmation the address changes, and the old one is told.
#[utoipa::path(post, path = "/api/auth/confirm-email", tag = "sign-in", operation_id = "confirmEmail", request_body = Link, security(()),
    responses((status = 200, description = "It is confirmed", body = Envelope<Confirmation>), (status = 404, description = "invalid_link"), (status = 409, description = "email_taken")))]
async fn confirm_email(State(app): State<App>, device: Device, Json(input): Json<Link>) -> Result<axum::Json<Envelope<Confirmation>>> {
    let token = one_time::parse(&input.token)?;
    let (database, now, deadline) = (app.database.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        let found = one_time::find(&mut transaction, &token, &BOTH, now).await?;
        let user = users::sql::lock(&mut transaction, found.account).await?.ok_or_else(|| one_time::invalid("the account is gone"))?;
        let changed = one_time::confirm(&mut transaction, &token, &found, now).await?;
        let entry = |action| Entry::new(Actor::Stranger, action).about(user.id).from(&device);
        audit::record(&mut transaction, entry(actions::EMAIL_CHANGE_CONFIRMED).with(json!({"by": found.purpose.side()})), now).await?;
        if changed {
            let email =
                found.new_email.as_deref().and_then(|email| Email::parse(email).ok()).ok_or_else(|| one_time::invalid("its address is none"))?;
            users::sql::set_email(&mut transaction, user.id, &email, now).await?;
            // A link to a new password that lies in the old mailbox as well.
            one_time::forget(&mut transaction, user.id).await?;
            audit::record(&mut transaction, entry(actions::EMAIL_CHANGED), now).await?;
            mail::send(&mut transaction, &To::person(&user.email, &user.name), &Letter::AddressChanged, &token.stored(), now).await?;
        }
        transaction.commit().await?;
        Ok::<_, Error>(changed)
    };
    let changed = app.writes.finish(write).await?;
    Ok(Envelope::of(Confirmation { changed }))
}

/// Refuses a change of the address.
///
/// With the token of the link, in any of the two letters, by a side that has not confirmed. Neither is good for anything afterwards.
#[utoipa::path(post, path = "/api/auth/refuse-email", tag = "sign-in", operation_id = "refuseEmail", request_body = Link, security(()),
    responses((status = 204, description = "The address stays"), (status = 404, description = "invalid_link")))]
async fn refuse_email(State(app): State<App>, device: Device, Json(input): Json<Link>) -> Result<StatusCode> {
    let token = one_time::parse(&input.token)?;
    let (database, now, deadline) = (app.database.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        let found = one_time::find(&mut transaction, &token, &BOTH, now).await?;
        users::sql::lock(&mut transaction, found.account).await?;
        one_time::take(&mut transaction, &token, now).await?;
        one_time::forget_change(&mut transaction, found.account).await?;
        let entry = Entry::new(Actor::Stranger, actions::EMAIL_CHANGE_REFUSED).about(found.account).from(&device);
        audit::record(&mut transaction, entry.with(json!({"by": found.purpose.side()})), now).await?;
        Ok::<_, Error>(transaction.commit().await?)
    };
    app.writes.finish(write).await?;
    Ok(StatusCode::NO_CONTENT)
}
