//! The SQL of accounts: plain functions on a session, so that they compose in a transaction.

use jiff::Timestamp;
use mainstay::auth::Role;
use mainstay::error::{Error, Result};
use mainstay::store::{Row, Session, query};
use uuid::Uuid;

use super::{Email, PersonName, User};
use crate::codes;

const SELECT: &str = "SELECT u.id, u.email, u.role, u.verified_at, u.disabled_at, p.name, u.created_at, CASE WHEN p.updated_at > u.updated_at THEN p.updated_at ELSE u.updated_at END AS changed_at \
                      FROM users u JOIN profiles p ON p.user_id = u.id";

fn user(row: &Row) -> Result<User> {
    Ok(User {
        id: row.get("id")?,
        email: row.get("email")?,
        name: row.get("name")?,
        role: role(row)?,
        verified: row.get::<Option<Timestamp>>("verified_at")?.is_some(),
        disabled: row.get::<Option<Timestamp>>("disabled_at")?.is_some(),
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

/// What a sign-in needs to know of an account that may sign in.
#[derive(Debug)]
pub struct Credentials {
    /// The account.
    pub account: Uuid,
    /// What its password is hashed to.
    pub password_hash: String,
}

/// The credentials of an account that may sign in.
pub async fn credentials(session: &mut Session, email: &Email) -> Result<Option<Credentials>> {
    let text = "SELECT id, password_hash FROM users WHERE email_folded = $1 AND disabled_at IS NULL";
    let row = query(text).bind(email.folded()).fetch_optional(session).await?;
    row.map(|row| Ok(Credentials { account: row.get("id")?, password_hash: row.get("password_hash")? })).transpose()
}

/// What the password of an account is hashed to.
pub async fn password_hash(session: &mut Session, id: Uuid) -> Result<Option<String>> {
    let row = query("SELECT password_hash FROM users WHERE id = $1").bind(id).fetch_optional(session).await?;
    row.map(|row| Ok(row.get("password_hash")?)).transpose()
}

/// The account of an address, disabled or not.
pub async fn id_of(session: &mut Session, email: &Email) -> Result<Option<Uuid>> {
    let row = query("SELECT id FROM users WHERE email_folded = $1").bind(email.folded()).fetch_optional(session).await?;
    row.map(|row| Ok(row.get("id")?)).transpose()
}

/// The account of an address, disabled or not, kept from other writers until the transaction ends.
pub async fn lock_by_email(session: &mut Session, email: &Email) -> Result<Option<User>> {
    let Some(id) = id_of(session, email).await? else { return Ok(None) };
    let user = lock(session, id).await?;
    // Between the two it may have got another address.
    Ok(user.filter(|user| Email::parse(&user.email).is_ok_and(|now| now.folded() == email.folded())))
}

/// Inserts an account with its profile. Call it in a transaction: neither may exist without the other.
///
/// # Errors
/// [`codes::EMAIL_TAKEN`].
pub async fn insert(session: &mut Session, user: &User, email: &Email, password_hash: &str) -> Result<()> {
    let text = "INSERT INTO users (id, email, email_folded, password_hash, role, created_at, updated_at, verified_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $7)";
    let account = query(text).bind(user.id).bind(email.given()).bind(email.folded()).bind(password_hash).bind(user.role.as_str());
    let account = account.bind(user.created_at).bind(user.verified.then_some(user.created_at));
    account.execute(session).await.map_err(taken)?;
    let profile = query("INSERT INTO profiles (user_id, name, updated_at) VALUES ($1, $2, $3)");
    profile.bind(user.id).bind(user.name.as_str()).bind(user.created_at).execute(session).await?;
    Ok(())
}

fn taken(error: mainstay::store::Error) -> Error {
    if error.is_unique("users_email_folded_key") {
        Error::new(&codes::EMAIL_TAKEN).with_field("email", "taken", "belongs to an account already")
    } else {
        error.into()
    }
}

/// Notes that the address of an account is its owner's.
pub async fn verify(session: &mut Session, id: Uuid, now: Timestamp) -> Result<()> {
    query("UPDATE users SET verified_at = $2 WHERE id = $1 AND verified_at IS NULL").bind(id).bind(now).execute(session).await?;
    Ok(())
}

/// Sets a password.
pub async fn set_password(session: &mut Session, id: Uuid, password_hash: &str, now: Timestamp) -> Result<()> {
    query("UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1").bind(id).bind(password_hash).bind(now).execute(session).await?;
    Ok(())
}

/// Puts another hash of the same password in the place of one. Was it still there?
pub async fn replace_hash(session: &mut Session, id: Uuid, before: &str, after: &str) -> Result<bool> {
    let text = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    Ok(query(text).bind(id).bind(before).bind(after).execute(session).await? == 1)
}

/// Gives an account another address, which its owner has proven.
///
/// # Errors
/// [`codes::EMAIL_TAKEN`].
pub async fn set_email(session: &mut Session, id: Uuid, email: &Email, now: Timestamp) -> Result<()> {
    let text = "UPDATE users SET email = $2, email_folded = $3, verified_at = $4, updated_at = $4 WHERE id = $1";
    query(text).bind(id).bind(email.given()).bind(email.folded()).bind(now).execute(session).await.map_err(taken)?;
    Ok(())
}

/// Lets an account sign in, or not.
pub async fn set_disabled(session: &mut Session, id: Uuid, disabled: bool, now: Timestamp) -> Result<()> {
    let text = "UPDATE users SET disabled_at = $2, updated_at = $3 WHERE id = $1";
    query(text).bind(id).bind(disabled.then_some(now)).bind(now).execute(session).await?;
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
