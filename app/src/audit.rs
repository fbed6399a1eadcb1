//! The audit trail: who did what to which account, when and from where. Written with [`record`] in the transaction of what it tells; read by administrators.
//!
//! It is append only: triggers of both databases refuse every change, and every deletion of what is younger than `AUDIT_RETENTION`. An account that is
//! removed leaves its entries with its id.

mod entry;
mod sql;

use axum::extract::State;
use axum::response::Response;
use http::Uri;
use jiff::Timestamp;
use mainstay::auth::Admin;
use mainstay::error::{Error, Result};
use mainstay::extract::{Query, parse_uuid_v4};
use mainstay::store::Database;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::page::{self, Page, PageMeta};

pub use entry::{Action, Actor, Entry, actions, record};

/// The route.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What happened once.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Later entries have greater numbers; some are left out.
    #[schema(minimum = 1, example = 4711)]
    id: i64,
    /// When.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:00:00Z")]
    at: Timestamp,
    /// Who: `stranger`, `person`, `key`, `system` or `command_line`.
    #[schema(max_length = 12, pattern = "^(stranger|person|key|system|command_line)$", example = "person")]
    actor_kind: String,
    /// The account that did it, if one did.
    #[schema(required, example = "3f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e")]
    actor: Option<Uuid>,
    /// What.
    #[schema(max_length = 64, pattern = "^[a-z_]+\\.[a-z_]+$", example = "user.role_changed")]
    action: String,
    /// The account that it was done to, which may be gone.
    #[schema(required, example = "5f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e")]
    subject: Option<Uuid>,
    /// From where.
    #[schema(required, max_length = 45, pattern = "^[0-9a-fA-F.:]+$", example = "192.0.2.1")]
    address: Option<String>,
    /// What the client called itself.
    #[schema(required, max_length = 256, example = "curl/8.14.1")]
    user_agent: Option<String>,
    /// The request, as the log knows it.
    #[schema(required, max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "4b80e6cbe25144d192ab0b264c4e04f1")]
    request_id: Option<String>,
    /// What else is worth knowing. Its members depend on the action; never a secret.
    #[schema(value_type = Object, example = json!({"from": "user", "to": "editor"}))]
    detail: serde_json::Value,
}

/// Which entries.
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
    /// Only what this account did.
    #[param(value_type = Option<Uuid>)]
    actor: Option<String>,
    /// Only what was done to this account.
    #[param(value_type = Option<Uuid>)]
    subject: Option<String>,
    /// Only this.
    #[param(min_length = 3, max_length = 64, pattern = "^[a-z_]+\\.[a-z_]+$", example = "user.role_changed")]
    action: Option<String>,
}

impl ListParams {
    fn filter(self) -> Result<sql::Filter> {
        if self.action.as_deref().is_some_and(|action| !Action::formed(action)) {
            let error = Error::new(&mainstay::error::codes::INVALID_QUERY).with_message("Query parameter `action` must be an action");
            return Err(error.with_field("action", "invalid_format", "must be two words with a dot between them, such as `user.registered`"));
        }
        let account = |name: &str, text: Option<String>| text.map(|text| parse_uuid_v4(&text).ok_or_else(|| no_account(name))).transpose();
        Ok(sql::Filter { actor: account("actor", self.actor)?, subject: account("subject", self.subject)?, action: self.action })
    }
}

fn no_account(name: &str) -> Error {
    let error = Error::new(&mainstay::error::codes::INVALID_QUERY).with_message(format!("Query parameter `{name}` must be the id of an account"));
    error.with_field(name, "invalid_format", "must be a UUID of version 4")
}

/// Lists the audit trail, newest first.
///
/// For administrators. What happened to accounts and sessions, by whom and from where, kept for `AUDIT_RETENTION`. By page: `meta.next_cursor` and the `Link`
/// header lead to the next one.
#[utoipa::path(get, path = "/api/audit", tag = "users", operation_id = "listAudit", params(ListParams), security(("bearer" = []), ("api_key" = ["admin"])),
    responses((status = 200, description = "A page of entries", body = Page<AuditEntry, PageMeta>, headers(("Link" = String, description = "The next page, if there is one: `<...>; rel=\"next\"`"))), (status = 403, description = "forbidden"), (status = 404, description = "cursor_not_found")))]
async fn list(State(app): State<App>, _: Admin, uri: Uri, Query(params): Query<ListParams>) -> Result<Response> {
    let limit = page::limit(params.limit)?;
    let before = params.cursor.as_deref().map(page::decode_cursor::<i64>).transpose()?;
    let mut entries = sql::page(&mut *app.read().await?, &params.filter()?, before, i64::from(limit) + 1).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next_cursor = entries.last().filter(|_| more).map(|last| page::encode_cursor(&last.id));
    let next = next_cursor.clone();
    Ok(page::answer(&Page::new(entries, PageMeta { next_cursor }), &uri, next.as_deref()))
}

/// Transactions of one sweep, at most.
const ROUNDS_MAX: u32 = 20;

/// Deletes entries from before `horizon`, 10,000 at most. How many?
///
/// # Errors
/// When the database fails, or `horizon` lies within the last thirty days; what was deleted before stays deleted.
pub async fn sweep(database: &Database, horizon: Timestamp) -> Result<u64> {
    let mut deleted = 0;
    for _ in 0..ROUNDS_MAX {
        let mut transaction = database.begin(None).await?;
        let round = sql::sweep(&mut transaction, horizon).await?;
        transaction.commit().await?;
        deleted += round;
        if round < sql::SWEEP_MAX.unsigned_abs() {
            break;
        }
    }
    Ok(deleted)
}
