//! Opening an account and signing in.

use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use mainstay::auth::Role;
use mainstay::error::{Error, Result};
use mainstay::extract::Json;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{Address, App, Envelope};
use crate::audit::{Actor, Entry, actions};
use crate::errands::{self, Accepted};
use crate::sessions::{self, Device, Signed, Typed};
use crate::settings::Registration;
use crate::users::{self, NewAccount, User};
use crate::{codes, credentials, second_factor};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(register)).routes(routes!(login))
}

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "name": "Ada Lovelace", "password": "a long sentence is best"}))]
struct Register {
    /// The address.
    #[schema(schema_with = users::email_schema)]
    email: String,
    /// The person's name: any text that shows, without control characters.
    #[schema(
        example = "Ada Lovelace",
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
    )]
    name: String,
    /// 8 to 128 characters; not a common password, and not made of the name or the address.
    #[schema(value_type = String, format = Password, example = "a long sentence is best", min_length = 8, max_length = 128, pattern = r"^(?!([\s\S])\1*$)[^\u0000]*$")]
    password: SecretString,
}

/// Opens an account.
///
/// Its role is `user`. For everybody, unless the service is run with `REGISTRATION=closed`. The account and its profile come into being together; letters' case does not
/// make two addresses different. With `REGISTRATION=open` the account may sign in at once, and a letter asks its owner to prove the address. With `REGISTRATION=verified` the
/// answer is `202` whatever becomes of it, and everything else goes by mail: a new address gets a link, and the account comes into being when it is followed; the owner of an
/// account is told that there is one.
#[utoipa::path(post, path = "/api/auth/register", tag = "sign-in", operation_id = "register", request_body = Register, security(()),
    responses((status = 201, description = "The account", body = Envelope<User>), (status = 202, description = "Whatever becomes of it, with REGISTRATION=verified", body = Envelope<Accepted>), (status = 403, description = "registration_closed"), (status = 409, description = "email_taken")))]
async fn register(State(app): State<App>, device: Device, Json(input): Json<Register>) -> Result<Response> {
    if app.settings.registration == Registration::Closed {
        return Err(Error::new(&codes::REGISTRATION_CLOSED));
    }
    let account = NewAccount::parse(&input.email, &input.name, input.password)?;
    if app.settings.registration == Registration::Verified {
        errands::register(&app, account, device).await?;
        return Ok((StatusCode::ACCEPTED, Envelope::of(Accepted::said())).into_response());
    }
    let cause = Entry::new(Actor::Stranger, actions::USER_REGISTERED).from(&device);
    let user = app.open_account(account, Role::User, Address::Asked, cause).await?;
    Ok((StatusCode::CREATED, Envelope::of(user)).into_response())
}

/// Who signs in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "password": "a long sentence is best"}))]
struct Login {
    /// The address.
    #[schema(example = "ada@example.com", max_length = 254, pattern = r"^[^\u0000]*$")]
    email: String,
    /// The password.
    #[schema(value_type = String, format = Password, example = "a long sentence is best", max_length = 128, pattern = r"^[^\u0000]*$")]
    password: SecretString,
    /// If the account has a second factor: six digits of the authenticator, or a recovery code.
    #[schema(value_type = Option<String>, example = "287082", max_length = 64, pattern = r"^[^\u0000]*$")]
    code: Option<SecretString>,
}

/// Signs in.
///
/// An unknown account and a wrong password get the same answer after the same time. With the right password of an account that has a second factor the answer
/// is `second_factor_required`, and the sign-in is sent again with a `code`. Each sign-in opens a session of its own. Wrong passwords slow down those that
/// follow, per account and per address; nobody can lock out an owner who signed in from his address before.
#[utoipa::path(post, path = "/api/auth/login", tag = "sign-in", operation_id = "login", request_body = Login, security(()),
    responses((status = 200, description = "An access token and a refresh token", body = Envelope<Signed>), (status = 401, description = "invalid_credentials, second_factor_required, invalid_second_factor"),
        (status = 429, description = "too_many_attempts"), (status = 503, description = "second_factor_unavailable")))]
async fn login(State(app): State<App>, device: Device, Json(input): Json<Login>) -> Result<Response> {
    let refused = || Error::new(&codes::INVALID_CREDENTIALS);
    let (proven, pass) = credentials::prove(&app, &input.email, input.password, &device).await?.ok_or_else(refused)?;
    // That a code is missing tells only whoever has the password already, and no more than a sign-in without a second factor would tell: that it is right.
    let counts = input.code.is_some();
    let typed = Typed { hash: proven.password_hash, code: input.code };
    let opening = sessions::open(&app, proven.account, Some(typed), device.clone());
    let opened = if counts { app.second_factors.counted(proven.account, opening).await } else { opening.await };
    match &opened {
        Ok(_) => pass.succeeded(Instant::now()),
        Err(error) => {
            pass.unused();
            // What was rolled back has told nothing, and whoever guesses codes has the password.
            if error.code() == &codes::INVALID_SECOND_FACTOR {
                credentials::note_denied(&app, proven.account, second_factor::DENIED, &device);
            }
        }
    }
    let grant = opened?;
    sessions::signed(&app, &grant).await
}
