//! The SQL of sessions and refresh tokens: plain functions on a session of the store, so that they compose in a transaction.
//!
//! Locks are taken in one order: the account, its sessions. The row of a session is the lock of its whole family: nobody reads or writes its tokens
//! without it, so what happens to a family happens one after the other, on any number of instances. (SQLite has one writer at a time.)

use jiff::Timestamp;
use mainstay::auth::Role;
use mainstay::error::{Error, Result};
use mainstay::store::{Row, Session, query};
use uuid::Uuid;

use super::{Device, RefreshToken};

/// Sessions that one sweep deletes at most: a few milliseconds of work, so nobody waits for it.
pub const SWEEP_MAX: i64 = 500;

/// Why a session was ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Its client signed out.
    SignedOut,
    /// Its owner signed out everywhere.
    SignedOutEverywhere,
    /// Its owner ended it from another session.
    EndedByOwner,
    /// An administrator ended all sessions of the account.
    EndedByAdministrator,
    /// A refresh token was used again: one of two clients is a thief.
    TokenReused,
    /// The account got a second factor, and it was opened without.
    SecondFactorAdded,
    /// There were too many.
    Displaced,
    /// The password was changed.
    PasswordChanged,
    /// The account was disabled.
    AccountDisabled,
}

impl Because {
    /// In the table and in the audit trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::SignedOutEverywhere => "signed_out_everywhere",
            Self::EndedByOwner => "ended_by_owner",
            Self::EndedByAdministrator => "ended_by_administrator",
            Self::TokenReused => "token_reused",
            Self::SecondFactorAdded => "second_factor_added",
            Self::Displaced => "displaced",
            Self::PasswordChanged => "password_changed",
            Self::AccountDisabled => "account_disabled",
        }
    }
}

/// The account that a session is opened for.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) role: Role,
    pub(super) password_hash: String,
}

/// A session with what decides over its tokens.
#[derive(Debug)]
pub struct Family {
    /// The session.
    pub session: Uuid,
    /// Its account.
    pub account: Uuid,
    pub(super) role: Role,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) revoked: bool,
    pub(super) disabled: bool,
}

/// A token that is still kept; with its time and its sealed successor once it was used.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) used: Option<(Timestamp, String)>,
}

/// A session as its owner sees it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) id: Uuid,
    pub(super) created_at: Timestamp,
    pub(super) last_used_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) address: String,
    pub(super) user_agent: Option<String>,
}

fn role(row: &Row) -> Result<Role> {
    let text: String = row.get("role")?;
    text.parse().map_err(|error: mainstay::auth::role::NoRole| Error::new(&mainstay::error::codes::INTERNAL).caused_by(error))
}

/// The role of an account that may sign in, if this session of it has not ended. On the way of requests: two lookups by primary key.
pub(crate) async fn standing(session: &mut Session, account: Uuid, id: Uuid, now: Timestamp) -> Result<Option<Role>> {
    let text = "SELECT u.role FROM sessions s JOIN users u ON u.id = s.user_id \
                WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > $3 AND u.disabled_at IS NULL";
    let row = query(text).bind(id).bind(account).bind(now).fetch_optional(session).await?;
    row.as_ref().map(role).transpose()
}

/// An account that may sign in, kept from others who open or end its sessions.
pub(super) async fn lock_owner(session: &mut Session, account: Uuid) -> Result<Option<Owner>> {
    let text = session.dialect().sql(
        "SELECT role, password_hash FROM users WHERE id = $1 AND disabled_at IS NULL FOR NO KEY UPDATE",
        "SELECT role, password_hash FROM users WHERE id = $1 AND disabled_at IS NULL",
    );
    let row = query(text).bind(account).fetch_optional(session).await?;
    row.map(|row| Ok(Owner { role: role(&row)?, password_hash: row.get("password_hash")? })).transpose()
}

/// Inserts a session with its first token. After [`lock_owner`].
pub(super) async fn insert(
    session: &mut Session,
    id: Uuid,
    account: Uuid,
    first: &RefreshToken,
    device: &Device,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    let text = "INSERT INTO sessions (id, user_id, family, created_at, last_used_at, expires_at, address, user_agent) VALUES ($1, $2, $3, $4, $4, $5, $6, $7)";
    let insert = query(text).bind(id).bind(account).bind(first.family()).bind(now).bind(expires_at);
    insert.bind(device.address.to_string()).bind(device.user_agent.clone()).execute(session).await?;
    insert_token(session, id, first, now).await
}

/// Inserts a token that waits for its use. The session has no other: an index says so.
pub(super) async fn insert_token(session: &mut Session, id: Uuid, token: &RefreshToken, now: Timestamp) -> Result<()> {
    let text = "INSERT INTO refresh_tokens (hash, session_id, created_at) VALUES ($1, $2, $3)";
    query(text).bind(token.hash()).bind(id).bind(now).execute(session).await?;
    Ok(())
}

/// The session of a token, kept from everybody else who has one of its tokens.
pub(super) async fn lock_family(session: &mut Session, family: &str) -> Result<Option<Family>> {
    let text = session.dialect().sql(
        "SELECT s.id, s.user_id, s.created_at, s.expires_at, s.revoked_at, u.role, u.disabled_at FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.family = $1 FOR UPDATE OF s",
        "SELECT s.id, s.user_id, s.created_at, s.expires_at, s.revoked_at, u.role, u.disabled_at FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.family = $1",
    );
    let Some(row) = query(text).bind(family).fetch_optional(session).await? else { return Ok(None) };
    Ok(Some(Family {
        session: row.get("id")?,
        account: row.get("user_id")?,
        role: role(&row)?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        revoked: row.get::<Option<Timestamp>>("revoked_at")?.is_some(),
        disabled: row.get::<Option<Timestamp>>("disabled_at")?.is_some(),
    }))
}

/// The account and the session of a family.
pub(super) async fn of_family(session: &mut Session, family: &str) -> Result<Option<(Uuid, Uuid)>> {
    let row = query("SELECT user_id, id FROM sessions WHERE family = $1").bind(family).fetch_optional(session).await?;
    row.map(|row| Ok((row.get("user_id")?, row.get("id")?))).transpose()
}

/// A token of the session. After [`lock_family`].
pub(super) async fn kept(session: &mut Session, id: Uuid, token: &RefreshToken) -> Result<Option<Kept>> {
    let text = "SELECT used_at, successor FROM refresh_tokens WHERE hash = $1 AND session_id = $2";
    let Some(row) = query(text).bind(token.hash()).bind(id).fetch_optional(session).await? else { return Ok(None) };
    let (used_at, successor): (Option<Timestamp>, Option<String>) = (row.get("used_at")?, row.get("successor")?);
    Ok(Some(Kept { used: used_at.zip(successor) }))
}

/// Notes that a token was used, with its sealed successor, and forgets those used before `spent`. After [`lock_family`].
pub(super) async fn spend(session: &mut Session, id: Uuid, token: &RefreshToken, successor: &str, now: Timestamp, spent: Timestamp) -> Result<()> {
    query("DELETE FROM refresh_tokens WHERE session_id = $1 AND used_at < $2").bind(id).bind(spent).execute(session).await?;
    let text = "UPDATE refresh_tokens SET used_at = $2, successor = $3 WHERE hash = $1";
    query(text).bind(token.hash()).bind(now).bind(successor).execute(session).await?;
    Ok(())
}

/// Notes that a session was used, from where, and when it ends now. After [`lock_family`].
pub(super) async fn touch(session: &mut Session, id: Uuid, device: &Device, now: Timestamp, expires_at: Timestamp) -> Result<()> {
    let text = "UPDATE sessions SET last_used_at = $2, expires_at = $3, address = $4, user_agent = $5 WHERE id = $1";
    let touch = query(text).bind(id).bind(now).bind(expires_at);
    touch.bind(device.address.to_string()).bind(device.user_agent.clone()).execute(session).await?;
    Ok(())
}

/// Ends a session of an account. Had it not ended yet?
pub async fn revoke(session: &mut Session, account: Uuid, id: Uuid, because: Because, now: Timestamp) -> Result<bool> {
    let text = "UPDATE sessions SET revoked_at = $3, expires_at = $3, revoked_because = $4 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $3";
    Ok(query(text).bind(id).bind(account).bind(now).bind(because.as_str()).execute(session).await? > 0)
}

/// Ends all sessions of an account but the `spared` ones used last. How many ended? Call it with the account locked: one that is being opened is not missed.
pub async fn revoke_all(session: &mut Session, account: Uuid, spared: u32, because: Because, now: Timestamp) -> Result<u64> {
    // An account has no more than SESSIONS_MAX, which is at most 1,000; SQLite knows no OFFSET without a LIMIT.
    let text = "UPDATE sessions SET revoked_at = $2, expires_at = $2, revoked_because = $3 WHERE id IN \
                (SELECT id FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY last_used_at DESC, id LIMIT 100000 OFFSET $4)";
    Ok(query(text).bind(account).bind(now).bind(because.as_str()).bind(i64::from(spared)).execute(session).await?)
}

/// Ends all sessions of an account but this one. How many ended? Call it with the account locked.
pub async fn revoke_others(session: &mut Session, account: Uuid, spared: Uuid, because: Because, now: Timestamp) -> Result<u64> {
    let text = "UPDATE sessions SET revoked_at = $2, expires_at = $2, revoked_because = $3 \
                WHERE user_id = $1 AND id <> $4 AND revoked_at IS NULL AND expires_at > $2";
    Ok(query(text).bind(account).bind(now).bind(because.as_str()).bind(spared).execute(session).await?)
}

/// The sessions of an account that have not ended, the one used last first.
pub(super) async fn list(session: &mut Session, account: Uuid, now: Timestamp, limit: i64) -> Result<Vec<Listed>> {
    let text = "SELECT id, created_at, last_used_at, expires_at, address, user_agent FROM sessions \
                WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY last_used_at DESC, id LIMIT $3";
    let rows = query(text).bind(account).bind(now).bind(limit).fetch_all(session).await?;
    let listed = |row: &Row| {
        Ok(Listed {
            id: row.get("id")?,
            created_at: row.get("created_at")?,
            last_used_at: row.get("last_used_at")?,
            expires_at: row.get("expires_at")?,
            address: row.get("address")?,
            user_agent: row.get("user_agent")?,
        })
    };
    rows.iter().map(listed).collect()
}

/// Deletes sessions that ended before `ended`, with their tokens; [`SWEEP_MAX`] at most. How many?
pub async fn sweep(session: &mut Session, ended: Timestamp) -> Result<u64> {
    // Two instances that sweep at once take different rows, and neither waits for a client.
    let text = session.dialect().sql(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
    );
    Ok(query(text).bind(ended).bind(SWEEP_MAX).execute(session).await?)
}
