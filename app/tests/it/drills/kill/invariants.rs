//! What is true of the database at any moment, whatever was killed.

use mainstay::store::{Database, query};

/// Each counts what must not be there.
const NEVER: [(&str, &str); 7] = [
    ("an account without a profile", "SELECT count(*) AS n FROM users u LEFT JOIN profiles p ON p.user_id = u.id WHERE p.user_id IS NULL"),
    ("a profile without an account", "SELECT count(*) AS n FROM profiles p LEFT JOIN users u ON u.id = p.user_id WHERE u.id IS NULL"),
    ("two accounts of one address", "SELECT count(*) AS n FROM (SELECT email_folded FROM users GROUP BY email_folded HAVING count(*) > 1) AS twice"),
    ("a session without an account", "SELECT count(*) AS n FROM sessions s LEFT JOIN users u ON u.id = s.user_id WHERE u.id IS NULL"),
    (
        "a refresh token without a session",
        "SELECT count(*) AS n FROM refresh_tokens t LEFT JOIN sessions s ON s.id = t.session_id WHERE s.id IS NULL",
    ),
    (
        "a session that waits for no token or for two",
        "SELECT count(*) AS n FROM sessions s WHERE s.revoked_at IS NULL \
         AND (SELECT count(*) FROM refresh_tokens t WHERE t.session_id = s.id AND t.used_at IS NULL) <> 1",
    ),
    (
        "a session that was ended",
        "SELECT count(*) AS n FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.revoked_at IS NOT NULL AND u.email_folded <> 'forgetful@example.com'",
    ),
];

/// Asks for all of them.
pub(super) async fn nothing_is_half_there(database: &Database, place: &str) {
    for (what, text) in NEVER {
        assert_eq!(count(database, text).await, 0, "{place}: {what}");
    }
}

/// The column `n`.
pub(super) async fn count(database: &Database, text: &'static str) -> i64 {
    query(text).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap().get("n").unwrap()
}
