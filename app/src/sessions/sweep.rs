//! Sessions that ended long ago are deleted, a little at a time, by every instance: none has to be chosen, and none has to live.

use std::time::Duration;

use jiff::Timestamp;
use mainstay::error::Result;
use mainstay::store::Database;
use uuid::Uuid;

use super::sql::{self, SWEEP_MAX};
use crate::app::App;

/// An ended session is kept this long for whoever asks why it ended.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Between two sweeps: what a busy hour leaves is gone in the next.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Transactions of one sweep, at most.
const ROUNDS_MAX: u32 = 20;

/// Sweeps until it is aborted.
pub async fn keep_swept(app: App) {
    loop {
        // Between a half and one and a half: instances that started together do not sweep together.
        let jitter_ms = Uuid::new_v4().as_u128() % EVERY.as_millis();
        tokio::time::sleep(EVERY / 2 + Duration::from_millis(u64::try_from(jitter_ms).unwrap_or(0))).await;
        match sweep(&app.database, app.clock().now()).await {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "ended sessions deleted"),
            Err(error) => tracing::warn!(error = %error, "ended sessions could not be deleted; it will be tried again"),
        }
    }
}

/// Deletes sessions that ended a week before `now`, 10,000 at most. How many?
///
/// # Errors
/// When the database fails; what was deleted before stays deleted.
pub async fn sweep(database: &Database, now: Timestamp) -> Result<u64> {
    let ended = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
    let mut deleted = 0;
    for _ in 0..ROUNDS_MAX {
        let mut transaction = database.begin(None).await?;
        let round = sql::sweep(&mut transaction, ended).await?;
        transaction.commit().await?;
        deleted += round;
        if round < SWEEP_MAX.unsigned_abs() {
            break;
        }
    }
    Ok(deleted)
}
