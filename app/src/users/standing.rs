//! Whether an account may sign in: what goes with it, in one transaction, for administrators and for the command line.

use jiff::Timestamp;
use mainstay::auth::Role;
use mainstay::error::Result;
use mainstay::store::Session;
use serde_json::json;
use uuid::Uuid;

use super::{User, sql};
use crate::api_keys;
use crate::audit::{self, Action, Entry, actions};
use crate::mail::{self, Letter, To};
use crate::one_time;
use crate::sessions::{self, Because};

/// Disables an account, or lets it in again. Its sessions do not come back. After [`sql::lock_with_admins`].
///
/// # Errors
/// [`crate::codes::LAST_ADMIN`].
pub async fn set_disabled(session: &mut Session, user: &User, disabled: bool, entry: impl FnOnce(Action) -> Entry, now: Timestamp) -> Result<()> {
    if !disabled {
        sql::set_disabled(session, user.id, false, now).await?;
        return audit::record(session, entry(actions::USER_ENABLED).about(user.id), now).await;
    }
    if user.role == Role::Admin {
        sql::another_admin(session, user.id).await?;
    }
    sql::set_disabled(session, user.id, true, now).await?;
    one_time::forget(session, user.id).await?;
    let ended = sessions::sql::revoke_all(session, user.id, 0, Because::AccountDisabled, now).await?;
    let keys = api_keys::sql::revoke_all(session, user.id, now).await?;
    audit::record(session, entry(actions::USER_DISABLED).about(user.id).with(json!({"sessions": ended, "keys": keys})), now).await?;
    mail::send(session, &To::person(&user.email, &user.name), &Letter::AccountDisabled, &Uuid::new_v4().to_string(), now).await?;
    Ok(())
}
