//! Trying a password: one way for signing in and for whatever asks for the password again, under one throttle.

use std::time::Instant;

use mainstay::auth::{AccountKey, Asker, Pass};
use mainstay::context;
use mainstay::error::{Error, Result};
use secrecy::SecretString;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{self, Action, Actor, Entry, actions};
use crate::sessions::Device;
use crate::users::sql::Credentials;
use crate::users::{self, Email};

/// An account whose password was given.
#[derive(Debug)]
pub struct Proven {
    /// The account.
    pub account: Uuid,
    /// What its password is hashed to now: whoever finds another one later was overtaken by a change.
    pub password_hash: String,
}

/// Tries a password of the account with this address. None for a wrong one and for an account that is unknown or disabled, after the same time.
///
/// The pass is to succeed only when everything else that was asked for was given, too: else a stolen password would make a thief's address known.
///
/// # Errors
/// [`mainstay::error::codes::TOO_MANY_ATTEMPTS`], [`mainstay::error::codes::OVERLOADED`], and what the database can meet.
pub async fn prove(app: &App, address: &str, password: SecretString, device: &Device) -> Result<Option<(Proven, Pass)>> {
    // An address that cannot be one, and a password that cannot be one, still cost the time of a real try.
    let email = Email::parse(address).ok();
    let key = AccountKey::of(email.as_ref().map_or(address, Email::folded));
    let pass = app.throttle.admit(key, device.address.into(), Instant::now()).await.inspect_err(|_| count("throttled"))?;
    match judge(app, email.as_ref(), &password, asker(&pass)).await {
        Ok((Some(credentials), verified)) if verified.right => {
            count("right");
            let password_hash = if verified.rehash { renewed(app, &credentials, password).await } else { credentials.password_hash };
            Ok(Some((Proven { account: credentials.account, password_hash }, pass)))
        }
        Ok((credentials, _)) => {
            pass.failed();
            count("wrong");
            if let Some(credentials) = credentials {
                note_denied(app, credentials.account, actions::SESSION_DENIED, device);
            }
            Ok(None)
        }
        Err(error) => {
            // No password was looked at.
            pass.unused();
            Err(error)
        }
    }
}

/// Strangers wait on a side of their own.
fn asker(pass: &Pass) -> Asker {
    if pass.is_known() { Asker::Known(context::client()) } else { Asker::Stranger(context::client()) }
}

async fn judge(app: &App, email: Option<&Email>, password: &SecretString, asker: Asker) -> Result<(Option<Credentials>, mainstay::auth::Verified)> {
    let credentials = match email {
        Some(email) => users::sql::credentials(&mut *app.read().await?, email).await?,
        None => None,
    };
    let hash = credentials.as_ref().map(|credentials| credentials.password_hash.clone());
    let verified = app.passwords.verify(password.clone(), hash, asker).await?;
    Ok((credentials, verified))
}

/// The hash that stands after the password was hashed as it is done today. A try that fails changes nothing: the next sign-in tries again.
async fn renewed(app: &App, credentials: &Credentials, password: SecretString) -> String {
    let (old, account) = (credentials.password_hash.clone(), credentials.account);
    let renew = async {
        let new = app.passwords.hash(password, Asker::Known(context::client())).await?;
        let (database, deadline, before, after) = (app.database.clone(), app.deadline(), old.clone(), new.clone());
        let write = async move {
            let mut transaction = database.begin(deadline).await?;
            let replaced = users::sql::replace_hash(&mut transaction, account, &before, &after).await?;
            transaction.commit().await?;
            Ok::<_, Error>(replaced)
        };
        Ok::<_, Error>(app.writes.finish(write).await?.then_some(new))
    };
    match renew.await {
        Ok(Some(new)) => new,
        Ok(None) => old,
        Err(error) => {
            tracing::warn!(%account, error = %error, "a password could not be hashed anew; the next sign-in tries again");
            old
        }
    }
}

/// Notes a wrong password or a wrong code in the audit trail. Nobody waits for it, so an account that exists takes no longer than one that does not; how many
/// there are is bounded by the throttles, and those of accounts that do not exist are counted only.
pub fn note_denied(app: &App, account: Uuid, action: Action, device: &Device) {
    let entry = Entry::new(Actor::Stranger, action).about(account).from(device);
    let (database, now, deadline) = (app.database.clone(), app.clock().now(), app.deadline());
    app.writes.begin(async move {
        let write = async {
            let mut transaction = database.begin(deadline).await?;
            audit::record(&mut transaction, entry, now).await?;
            Ok::<_, Error>(transaction.commit().await?)
        };
        if let Err(error) = write.await {
            tracing::warn!(%account, error = %error, "a sign-in that was refused could not be noted in the audit trail");
        }
    });
}

fn count(outcome: &'static str) {
    metrics::counter!("mainstay_passwords_tried_total", "outcome" => outcome).increment(1);
}
