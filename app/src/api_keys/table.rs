//! The tables of accounts, sessions and keys, as the foundation asks them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mainstay::auth::KeyKind;
use mainstay::auth::caller::{Accounts, KeyFuture, RoleFuture};
use mainstay::clock::Clock;
use mainstay::error::Result;
use mainstay::store::Database;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{KEYS, sql};
use crate::sessions;

/// The last use of a key is known to the minute: enough to see that nobody uses it any more.
const USE_KNOWN_FOR: Duration = Duration::from_secs(60);
/// Uses that are noted at once. More would take connections from requests, and what is not noted now is noted when the key's standing is asked again, seconds later.
const NOTED_AT_ONCE: usize = 2;

/// Accounts with their sessions and keys.
#[derive(Debug, Clone)]
pub struct AccountsTable {
    database: Database,
    clock: Clock,
    noting: Arc<Semaphore>,
}

impl AccountsTable {
    /// Those of this database; sessions and keys end by `clock`.
    pub fn new(database: Database, clock: Clock) -> Self {
        Self { database, clock, noting: Arc::new(Semaphore::new(NOTED_AT_ONCE)) }
    }

    /// Notes that a key is used, when nothing newer than a minute is known; nobody waits for it. Called when a standing is asked for, which is once in five
    /// seconds for a key in use.
    fn note_use(&self, key: Uuid, last: Option<Timestamp>, now: Timestamp) {
        let before = now.checked_sub(USE_KNOWN_FOR).unwrap_or(Timestamp::MIN);
        if last.is_some_and(|last| last >= before) {
            return;
        }
        let Ok(permit) = self.noting.clone().try_acquire_owned() else { return };
        let database = self.database.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let noted = async { sql::touch(&mut *database.writer(None).await?, key, now, before).await };
            if let Err(error) = noted.await {
                tracing::debug!(error = %error, "the use of an API key was not noted; its next one will be");
            }
        });
    }

    async fn standing_of_key(&self, account: Uuid, key: Uuid, deadline: Option<Instant>) -> Result<Option<mainstay::auth::Role>> {
        let now = self.clock.now();
        let standing = sql::standing(&mut *self.database.acquire(deadline).await?, account, key, now).await?;
        Ok(standing.map(|(role, last_used_at)| {
            self.note_use(key, last_used_at, now);
            role
        }))
    }
}

impl Accounts for AccountsTable {
    fn standing(&self, account: Uuid, session: Uuid, deadline: Option<Instant>) -> RoleFuture<'_> {
        Box::pin(async move {
            let mut connection = self.database.acquire(deadline).await?;
            sessions::sql::standing(&mut connection, account, session, self.clock.now()).await
        })
    }

    fn key_kind(&self) -> Option<KeyKind> {
        Some(KEYS)
    }

    fn key<'a>(&'a self, stored: &'a str, deadline: Option<Instant>) -> KeyFuture<'a> {
        Box::pin(async move {
            let mut connection = self.database.acquire(deadline).await?;
            sql::known(&mut connection, stored, self.clock.now()).await
        })
    }

    fn key_standing(&self, account: Uuid, key: Uuid, deadline: Option<Instant>) -> RoleFuture<'_> {
        Box::pin(self.standing_of_key(account, key, deadline))
    }
}
