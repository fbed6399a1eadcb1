//! The SQL of second factors and recovery codes.

use jiff::Timestamp;
use mainstay::auth::RecoveryCode;
use mainstay::error::Result;
use mainstay::store::{Session, query};
use uuid::Uuid;

/// What is kept of a second factor.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) sealed: String,
    pub(super) last_used_step: Option<i64>,
    pub(super) created_at: Timestamp,
    pub(super) enabled_at: Option<Timestamp>,
}

/// The second factor of an account, enabled or not.
pub(super) async fn find(session: &mut Session, account: Uuid) -> Result<Option<Kept>> {
    let text = "SELECT sealed, last_used_step, created_at, enabled_at FROM second_factors WHERE user_id = $1";
    let row = query(text).bind(account).fetch_optional(session).await?;
    row.map(|row| {
        Ok(Kept {
            sealed: row.get("sealed")?,
            last_used_step: row.get("last_used_step")?,
            created_at: row.get("created_at")?,
            enabled_at: row.get("enabled_at")?,
        })
    })
    .transpose()
}

/// Keeps a secret that waits to be confirmed, in place of another one that waits. False when one is enabled.
pub(super) async fn begin(session: &mut Session, account: Uuid, sealed: &str, now: Timestamp) -> Result<bool> {
    let text = "INSERT INTO second_factors (user_id, sealed, created_at) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO UPDATE \
                SET sealed = excluded.sealed, created_at = excluded.created_at WHERE second_factors.enabled_at IS NULL";
    Ok(query(text).bind(account).bind(sealed).bind(now).execute(session).await? > 0)
}

/// Enables the secret that waits, with the step of the code that was shown. False when it is enabled already.
pub(super) async fn enable(session: &mut Session, account: Uuid, step: i64, now: Timestamp) -> Result<bool> {
    let text = "UPDATE second_factors SET enabled_at = $3, last_used_step = $2 WHERE user_id = $1 AND enabled_at IS NULL";
    Ok(query(text).bind(account).bind(step).bind(now).execute(session).await? > 0)
}

/// Takes a step. False when it, or a later one, was taken before: of two requests with one code, one changes the row.
pub(super) async fn take_step(session: &mut Session, account: Uuid, step: i64) -> Result<bool> {
    let text = "UPDATE second_factors SET last_used_step = $2 WHERE user_id = $1 AND last_used_step < $2";
    Ok(query(text).bind(account).bind(step).execute(session).await? > 0)
}

/// Keeps the secret under another seal.
pub(super) async fn reseal(session: &mut Session, account: Uuid, before: &str, sealed: &str) -> Result<()> {
    query("UPDATE second_factors SET sealed = $3 WHERE user_id = $1 AND sealed = $2")
        .bind(account)
        .bind(before)
        .bind(sealed)
        .execute(session)
        .await?;
    Ok(())
}

/// Takes a recovery code. False when the account has none like it, or it was taken before.
pub(super) async fn take_recovery_code(session: &mut Session, account: Uuid, code: &RecoveryCode, now: Timestamp) -> Result<bool> {
    let text = "UPDATE recovery_codes SET used_at = $3 WHERE hash = $2 AND user_id = $1 AND used_at IS NULL";
    Ok(query(text).bind(account).bind(code.stored(account)).bind(now).execute(session).await? > 0)
}

/// Puts new recovery codes in the place of all there are.
pub(super) async fn replace_recovery_codes(session: &mut Session, account: Uuid, codes: &[RecoveryCode], now: Timestamp) -> Result<()> {
    query("DELETE FROM recovery_codes WHERE user_id = $1").bind(account).execute(session).await?;
    for code in codes {
        let text = "INSERT INTO recovery_codes (hash, user_id, created_at) VALUES ($1, $2, $3)";
        query(text).bind(code.stored(account)).bind(account).bind(now).execute(session).await?;
    }
    Ok(())
}

/// How many recovery codes are left?
pub(super) async fn recovery_codes_left(session: &mut Session, account: Uuid) -> Result<i64> {
    let text = "SELECT count(*) AS n FROM recovery_codes WHERE user_id = $1 AND used_at IS NULL";
    Ok(query(text).bind(account).fetch_one(session).await?.get("n")?)
}

/// Removes a second factor with its recovery codes. False when there is none that is enabled.
pub(super) async fn delete(session: &mut Session, account: Uuid) -> Result<bool> {
    Ok(query("DELETE FROM second_factors WHERE user_id = $1 AND enabled_at IS NOT NULL").bind(account).execute(session).await? > 0)
}

/// The hash of the password, of an account that may sign in.
pub(super) async fn password_hash(session: &mut Session, account: Uuid) -> Result<Option<String>> {
    let text = "SELECT password_hash FROM users WHERE id = $1 AND disabled_at IS NULL";
    Ok(query(text).bind(account).fetch_optional(session).await?.map(|row| row.get("password_hash")).transpose()?)
}

/// How sealed secrets of enabled second factors begin: with the names of the secrets that they need, each once.
pub(super) async fn seals(session: &mut Session) -> Result<Vec<String>> {
    // `s1.`, eight digits and a dot. More than a hundred secrets were never exchanged.
    let text = "SELECT DISTINCT substr(sealed, 1, 12) AS begins FROM second_factors WHERE enabled_at IS NOT NULL LIMIT 100";
    query(text).fetch_all(session).await?.iter().map(|row| Ok(row.get("begins")?)).collect()
}
