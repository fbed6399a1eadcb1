//! Sessions that ended long ago are deleted, a little at a time.

use std::time::Duration;

use jiff::Timestamp;
use mainstay::error::Result;
use mainstay::store::Database;

use super::sql::{self, SWEEP_MAX};

/// An ended session is kept this long for whoever asks why it ended.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Transactions of one sweep, at most.
const ROUNDS_MAX: u32 = 20;

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
