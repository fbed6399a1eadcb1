//! The schema, embedded. Forward only: a new version is a new file in both folders, and the previous release must work beside it.

use mainstay::jobs;
use mainstay::store::{Migration, Migrations};

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            postgres: include_str!(concat!("../migrations/postgres/", stringify!($version), "_", $name, ".sql")),
            sqlite: include_str!(concat!("../migrations/sqlite/", stringify!($version), "_", $name, ".sql")),
        }
    };
}

/// Every version, in order. The table of jobs is the foundation's.
#[allow(clippy::zero_prefixed_literal)] // The number is the name of a file.
pub static MIGRATIONS: Migrations = Migrations(&[
    migration!(0001, "accounts"),
    migration!(0002, "products"),
    jobs::migration(0003),
    migration!(0004, "sessions"),
    migration!(0005, "audit"),
    migration!(0006, "one_time"),
    migration!(0007, "second_factors"),
    migration!(0008, "api_keys"),
]);
