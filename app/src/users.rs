//! Accounts: their routes, wire types and handlers. The SQL stands in `users/sql.rs`, what a caller may write in `users/input.rs`.

mod input;
pub mod sql;
pub mod standing;

use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use jiff::Timestamp;
use mainstay::auth::{Admin, Change, Role, SignedIn};
use mainstay::error::{Error, Result};
use mainstay::extract::{Json, Path, PathId, Query, parse_uuid_v4};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::{Address, App, Envelope};
use crate::audit::{self, Entry, actions};
use crate::codes;
use crate::page::{self, Page, PageMeta};
use crate::sessions::Device;

pub use input::{ChangeUser, CreateUser, Email, NewAccount, PersonName, SERVICE_NAME, email_schema};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(me)).routes(routes!(show, update, remove))
}

/// An account as its owner and administrators see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct User {
    /// The id.
    #[schema(example = "3f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e")]
    pub id: Uuid,
    /// The address, as it was given.
    #[schema(schema_with = email_schema)]
    pub email: String,
    /// The person's name.
    #[schema(
        example = "Ada Lovelace",
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
    )]
    pub name: String,
    /// What the account may do.
    pub role: Role,
    /// Has the owner shown that the address is his?
    #[schema(example = true)]
    pub verified: bool,
    /// Is the account kept from signing in?
    #[schema(example = false)]
    pub disabled: bool,
    /// Since when.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    pub created_at: Timestamp,
    /// Last change of the account or its profile.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    pub updated_at: Timestamp,
}

/// The id of an account, in a path.
#[derive(Debug, Clone, Copy)]
pub struct UserId(pub Uuid);

impl PathId for UserId {
    const INVALID: &'static str = "Invalid user ID format";
    fn parse(text: &str) -> Option<Self> {
        parse_uuid_v4(text).map(Self)
    }
}

/// Which page of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Rows of a page, 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 5000, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// Lists accounts, oldest first.
///
/// For administrators. By page: `meta.next_cursor` and the `Link` header lead to the next one.
#[utoipa::path(get, path = "/api/users", tag = "users", operation_id = "listUsers", params(ListParams), security(("bearer" = []), ("api_key" = ["admin"])),
    responses((status = 200, description = "A page of accounts", body = Page<User, PageMeta>, headers(("Link" = String, description = "The next page, if there is one: `<...>; rel=\"next\"`"))), (status = 403, description = "forbidden"), (status = 404, description = "cursor_not_found")))]
async fn list(State(app): State<App>, _: Admin, uri: Uri, Query(params): Query<ListParams>) -> Result<Response> {
    let limit = page::limit(params.limit)?;
    let after = params.cursor.as_deref().map(page::decode_cursor::<(i64, Uuid)>).transpose()?;
    let mut users = sql::page(&mut *app.read().await?, after, i64::from(limit) + 1).await?;
    let more = users.len() > limit as usize;
    users.truncate(limit as usize);
    let next_cursor = users.last().filter(|_| more).map(|last| page::encode_cursor(&(last.created_at.as_microsecond(), last.id)));
    let next = next_cursor.clone();
    Ok(page::answer(&Page::new(users, PageMeta { next_cursor }), &uri, next.as_deref()))
}

/// Creates an account of any role.
///
/// For administrators.
#[utoipa::path(post, path = "/api/users", tag = "users", operation_id = "createUser", request_body = CreateUser, security(("bearer" = []), ("api_key" = ["admin"])),
    responses((status = 201, description = "The account", body = Envelope<User>), (status = 403, description = "forbidden"), (status = 409, description = "email_taken")))]
async fn create(
    State(app): State<App>,
    Admin(caller): Admin,
    device: Device,
    Json(input): Json<CreateUser>,
) -> Result<(StatusCode, axum::Json<Envelope<User>>)> {
    let (account, role) = input.parse()?;
    let user = app.open_account(account, role, Address::Vouched, Entry::new(caller, actions::USER_CREATED).from(&device)).await?;
    Ok((StatusCode::CREATED, Envelope::of(user)))
}

/// Shows the caller's own account.
///
/// The account of the access token, as it is now.
#[utoipa::path(get, path = "/api/users/me", tag = "users", operation_id = "showMe", security(("bearer" = []), ("api_key" = ["read"])),
    responses((status = 200, description = "The account", body = Envelope<User>), (status = 404, description = "user_not_found")))]
async fn me(State(app): State<App>, caller: SignedIn) -> Result<axum::Json<Envelope<User>>> {
    found(&app, caller.account).await
}

/// Shows an account.
///
/// One's own, or any to an administrator.
#[utoipa::path(get, path = "/api/users/{id}", tag = "users", operation_id = "showUser", params(("id" = Uuid, Path, description = "The account")), security(("bearer" = []), ("api_key" = ["read"])),
    responses((status = 200, description = "The account", body = Envelope<User>), (status = 403, description = "forbidden"), (status = 404, description = "user_not_found")))]
async fn show(State(app): State<App>, caller: SignedIn, Path(UserId(id)): Path<UserId>) -> Result<axum::Json<Envelope<User>>> {
    caller.itself_or_admin(id)?;
    found(&app, id).await
}

async fn found(app: &App, id: Uuid) -> Result<axum::Json<Envelope<User>>> {
    let user = sql::find(&mut *app.read().await?, id).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))?;
    Ok(Envelope::of(user))
}

/// Changes an account.
///
/// A JSON merge patch (RFC 7396): what is absent stays. The name by its owner; the role, and whether the account is disabled, by administrators only. Nobody signs in
/// to a disabled account: its sessions and the links in its letters end with it, on every instance at once, and its owner is told by mail.
#[utoipa::path(patch, path = "/api/users/{id}", tag = "users", operation_id = "updateUser", params(("id" = Uuid, Path, description = "The account")), security(("bearer" = []), ("api_key" = ["account:write"])),
    request_body(content((ChangeUser = "application/merge-patch+json"), (ChangeUser = "application/json"))),
    responses((status = 200, description = "The account", body = Envelope<User>), (status = 403, description = "forbidden"), (status = 404, description = "user_not_found"), (status = 409, description = "last_admin")))]
async fn update(
    State(app): State<App>,
    caller: SignedIn,
    device: Device,
    Path(UserId(id)): Path<UserId>,
    Json(input): Json<ChangeUser>,
) -> Result<axum::Json<Envelope<User>>> {
    caller.itself_or_admin(id)?;
    let change = input.parse()?;
    if change.is_for_administrators() && caller.role < Role::Admin {
        return Err(Error::new(&mainstay::error::codes::FORBIDDEN).with_message("Only administrators change roles and disable accounts"));
    }
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    let user = app
        .writes
        .finish(async move {
            let mut transaction = database.begin(deadline).await?;
            let locked = match change.is_for_administrators() {
                true => sql::lock_with_admins(&mut transaction, id).await?,
                false => sql::lock(&mut transaction, id).await?,
            };
            let current = locked.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))?;
            if let Some(role) = change.role.filter(|role| *role != current.role) {
                if current.role == Role::Admin {
                    sql::another_admin(&mut transaction, id).await?;
                }
                sql::set_role(&mut transaction, id, role, now).await?;
                let detail = json!({"from": current.role.as_str(), "to": role.as_str()});
                let entry = Entry::new(caller, actions::USER_ROLE_CHANGED).about(id).from(&device).with(detail);
                audit::record(&mut transaction, entry, now).await?;
            }
            if let Some(disabled) = change.disabled.filter(|disabled| *disabled != current.disabled) {
                let entry = |action| Entry::new(caller, action).from(&device);
                standing::set_disabled(&mut transaction, &current, disabled, entry, now).await?;
            }
            if let Some(name) = &change.name {
                sql::set_name(&mut transaction, id, name, now).await?;
                audit::record(&mut transaction, Entry::new(caller, actions::USER_RENAMED).about(id).from(&device), now).await?;
            }
            let user = sql::find(&mut transaction, id).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))?;
            if user.role == current.role && user.disabled == current.disabled {
                transaction.commit().await?;
            } else {
                auth.commit(transaction, Change::Account(id)).await?;
            }
            Ok::<_, Error>(user)
        })
        .await?;
    Ok(Envelope::of(user))
}

/// Removes an account with its profile.
///
/// One's own, or any by an administrator. Its sessions and the links in its letters go with it; what it did stays in the audit trail under its id. The last
/// administrator cannot go.
#[utoipa::path(delete, path = "/api/users/{id}", tag = "users", operation_id = "removeUser", params(("id" = Uuid, Path, description = "The account")), security(("bearer" = []), ("api_key" = ["account:write"])),
    responses((status = 204, description = "The account is gone"), (status = 403, description = "forbidden"), (status = 404, description = "user_not_found"), (status = 409, description = "last_admin")))]
async fn remove(State(app): State<App>, caller: SignedIn, device: Device, Path(UserId(id)): Path<UserId>) -> Result<StatusCode> {
    caller.itself_or_admin(id)?;
    let (database, auth, now, deadline) = (app.database.clone(), app.auth.clone(), app.clock().now(), app.deadline());
    app.writes
        .finish(async move {
            let mut transaction = database.begin(deadline).await?;
            let current = sql::lock_with_admins(&mut transaction, id).await?.ok_or_else(|| Error::new(&codes::USER_NOT_FOUND))?;
            if current.role == Role::Admin {
                sql::another_admin(&mut transaction, id).await?;
            }
            sql::delete(&mut transaction, id).await?;
            audit::record(&mut transaction, Entry::new(caller, actions::USER_REMOVED).about(id).from(&device), now).await?;
            auth.commit(transaction, Change::Account(id)).await
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
