//! Failures of the database as answers. A constraint that a service expects is asked for at the query, before it comes here.

use std::time::Duration;

use super::{Error, codes};
use crate::store;

/// A pool that was full is free again within a second, or the database is gone for longer than any client should hammer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        use store::Error as E;
        let code = match &error {
            E::AcquireTimeout { .. } | E::Unavailable(_) => &codes::DATABASE_UNAVAILABLE,
            E::DeadlinePassed | E::StatementTimeout => &codes::DATABASE_TIMEOUT,
            E::Conflict(_) => &codes::TRANSACTION_CONFLICT,
            E::Data(_) => &codes::VALIDATION_FAILED,
            _ => &codes::INTERNAL,
        };
        let answer = Self::new(code).caused_by(error);
        if code.status.as_u16() == 503 { answer.retry_after(RETRY_AFTER) } else { answer }
    }
}
