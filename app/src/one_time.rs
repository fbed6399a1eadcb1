//! What the links of letters prove: that whoever has one reads the mailbox. Each token is good once, for a limited time, and a newer one of its purpose takes
//! its place. Stored is a hash; the token itself is in the letter only.
//!
//! Locks are taken in one order: the account, its sessions, its tokens. Whatever is done with a token of an account is done after the account was locked, so
//! two uses of one have an order.

pub mod registrations;

use std::time::Duration;

use jiff::Timestamp;
use mainstay::auth::{Kind, Secret};
use mainstay::error::{Error, Result};
use mainstay::store::{Database, Row, Session, query};
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::codes;
use crate::mail::Token;

/// Tells scanners of leaked secrets, and people, what it is.
const KIND: Kind = Kind::new("mot");
/// A letter may be read the next morning.
pub const VERIFY_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Long enough for a slow mail server, short enough for a mailbox that somebody else reads later.
const RESET_FOR: Duration = Duration::from_secs(60 * 60);
/// Rows that one transaction of a sweep deletes at most.
const SWEEP_MAX: i64 = 500;
/// Transactions of one sweep, at most.
const ROUNDS_MAX: u32 = 20;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The address of the account is its owner's.
    VerifyAddress,
    /// The owner of the address may choose a new password.
    ResetPassword,
    /// The owner of the present address knows that it is to be changed.
    ConfirmOldAddress,
    /// The owner of the new address wants it to be the account's.
    ConfirmNewAddress,
}

impl Purpose {
    const ALL: [Self; 4] = [Self::VerifyAddress, Self::ResetPassword, Self::ConfirmOldAddress, Self::ConfirmNewAddress];

    fn as_str(self) -> &'static str {
        match self {
            Self::VerifyAddress => "verify_address",
            Self::ResetPassword => "reset_password",
            Self::ConfirmOldAddress => "confirm_old_address",
            Self::ConfirmNewAddress => "confirm_new_address",
        }
    }

    fn good_for(self) -> Duration {
        match self {
            Self::ResetPassword => RESET_FOR,
            _ => VERIFY_FOR,
        }
    }

    /// Which mailbox, for the audit trail.
    pub fn side(self) -> &'static str {
        if self == Self::ConfirmNewAddress { "new_address" } else { "present_address" }
    }

    /// The purpose of the token that went to the other mailbox, where there are two.
    fn other_side(self) -> Option<Self> {
        match self {
            Self::ConfirmOldAddress => Some(Self::ConfirmNewAddress),
            Self::ConfirmNewAddress => Some(Self::ConfirmOldAddress),
            _ => None,
        }
    }
}

/// A token that is known, is not used and has not expired.
#[derive(Debug)]
pub struct Found {
    /// The account.
    pub account: Uuid,
    /// What it is for.
    pub purpose: Purpose,
    /// The address that the account is to have.
    pub new_email: Option<String>,
}

/// The token of a text that came back from a link.
///
/// # Errors
/// [`codes::INVALID_LINK`] for what has not the form of one.
pub fn parse(text: &SecretString) -> Result<Secret> {
    KIND.parse(text.expose_secret()).ok_or_else(|| invalid("not of the form of one"))
}

/// The answer to a token that is good for nothing; the reason is for the log.
pub fn invalid(reason: &'static str) -> Error {
    Error::new(&codes::INVALID_LINK).caused_by(format!("one-time token: {reason}"))
}

/// A new token that nothing stands for yet.
fn make(random: &SystemRandom) -> Result<(Secret, Token)> {
    let secret = KIND.make(random)?;
    let token = Token::new(secret.text());
    Ok((secret, token))
}

/// Makes a token for an account; an older one of the purpose is good for nothing any more. With the account locked.
///
/// # Errors
/// When the system has no randomness to give, and what the database can meet.
pub async fn issue(
    session: &mut Session,
    account: Uuid,
    purpose: Purpose,
    new_email: Option<&str>,
    now: Timestamp,
    random: &SystemRandom,
) -> Result<Token> {
    let (secret, token) = make(random)?;
    query("DELETE FROM one_time_tokens WHERE user_id = $1 AND purpose = $2").bind(account).bind(purpose.as_str()).execute(session).await?;
    let text = "INSERT INTO one_time_tokens (hash, user_id, purpose, new_email, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)";
    let insert = query(text).bind(secret.stored()).bind(account).bind(purpose.as_str()).bind(new_email.map(str::to_owned));
    insert.bind(now).bind(later(now, purpose.good_for())).execute(session).await?;
    Ok(token)
}

/// What a token is good for now.
///
/// # Errors
/// [`codes::INVALID_LINK`] when it is good for none of these purposes.
pub async fn find(session: &mut Session, token: &Secret, purposes: &[Purpose], now: Timestamp) -> Result<Found> {
    let text = "SELECT user_id, purpose, new_email FROM one_time_tokens WHERE hash = $1 AND used_at IS NULL AND expires_at > $2";
    let row = query(text).bind(token.stored()).bind(now).fetch_optional(session).await?;
    let found = row.as_ref().map(found).transpose()?.flatten();
    found.filter(|found| purposes.contains(&found.purpose)).ok_or_else(|| invalid("unknown, used or expired"))
}

fn found(row: &Row) -> Result<Option<Found>> {
    let name: String = row.get("purpose")?;
    // A newer release may know more purposes.
    let Some(purpose) = Purpose::ALL.into_iter().find(|purpose| purpose.as_str() == name) else { return Ok(None) };
    Ok(Some(Found { account: row.get("user_id")?, purpose, new_email: row.get("new_email")? }))
}

/// Uses a token up. With the account locked: of two uses at once one comes too late.
///
/// # Errors
/// [`codes::INVALID_LINK`] for the one that came too late.
pub async fn take(session: &mut Session, token: &Secret, now: Timestamp) -> Result<()> {
    let text = "DELETE FROM one_time_tokens WHERE hash = $1 AND used_at IS NULL AND expires_at > $2";
    match query(text).bind(token.stored()).bind(now).execute(session).await? {
        0 => Err(invalid("used meanwhile")),
        _ => Ok(()),
    }
}

/// Notes that one side confirmed. Has the other one confirmed the same? With the account locked.
///
/// # Errors
/// [`codes::INVALID_LINK`] when it was used meanwhile.
pub async fn confirm(session: &mut Session, token: &Secret, found: &Found, now: Timestamp) -> Result<bool> {
    let text = "UPDATE one_time_tokens SET used_at = $2 WHERE hash = $1 AND used_at IS NULL AND expires_at > $2";
    if query(text).bind(token.stored()).bind(now).execute(session).await? == 0 {
        return Err(invalid("used meanwhile"));
    }
    let Some(other) = found.purpose.other_side() else { return Ok(true) };
    let text = "SELECT 1 AS one FROM one_time_tokens \
                WHERE user_id = $1 AND purpose = $2 AND new_email = $3 AND used_at IS NOT NULL AND expires_at > $4";
    let other = query(text).bind(found.account).bind(other.as_str()).bind(found.new_email.clone()).bind(now);
    Ok(other.fetch_optional(session).await?.is_some())
}

/// Makes all tokens of an account good for nothing: its password or its address is another one now, or it was disabled. With the account locked.
///
/// # Errors
/// When the database fails.
pub async fn forget(session: &mut Session, account: Uuid) -> Result<()> {
    query("DELETE FROM one_time_tokens WHERE user_id = $1").bind(account).execute(session).await?;
    Ok(())
}

/// Makes a change of the address that waits for its confirmations not happen. With the account locked.
///
/// # Errors
/// When the database fails.
pub async fn forget_change(session: &mut Session, account: Uuid) -> Result<()> {
    let text = "DELETE FROM one_time_tokens WHERE user_id = $1 AND purpose IN ($2, $3)";
    let (old, new) = (Purpose::ConfirmOldAddress.as_str(), Purpose::ConfirmNewAddress.as_str());
    query(text).bind(account).bind(old).bind(new).execute(session).await?;
    Ok(())
}

/// Deletes tokens and registrations that have expired, 10,000 of each at most. How many?
///
/// # Errors
/// When the database fails; what was deleted before stays deleted.
pub async fn sweep(database: &Database, now: Timestamp) -> Result<u64> {
    let mut deleted = 0;
    for _ in 0..ROUNDS_MAX {
        let mut transaction = database.begin(None).await?;
        let tokens = sweep_tokens(&mut transaction, now).await?;
        let round = tokens + registrations::sweep(&mut transaction, now).await?;
        transaction.commit().await?;
        deleted += round;
        if round < SWEEP_MAX.unsigned_abs() {
            break;
        }
    }
    Ok(deleted)
}

async fn sweep_tokens(session: &mut Session, now: Timestamp) -> Result<u64> {
    let text = session.dialect().sql(
        "DELETE FROM one_time_tokens WHERE hash IN (SELECT hash FROM one_time_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM one_time_tokens WHERE hash IN (SELECT hash FROM one_time_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
    );
    Ok(query(text).bind(now).bind(SWEEP_MAX).execute(session).await?)
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
