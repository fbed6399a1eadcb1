//! What has had its time is deleted, a little at a time, by every instance: none has to be chosen, and none has to live.

use std::time::Duration;

use jiff::Timestamp;
use mainstay::error::Result;
use uuid::Uuid;

use crate::app::App;
use crate::{audit, one_time, sessions};

/// Between two sweeps: what a busy hour leaves is gone in the next.
const EVERY: Duration = Duration::from_secs(10 * 60);

/// Sweeps until it is aborted.
pub async fn keep_swept(app: App) {
    loop {
        // Between a half and one and a half: instances that started together do not sweep together.
        let jitter_ms = Uuid::new_v4().as_u128() % EVERY.as_millis();
        tokio::time::sleep(EVERY / 2 + Duration::from_millis(u64::try_from(jitter_ms).unwrap_or(0))).await;
        let now = app.clock().now();
        tell("ended sessions", sessions::sweep(&app.database, now).await);
        tell("expired links", one_time::sweep(&app.database, now).await);
        let horizon = now.checked_sub(app.settings.audit_retention).unwrap_or(Timestamp::MIN);
        tell("old entries of the audit trail", audit::sweep(&app.database, horizon).await);
    }
}

fn tell(what: &str, swept: Result<u64>) {
    match swept {
        Ok(0) => {}
        Ok(deleted) => tracing::debug!(deleted, "{what} deleted"),
        Err(error) => tracing::warn!(error = %error, "{what} could not be deleted; it will be tried again"),
    }
}
