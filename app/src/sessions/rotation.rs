//! What happens to a family of refresh tokens: it is begun, a token gives way to its successor, a token comes back.
//!
//! Each of these is one transaction under the lock of the family, so any two presentations of a token have an order, whichever instances they reach,
//! and a process that dies in between leaves either all of it or nothing:
//!
//! | the token | the answer |
//! |---|---|
//! | waits for its use | its successor, which waits from now on |
//! | was used within the window | the same successor as the first time: its answer was lost, or two of the client's requests raced |
//! | was used before, or is of the family and not known anymore | none, and the family ends: two parties have tokens of one session |
//! | of a family that ended, or of none | none |

use std::time::Duration;

use jiff::Timestamp;
use mainstay::auth::Role;
use mainstay::error::{Error, Result, codes};
use mainstay::store::Session;
use ring::rand::SystemRandom;
use uuid::Uuid;

use super::sql::{self, Because, Family, Kept};
use super::{Device, RefreshToken};
use crate::settings::{REFRESH_REUSE_WINDOW_MAX, Settings};

/// How long things last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    reuse_window: Duration,
    refresh_expiry: Duration,
    session_max_age: Duration,
    sessions_max: u32,
}

impl Policy {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            reuse_window: settings.refresh_reuse_window,
            refresh_expiry: settings.refresh_expiry,
            session_max_age: settings.session_max_age,
            sessions_max: settings.sessions_max,
        }
    }

    /// When a session that is used now ends by itself.
    fn end(self, created_at: Timestamp, now: Timestamp) -> Timestamp {
        later(now, self.refresh_expiry).min(later(created_at, self.session_max_age))
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// What somebody who signed in, or came back, gets.
#[derive(Debug)]
pub struct Grant {
    /// The account.
    pub account: Uuid,
    /// Its session.
    pub session: Uuid,
    /// Its role now.
    pub role: Role,
    /// The token that waits for its use.
    pub refresh: RefreshToken,
    /// When the session ends if it is not used before.
    pub expires_at: Timestamp,
}

/// What became of a token that was presented.
#[derive(Debug)]
pub(super) enum Turn {
    /// It gave way to this, now or a moment ago.
    Granted(Grant),
    /// It came back too late.
    Reused(Family),
    /// It is good for nothing; the reason is for the log.
    Refused(&'static str),
}

/// A session that was begun, and how many others had to go for it.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) grant: Grant,
    pub(super) displaced: u64,
}

/// Begins a session. `verified` is the hash that the password was verified against: if it is another one by now, the sign-in was overtaken by a change of
/// the password, which ended all sessions and must not miss this one.
///
/// # Errors
/// [`crate::codes::INVALID_CREDENTIALS`] when the account may not sign in anymore, [`codes::TRANSACTION_CONFLICT`] when it was overtaken.
pub(super) async fn begin(
    session: &mut Session,
    account: Uuid,
    verified: Option<&str>,
    device: &Device,
    policy: Policy,
    now: Timestamp,
    random: &SystemRandom,
) -> Result<Begun> {
    let owner = sql::lock_owner(session, account).await?.ok_or_else(|| Error::new(&crate::codes::INVALID_CREDENTIALS))?;
    if verified.is_some_and(|hash| hash != owner.password_hash) {
        return Err(Error::new(&codes::TRANSACTION_CONFLICT).caused_by("the password was changed meanwhile").retry_after(Duration::from_secs(1)));
    }
    let displaced = sql::revoke_all(session, account, policy.sessions_max.saturating_sub(1), Because::Displaced, now).await?;
    let (id, refresh, expires_at) = (Uuid::new_v4(), RefreshToken::first(random)?, policy.end(now, now));
    sql::insert(session, id, account, &refresh, device, now, expires_at).await?;
    Ok(Begun { grant: Grant { account, session: id, role: owner.role, refresh, expires_at }, displaced })
}

/// Takes a token that was presented. Nothing stands before the transaction is committed.
///
/// # Errors
/// When the database fails.
pub(super) async fn turn(
    session: &mut Session,
    presented: &RefreshToken,
    device: &Device,
    policy: Policy,
    now: Timestamp,
    random: &SystemRandom,
) -> Result<Turn> {
    let Some(family) = sql::lock_family(session, &presented.family()).await? else { return Ok(Turn::Refused("no such session")) };
    let kept = sql::kept(session, family.session, presented).await?;
    let (refresh, expires_at) = match judge(&family, kept.as_ref(), policy.reuse_window, now) {
        Verdict::Refuse(reason) => return Ok(Turn::Refused(reason)),
        Verdict::Reused => return Ok(Turn::Reused(family)),
        Verdict::Repeat(sealed) => (presented.open(sealed, family.session)?, family.expires_at),
        Verdict::Rotate => {
            let successor = presented.next(random)?;
            let sealed = presented.seal(&successor, family.session)?;
            let expires_at = policy.end(family.created_at, now);
            // Beyond the longest window that can be set, a token that is not known is as good as one that is.
            let spent = now.checked_sub(REFRESH_REUSE_WINDOW_MAX).unwrap_or(Timestamp::MIN);
            sql::spend(session, family.session, presented, &sealed, now, spent).await?;
            sql::insert_token(session, family.session, &successor, now).await?;
            sql::touch(session, family.session, device, now, expires_at).await?;
            (successor, expires_at)
        }
    };
    Ok(Turn::Granted(Grant { account: family.account, session: family.session, role: family.role, refresh, expires_at }))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    Rotate,
    /// The sealed successor.
    Repeat(&'a str),
    Reused,
    Refuse(&'static str),
}

fn judge<'a>(family: &Family, kept: Option<&'a Kept>, window: Duration, now: Timestamp) -> Verdict<'a> {
    if family.revoked {
        return Verdict::Refuse("the session was ended");
    }
    if family.expires_at <= now {
        return Verdict::Refuse("the session has expired");
    }
    if family.disabled {
        return Verdict::Refuse("the account is disabled");
    }
    match kept.map(|kept| kept.used.as_ref()) {
        Some(None) => Verdict::Rotate,
        // An instance whose clock is behind sees a use in the future; that is inside as well.
        Some(Some((used_at, sealed))) if now < later(*used_at, window) => Verdict::Repeat(sealed),
        Some(Some(_)) | None => Verdict::Reused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn family(revoked: bool, disabled: bool) -> Family {
        let (session, account) = (Uuid::new_v4(), Uuid::new_v4());
        Family { session, account, role: Role::User, created_at: at(0), expires_at: at(1_000), revoked, disabled }
    }

    fn used(second: i64) -> Kept {
        Kept { used: Some((at(second), "sealed".to_owned())) }
    }

    #[test]
    fn the_window_opens_with_the_first_use_and_closes_on_time() {
        let judge = |kept: Option<Kept>, now| {
            let window = Duration::from_secs(10);
            match super::judge(&family(false, false), kept.as_ref(), window, at(now)) {
                Verdict::Rotate => "rotate",
                Verdict::Repeat("sealed") => "repeat",
                Verdict::Reused => "reused",
                _ => "refused",
            }
        };
        assert_eq!(judge(Some(Kept { used: None }), 100), "rotate");
        assert_eq!([judge(Some(used(100)), 95), judge(Some(used(100)), 100), judge(Some(used(100)), 109)], ["repeat"; 3]);
        assert_eq!([judge(Some(used(100)), 110), judge(Some(used(100)), 999), judge(None, 100)], ["reused"; 3]);
        assert_eq!([judge(Some(Kept { used: None }), 1_000), judge(Some(used(999)), 1_000), judge(None, 1_000)], ["refused"; 3]);
    }

    #[test]
    fn of_a_family_that_ended_nothing_is_good_and_nothing_is_news() {
        for family in [family(true, false), family(false, true), family(true, true)] {
            for kept in [Some(Kept { used: None }), Some(used(1)), None] {
                assert!(matches!(judge(&family, kept.as_ref(), Duration::from_secs(10), at(2)), Verdict::Refuse(_)), "{family:?} {kept:?}");
            }
        }
    }

    #[test]
    fn a_window_of_nothing_forgives_nothing() {
        assert_eq!(judge(&family(false, false), Some(&used(100)), Duration::ZERO, at(100)), Verdict::Reused);
    }

    #[test]
    fn a_session_ends_when_it_is_not_used_and_however_often_it_is() {
        let policy = Policy {
            reuse_window: Duration::ZERO,
            refresh_expiry: Duration::from_secs(30),
            session_max_age: Duration::from_secs(90),
            sessions_max: 1,
        };
        assert_eq!([policy.end(at(0), at(0)), policy.end(at(0), at(59)), policy.end(at(0), at(80))], [at(30), at(89), at(90)]);
    }
}
