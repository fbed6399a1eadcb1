//! Opening an account and signing in.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use mainstay::auth::Role;
use mainstay::context;
use mainstay::error::{Error, Result};
use mainstay::extract::Json;
use mainstay::stack::compress;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::{App, Envelope};
use crate::codes;
use crate::settings::Registration;
use crate::users::{self, Email, NewAccount, User};

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
/// make two addresses different.
#[utoipa::path(post, path = "/api/auth/register", tag = "sign-in", operation_id = "register", request_body = Register, security(()),
    responses((status = 201, description = "The account", body = Envelope<User>), (status = 403, description = "registration_closed"), (status = 409, description = "email_taken")))]
async fn register(State(app): State<App>, Json(input): Json<Register>) -> Result<(StatusCode, axum::Json<Envelope<User>>)> {
    if app.settings.registration == Registration::Closed {
        return Err(Error::new(&codes::REGISTRATION_CLOSED));
    }
    let account = NewAccount::parse(&input.email, &input.name, input.password)?;
    let user = app.open_account(account, Role::User).await?;
    Ok((StatusCode::CREATED, Envelope::of(user)))
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
}

/// What a sign-in gives.
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
    /// Seconds until the token ends.
    #[schema(example = 900, minimum = 1, maximum = 31_536_000)]
    expires_in: u64,
    /// Who signed in.
    user: User,
}

/// Signs in.
///
/// An unknown account and a wrong password get the same answer after the same time.
#[utoipa::path(post, path = "/api/auth/login", tag = "sign-in", operation_id = "login", request_body = Login, security(()),
    responses((status = 200, description = "An access token", body = Envelope<Signed>), (status = 401, description = "invalid_credentials")))]
async fn login(State(app): State<App>, Json(input): Json<Login>) -> Result<Response> {
    let refused = || Error::new(&codes::INVALID_CREDENTIALS);
    // An address that cannot be one, and a password that cannot be one, still cost the time of a real try.
    let email = Email::parse(&input.email).ok();
    let known = match &email {
        Some(email) => users::sql::credentials(&mut *app.read().await?, email).await?,
        None => None,
    };
    let (account, hash) = known.map_or((None, None), |(id, hash, role)| (Some((id, role)), Some(hash)));
    let verified = app.passwords.verify(input.password, hash, context::client()).await?;
    let (id, role) = account.filter(|_| verified.right).ok_or_else(refused)?;
    let user = users::sql::find(&mut *app.read().await?, id).await?.ok_or_else(refused)?;
    let token = app.auth.tokens().issue(id, Uuid::new_v4(), role, app.clock().now());
    let signed = Signed {
        access_token: token.expose_secret().to_owned(),
        token_type: "Bearer".to_owned(),
        expires_in: app.auth.tokens().expiry().as_secs(),
        user,
    };
    let mut response = Envelope::of(signed).into_response();
    // RFC 6749, 5.1: no cache keeps a token; and none is compressed beside the caller's own words.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(compress::Never);
    Ok(response)
}
