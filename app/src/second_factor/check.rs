//! Whether somebody has the second factor of an account: a code is taken once, also by two requests at once, and tries are counted.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use mainstay::auth::{AccountKey, RecoveryCode, Sealer, Throttle, ThrottleLimits, Totp};
use mainstay::context;
use mainstay::error::{Error, Result};
use mainstay::redis::Redis;
use mainstay::store::{Database, Session};
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::sql;
use crate::codes;

/// What the secrets of authenticators are sealed for.
const PURPOSE: &str = "totp";

/// Checks second factors. Clones share it.
#[derive(Debug, Clone)]
pub struct SecondFactors {
    /// None where the service has no secret to seal under.
    sealer: Option<Arc<Sealer>>,
    /// Tries of whoever has the password or a session already, by the account's id; those of passwords at the sign-in are counted by address.
    throttle: Throttle,
}

impl SecondFactors {
    /// Second factors whose secrets are sealed so. Nothing was tried before `now`.
    pub fn new(sealer: Option<Sealer>, redis: Option<Redis>, now: Instant) -> Self {
        Self { sealer: sealer.map(Arc::new), throttle: Throttle::new(ThrottleLimits::default(), now).together("second_factor", redis) }
    }

    /// Can the secrets that are kept be read? In words for the operator, what is missing if not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unreadable(&self, database: &Database) -> Result<Option<&'static str>> {
        let seals = sql::seals(&mut *database.acquire(None).await?).await?;
        let known = |begins: &String| self.sealer.as_ref().is_some_and(|sealer| sealer.knows(begins));
        Ok(match (&self.sealer, seals.iter().all(known)) {
            (_, true) => None,
            (None, false) => Some("SEAL_SECRET is not set, and there are accounts with a second factor, who could not sign in"),
            (Some(_), false) => Some("SEAL_SECRET lacks a secret under which second factors are sealed; put the old one behind the new one"),
        })
    }

    fn sealer(&self) -> Result<&Sealer> {
        self.sealer.as_deref().ok_or_else(|| Error::new(&codes::SECOND_FACTOR_UNAVAILABLE).caused_by("SEAL_SECRET is not set"))
    }

    /// A new secret for an account, and as it is kept.
    pub(super) fn make(&self, account: Uuid) -> Result<(Totp, String)> {
        let (sealer, random) = (self.sealer()?, SystemRandom::new());
        let totp = Totp::make(&random)?;
        let sealed = sealer.seal(PURPOSE, account, totp.bytes(), &random)?;
        Ok((totp, sealed))
    }

    /// The secret of an account.
    pub(super) fn open(&self, account: Uuid, sealed: &str) -> Result<Totp> {
        let unavailable = || Error::new(&codes::SECOND_FACTOR_UNAVAILABLE);
        let bytes = self.sealer()?.open(PURPOSE, account, sealed).map_err(|unopened| unavailable().caused_by(unopened))?;
        Totp::from_bytes(bytes).ok_or_else(|| unavailable().caused_by("what was sealed is no secret of an authenticator"))
    }

    /// Takes a code of an account that has a second factor, in the caller's transaction: it is used if that commits. Was there one to show?
    ///
    /// # Errors
    /// [`codes::SECOND_FACTOR_REQUIRED`] without a code, [`codes::INVALID_SECOND_FACTOR`] for one that is wrong or was used.
    pub async fn take(&self, session: &mut Session, account: Uuid, typed: Option<&SecretString>, now: Timestamp) -> Result<bool> {
        let Some(kept) = sql::find(session, account).await?.filter(|kept| kept.enabled_at.is_some()) else { return Ok(false) };
        let typed = typed.ok_or_else(|| Error::new(&codes::SECOND_FACTOR_REQUIRED))?.expose_secret();
        let taken = match RecoveryCode::parse(typed) {
            Some(code) => sql::take_recovery_code(session, account, &code, now).await?,
            None => self.take_step(session, account, &kept, typed, now).await?,
        };
        if taken { Ok(true) } else { Err(Error::new(&codes::INVALID_SECOND_FACTOR)) }
    }

    async fn take_step(&self, session: &mut Session, account: Uuid, kept: &sql::Kept, typed: &str, now: Timestamp) -> Result<bool> {
        let totp = self.open(account, &kept.sealed)?;
        let Some(step) = totp.check(typed, now, kept.last_used_step) else { return Ok(false) };
        // What was read above may be old; the statement looks again.
        if !sql::take_step(session, account, step).await? {
            return Ok(false);
        }
        let sealer = self.sealer()?;
        if sealer.is_outdated(&kept.sealed) {
            let sealed = sealer.seal(PURPOSE, account, totp.bytes(), &SystemRandom::new())?;
            sql::reseal(session, account, &kept.sealed, &sealed).await?;
        }
        Ok(true)
    }

    /// Does what tries a password or a code of an account, if there were not too many tries that were wrong. One of which nothing is heard counts as wrong.
    ///
    /// # Errors
    /// [`mainstay::error::codes::TOO_MANY_ATTEMPTS`], and those of `tries`.
    pub async fn counted<T>(&self, account: Uuid, tries: impl Future<Output = Result<T>>) -> Result<T> {
        let client = context::client().unwrap_or_else(|| IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let pass = self.throttle.admit(AccountKey::of(&account.to_string()), client, Instant::now()).await?;
        let outcome = tries.await;
        match &outcome {
            Ok(_) => pass.succeeded(Instant::now()),
            Err(error) if [&codes::INVALID_SECOND_FACTOR, &codes::WRONG_PASSWORD, &codes::INVALID_CREDENTIALS].contains(&error.code()) => {
                pass.failed()
            }
            Err(_) => pass.unused(),
        }
        outcome
    }
}
