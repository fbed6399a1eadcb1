//! Which constraint a refused write ran into, with the same name on both databases.

use sqlx::postgres::PgDatabaseError;

/// What a constraint demands.
///
/// PostgreSQL reports the constraint's name, SQLite mostly its columns. Both become the same name by one rule, which
/// is PostgreSQL's own way of naming, so a migration keeps to it and the code compares one string:
///
/// | constraint | name |
/// |---|---|
/// | `UNIQUE (a, b)` on `t`, unique index on plain columns | `t_a_b_key`; an index must be given that name on PostgreSQL |
/// | unique index on an expression such as `lower(email)` | the index's name, which must be the same on both |
/// | `PRIMARY KEY` of `t` | `t_pkey` |
/// | `a NOT NULL` of `t` | `t_a_not_null` |
/// | `CHECK` | its name: always write `CONSTRAINT name CHECK (...)` |
/// | foreign key | its name on PostgreSQL; empty on SQLite, which does not tell |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstraintKind {
    /// A unique constraint, a unique index or a primary key.
    Unique,
    /// A foreign key.
    ForeignKey,
    /// A check.
    Check,
    /// A column that must have a value.
    NotNull,
    /// An exclusion constraint (PostgreSQL only).
    Exclusion,
}

/// The constraint that PostgreSQL names in an error of class 23.
pub(super) fn from_postgres(error: &PgDatabaseError) -> Option<(ConstraintKind, String)> {
    let name = || error.constraint().unwrap_or_default().to_owned();
    Some(match error.code() {
        "23505" => (ConstraintKind::Unique, name()),
        "23503" => (ConstraintKind::ForeignKey, name()),
        "23514" => (ConstraintKind::Check, name()),
        "23P01" => (ConstraintKind::Exclusion, name()),
        "23502" => {
            let (table, column) = (error.table().unwrap_or_default(), error.column().unwrap_or_default());
            (ConstraintKind::NotNull, format!("{table}_{column}_not_null"))
        }
        _ => return None,
    })
}

/// The constraint that SQLite describes in a message such as `UNIQUE constraint failed: users.email`.
///
/// `code` is SQLite's extended result code (sqlite.org/rescode.html).
pub(super) fn from_sqlite(code: u32, message: &str) -> Option<(ConstraintKind, String)> {
    let subject = message.split_once("constraint failed: ").map_or("", |(_, subject)| subject);
    Some(match code {
        // SQLITE_CONSTRAINT_PRIMARYKEY and _ROWID.
        1555 | 2579 => {
            let table = subject.split('.').next().unwrap_or_default();
            (ConstraintKind::Unique, format!("{table}_pkey"))
        }
        2067 => (ConstraintKind::Unique, unique_name(subject)),
        1299 => (ConstraintKind::NotNull, format!("{}_not_null", subject.replace('.', "_"))),
        787 => (ConstraintKind::ForeignKey, String::new()),
        275 => (ConstraintKind::Check, subject.to_owned()),
        _ => return None,
    })
}

/// `index 'name'` for an index on expressions, else `t.a, t.b`.
fn unique_name(subject: &str) -> String {
    if let Some(index) = subject.strip_prefix("index '") {
        return index.trim_end_matches('\'').to_owned();
    }
    let mut name = String::new();
    for (position, column) in subject.split(", ").enumerate() {
        let (table, column) = column.split_once('.').unwrap_or(("", column));
        if position == 0 {
            name.push_str(table);
        }
        name.push('_');
        name.push_str(column);
    }
    name.push_str("_key");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_messages_become_the_names_postgresql_would_give() {
        let cases = [
            (2067, "UNIQUE constraint failed: users.email", ConstraintKind::Unique, "users_email_key"),
            (2067, "UNIQUE constraint failed: keys.owner, keys.name", ConstraintKind::Unique, "keys_owner_name_key"),
            (2067, "UNIQUE constraint failed: index 'users_email_key'", ConstraintKind::Unique, "users_email_key"),
            (1555, "UNIQUE constraint failed: users.id", ConstraintKind::Unique, "users_pkey"),
            (1299, "NOT NULL constraint failed: users.email", ConstraintKind::NotNull, "users_email_not_null"),
            (275, "CHECK constraint failed: price_positive", ConstraintKind::Check, "price_positive"),
            (787, "FOREIGN KEY constraint failed", ConstraintKind::ForeignKey, ""),
        ];
        for (code, message, kind, name) in cases {
            assert_eq!(from_sqlite(code, message), Some((kind, name.to_owned())), "{message}");
        }
        assert_eq!(from_sqlite(1, "no such table: users"), None);
    }
}
