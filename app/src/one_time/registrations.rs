//! Accounts that will be when whoever reads the mailbox says so. Each registration keeps what it was sent with, so the letter that is followed decides: nobody
//! slips a password of his own under the link of somebody else's letter.

use jiff::Timestamp;
use mainstay::auth::Secret;
use mainstay::error::Result;
use mainstay::store::{Row, Session, query};
use ring::rand::SystemRandom;

use super::{SWEEP_MAX, VERIFY_FOR, later, make};
use crate::mail::Token;
use crate::users::Email;

/// A registration that waits.
#[derive(Debug)]
pub struct Registration {
    /// The address, as it was given.
    pub email: String,
    /// The person's name.
    pub name: String,
    /// What the password was hashed to.
    pub password_hash: String,
}

/// Keeps a registration under a new token.
///
/// # Errors
/// When the system has no randomness to give, and what the database can meet.
pub async fn keep(session: &mut Session, registration: &Registration, email: &Email, now: Timestamp, random: &SystemRandom) -> Result<Token> {
    let (secret, token) = make(random)?;
    let text =
        "INSERT INTO registrations (hash, email, email_folded, name, password_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let insert = query(text).bind(secret.stored()).bind(email.given()).bind(email.folded()).bind(registration.name.as_str());
    insert.bind(registration.password_hash.as_str()).bind(now).bind(later(now, VERIFY_FOR)).execute(session).await?;
    Ok(token)
}

/// Takes the registration of a token, and with it all others of the address: one of them became the account.
///
/// # Errors
/// When the database fails.
pub async fn take(session: &mut Session, token: &Secret, now: Timestamp) -> Result<Option<Registration>> {
    let text = "DELETE FROM registrations WHERE hash = $1 AND expires_at > $2 RETURNING email, email_folded, name, password_hash";
    let Some(row) = query(text).bind(token.stored()).bind(now).fetch_optional(session).await? else { return Ok(None) };
    query("DELETE FROM registrations WHERE email_folded = $1").bind(row.get::<String>("email_folded")?).execute(session).await?;
    registration(&row).map(Some)
}

/// The newest registration of an address, under a new token; the older token is good for nothing any more.
///
/// # Errors
/// When the database fails.
pub async fn renew(session: &mut Session, email: &Email, now: Timestamp, random: &SystemRandom) -> Result<Option<Token>> {
    let (secret, token) = make(random)?;
    let text = "UPDATE registrations SET hash = $1, expires_at = $2 WHERE hash = \
                (SELECT hash FROM registrations WHERE email_folded = $3 AND expires_at > $4 ORDER BY created_at DESC, hash LIMIT 1)";
    let renewed = query(text).bind(secret.stored()).bind(later(now, VERIFY_FOR)).bind(email.folded()).bind(now).execute(session).await?;
    Ok((renewed == 1).then_some(token))
}

fn registration(row: &Row) -> Result<Registration> {
    Ok(Registration { email: row.get("email")?, name: row.get("name")?, password_hash: row.get("password_hash")? })
}

/// Deletes registrations that have expired, a few.
pub(super) async fn sweep(session: &mut Session, now: Timestamp) -> Result<u64> {
    let text = session.dialect().sql(
        "DELETE FROM registrations WHERE hash IN (SELECT hash FROM registrations WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM registrations WHERE hash IN (SELECT hash FROM registrations WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
    );
    Ok(query(text).bind(now).bind(SWEEP_MAX).execute(session).await?)
}
