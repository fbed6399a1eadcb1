//! The SQL of API keys.

use jiff::Timestamp;
use mainstay::auth::{ApiKey, KnownKey, Role, Scopes};
use mainstay::error::{Error, Result, codes};
use mainstay::store::{Row, Session, query};
use uuid::Uuid;

/// Keys that have ended and are kept for whoever asks what became of them; a list that a person can read.
const ENDED_MAX: i64 = 50;

/// A key that has not ended, as its owner sees it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) public_id: String,
    pub(super) scopes: Scopes,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) last_used_at: Option<Timestamp>,
}

fn scopes(row: &Row) -> Result<Scopes> {
    Ok(Scopes::parse(&row.get::<String>("scopes")?))
}

/// The key that is stored so, if it has not ended.
pub(crate) async fn known(session: &mut Session, stored: &str, now: Timestamp) -> Result<Option<KnownKey>> {
    let text = "SELECT id, user_id, scopes, expires_at FROM api_keys WHERE hash = $1 AND revoked_at IS NULL AND expires_at > $2";
    let row = query(text).bind(stored).bind(now).fetch_optional(session).await?;
    let known =
        |row: Row| Ok(KnownKey { id: row.get("id")?, account: row.get("user_id")?, scopes: scopes(&row)?, expires_at: row.get("expires_at")? });
    row.map(known).transpose()
}

/// The role of an account that may sign in, if this key of it has not ended, and when the key was used last. On the way of requests: two lookups by primary key.
pub(crate) async fn standing(session: &mut Session, account: Uuid, id: Uuid, now: Timestamp) -> Result<Option<(Role, Option<Timestamp>)>> {
    let text = "SELECT u.role, k.last_used_at FROM api_keys k JOIN users u ON u.id = k.user_id \
                WHERE k.id = $1 AND k.user_id = $2 AND k.revoked_at IS NULL AND k.expires_at > $3 AND u.disabled_at IS NULL";
    let Some(row) = query(text).bind(id).bind(account).bind(now).fetch_optional(session).await? else { return Ok(None) };
    let role = row.get::<String>("role")?.parse().map_err(|error: mainstay::auth::role::NoRole| Error::new(&codes::INTERNAL).caused_by(error))?;
    Ok(Some((role, row.get("last_used_at")?)))
}

/// Notes a use, unless one since `before` is known.
pub(super) async fn touch(session: &mut Session, id: Uuid, now: Timestamp, before: Timestamp) -> Result<()> {
    let text = "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $3)";
    query(text).bind(id).bind(now).bind(before).execute(session).await?;
    Ok(())
}

/// Inserts a key. With the account locked, and after [`count`].
pub(super) async fn insert(session: &mut Session, account: Uuid, key: &ApiKey, listed: &Listed) -> Result<()> {
    let text = "INSERT INTO api_keys (id, user_id, name, public_id, hash, scopes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let insert = query(text).bind(listed.id).bind(account).bind(listed.name.as_str()).bind(key.name()).bind(key.stored());
    insert.bind(listed.scopes.to_string()).bind(listed.created_at).bind(listed.expires_at).execute(session).await?;
    Ok(())
}

/// How many keys of the account have not ended? With the account locked, the answer stands until the transaction ends.
pub(super) async fn count(session: &mut Session, account: Uuid, now: Timestamp) -> Result<i64> {
    let text = "SELECT count(*) AS n FROM api_keys WHERE user_id = $1 AND expires_at > $2";
    Ok(query(text).bind(account).bind(now).fetch_one(session).await?.get("n")?)
}

/// Deletes the keys that ended longest ago, if there are more than anybody reads: what an account leaves behind is bounded.
pub(super) async fn forget_ended(session: &mut Session, account: Uuid, now: Timestamp) -> Result<()> {
    // SQLite knows no OFFSET without a LIMIT; there is one too many at most, and more only after a change of the bound.
    let text = "DELETE FROM api_keys WHERE id IN \
                (SELECT id FROM api_keys WHERE user_id = $1 AND expires_at <= $2 ORDER BY expires_at DESC, id LIMIT 1000 OFFSET $3)";
    query(text).bind(account).bind(now).bind(ENDED_MAX).execute(session).await?;
    Ok(())
}

/// The keys of an account that have not ended, the newest first.
pub(super) async fn list(session: &mut Session, account: Uuid, now: Timestamp, limit: i64) -> Result<Vec<Listed>> {
    let text = "SELECT id, name, public_id, scopes, created_at, expires_at, last_used_at FROM api_keys \
                WHERE user_id = $1 AND expires_at > $2 ORDER BY created_at DESC, id LIMIT $3";
    let listed = |row: &Row| {
        Ok(Listed {
            id: row.get("id")?,
            name: row.get("name")?,
            public_id: row.get("public_id")?,
            scopes: scopes(row)?,
            created_at: row.get("created_at")?,
            expires_at: row.get("expires_at")?,
            last_used_at: row.get("last_used_at")?,
        })
    };
    query(text).bind(account).bind(now).bind(limit).fetch_all(session).await?.iter().map(listed).collect()
}

/// Ends a key of an account. Had it not ended yet?
pub async fn revoke(session: &mut Session, account: Uuid, id: Uuid, now: Timestamp) -> Result<bool> {
    let text = "UPDATE api_keys SET revoked_at = $3, expires_at = $3 WHERE id = $1 AND user_id = $2 AND expires_at > $3";
    Ok(query(text).bind(id).bind(account).bind(now).execute(session).await? > 0)
}

/// Ends all keys of an account. How many ended? For whoever takes an account back from somebody else; commit it with [`mainstay::auth::Auth::commit`].
pub async fn revoke_all(session: &mut Session, account: Uuid, now: Timestamp) -> Result<u64> {
    let text = "UPDATE api_keys SET revoked_at = $2, expires_at = $2 WHERE user_id = $1 AND expires_at > $2";
    Ok(query(text).bind(account).bind(now).execute(session).await?)
}
