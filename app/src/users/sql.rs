//! The SQL of accounts: plain functions on a session, so that they compose in a transaction.

use jiff::Timestamp;
use mainstay::auth::Role;
use mainstay::error::{Error, Result};
use mainstay::store::{Row, Session, query};
use uuid::Uuid;

use super::{Email, PersonName, User};
use crate::codes;

const SELECT: &str = "SELECT u.id, u.email, u.role, p.name, u.created_at, CASE WHEN p.updated_at > u.updated_at THEN p.updated_at ELSE u.updated_at END AS changed_at \
                      FROM users u JOIN profiles p ON p.user_id = u.id";

fn user(row: &Row) -> Result<User> {
    Ok(User {
        id: row.get("id")?,
        email: row.get("email")?,
        name: row.get("name")?,
        role: role(row)?,
        created_at: row.get("created_at")?,
        updated_at: row.get("changed_at")?,
    })
}

fn role(row: &Row) -> Result<Role> {
    let text: String = row.get("role")?;
    text.parse().map_err(|error: mainstay::auth::role::NoRole| Error::new(&mainstay::error::codes::INTERNAL).caused_by(error))
}

/// An account by its id.
pub async fn find(session: &mut Session, id: Uuid) -> Result<Option<User>> {
    let row = query(format!("{SELECT} WHERE u.id = $1")).bind(id).fetch_optional(session).await?;
    row.as_ref().map(user).transpose()
}

/// An account by its id, kept from other writers until the transaction ends.
pub async fn lock(session: &mut Session, id: Uuid) -> Result<Option<User>> {
    let text = session.dialect().sql("SELECT 1 AS one FROM users WHERE id = $1 FOR UPDATE", "SELECT 1 AS one FROM users WHERE id = $1");
    match query(text).bind(id).fetch_optional(session).await? {
        Some(_) => find(session, id).await,
        None => Ok(None),
    }
}

/// An account by its id, kept from other writers together with all administrators. For whoever may take an administrator away: locked in one order, two who
/// remove each other neither both succeed nor deadlock.
pub async fn lock_with_admins(session: &mut Session, id: Uuid) -> Result<Option<User>> {
    let text = session.dialect().sql(
        "SELECT 1 AS one FROM users WHERE id = $1 OR (role = 'admin' AND disabled_at IS NULL) ORDER BY id FOR UPDATE",
        "SELECT 1 AS one FROM users WHERE id = $1",
    );
    query(text).bind(id).fetch_all(session).await?;
    find(session, id).await
}

/// Accounts after a position, oldest first.
pub async fn page(session: &mut Session, after: Option<(i64, Uuid)>, limit: i64) -> Result<Vec<User>> {
    let rows = match after {
        None => query(format!("{SELECT} ORDER BY u.created_at, u.id LIMIT $1")).bind(limit).fetch_all(session).await?,
        Some((created_at_us, id)) => {
            let created_at = Timestamp::from_microsecond(created_at_us).map_err(|error| Error::new(&codes::CURSOR_NOT_FOUND).caused_by(error))?;
            let text = format!("{SELECT} WHERE (u.created_at, u.id) > ($1, $2) ORDER BY u.created_at, u.id LIMIT $3");
            query(text).bind(created_at).bind(id).bind(limit).fetch_all(session).await?
        }
    };
    rows.iter().map(user).collect()
}

/// What a sign-in needs to know of an account that may sign in: its id, password hash and role.
pub async fn credentials(session: &mut Session, email: &Email) -> Result<Option<(Uuid, String, Role)>> {
    let text = "SELECT id, password_hash, role FROM users WHERE email_folded = $1 AND disabled_at IS NULL";
    let row = query(text).bind(email.folded()).fetch_optional(session).await?;
    row.map(|row| Ok((row.get("id")?, row.get("password_hash")?, role(&row)?))).transpose()
}

/// Inserts an account with its profile. Call it in a transaction: neither may exist without the other.
///
/// # Errors
/// [`codes::EMAIL_TAKEN`].
pub async fn insert(session: &mut Session, user: &User, email: &Email, password_hash: &str) -> Result<()> {
    let text = "INSERT INTO users (id, email, email_folded, password_hash, role, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)";
    let account =
        query(text).bind(user.id).bind(email.given()).bind(email.folded()).bind(password_hash).bind(user.role.as_str()).bind(user.created_at);
    account.execute(session).await.map_err(|error| {
        if error.is_unique("users_email_folded_key") {
            Error::new(&codes::EMAIL_TAKEN).with_field("email", "taken", "belongs to an account already")
        } else {
            error.into()
        }
    })?;
    let profile = query("INSERT INTO profiles (user_id, name, updated_at) VALUES ($1, $2, $3)");
    profile.bind(user.id).bind(user.name.as_str()).bind(user.created_at).execute(session).await?;
    Ok(())
}

/// Changes a role.
pub async fn set_role(session: &mut Session, id: Uuid, role: Role, now: Timestamp) -> Result<()> {
    query("UPDATE users SET role = $2, updated_at = $3 WHERE id = $1").bind(id).bind(role.as_str()).bind(now).execute(session).await?;
    Ok(())
}

/// Changes a name.
pub async fn set_name(session: &mut Session, id: Uuid, name: &PersonName, now: Timestamp) -> Result<()> {
    query("UPDATE profiles SET name = $2, updated_at = $3 WHERE user_id = $1").bind(id).bind(name.as_str()).bind(now).execute(session).await?;
    Ok(())
}

/// Deletes an account; its profile goes with it.
pub async fn delete(session: &mut Session, id: Uuid) -> Result<()> {
    query("DELETE FROM users WHERE id = $1").bind(id).execute(session).await?;
    Ok(())
}

/// Makes sure that there is an administrator beside this one, and that none of them goes before the transaction ends. After [`lock_with_admins`].
///
/// # Errors
/// [`codes::LAST_ADMIN`].
pub async fn another_admin(session: &mut Session, id: Uuid) -> Result<()> {
    let text = session.dialect().sql(
        "SELECT id FROM users WHERE role = 'admin' AND disabled_at IS NULL ORDER BY id FOR UPDATE",
        "SELECT id FROM users WHERE role = 'admin' AND disabled_at IS NULL ORDER BY id",
    );
    for row in query(text).fetch_all(session).await? {
        if row.get::<Uuid>("id")? != id {
            return Ok(());
        }
    }
    Err(Error::new(&codes::LAST_ADMIN))
}

/// Is there any account yet?
pub async fn any(session: &mut Session) -> Result<bool> {
    Ok(query("SELECT 1 AS one FROM users LIMIT 1").fetch_optional(session).await?.is_some())
}
