//! The store on real databases: the same tests on PostgreSQL and SQLite wherever both can do it.
//!
//! `TEST_POSTGRES_URL` names a PostgreSQL server on which databases may be created; without it the tests of
//! PostgreSQL fail and say so. `MAINSTAY_TEST_DATABASES=sqlite` leaves them out.
#![allow(clippy::unwrap_used, reason = "tests")]

use mainstay::store::*;
use mainstay::testing::{Fault, FaultProxy};
use secrecy::ExposeSecret as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How a test gets to a database.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Postgres,
    /// Through PgBouncer in transaction mode.
    Pooled,
    Sqlite,
}

/// An empty database of its own for one test.
struct Ground {
    settings: Settings,
    _directory: tempfile::TempDir,
    name: String,
}

impl Ground {
    async fn run<F: Future<Output = ()>>(way: Way, test: impl FnOnce(Arc<Ground>) -> F) {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("store_{}", Uuid::new_v4().simple());
        let url = match way {
            Way::Sqlite => format!("sqlite:{}", directory.path().join("inner/test.db").display()),
            Way::Postgres | Way::Pooled => {
                if std::env::var("MAINSTAY_TEST_DATABASES").is_ok_and(|databases| databases == "sqlite") {
                    return;
                }
                admin(&format!("CREATE DATABASE {name}")).await;
                named(&admin_url(), &name)
            }
        };
        let mut settings = Settings::new(if way == Way::Pooled { named(&pgbouncer("TEST_PGBOUNCER_URL"), &name) } else { url.clone() });
        settings.direct_url = (way == Way::Pooled).then(|| url.into());
        settings.pool_max = 4;
        settings.pool_min = 1;
        test(Arc::new(Ground { settings, _directory: directory, name: name.clone() })).await;
        if way != Way::Sqlite {
            admin(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }

    async fn open(&self) -> Database {
        Database::open(&self.settings).await.unwrap()
    }

    async fn open_with(&self, change: impl FnOnce(&mut Settings)) -> Database {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Database::open(&settings).await.unwrap()
    }

    /// Backends of this test's database in this state.
    async fn backends(&self, state: &str) -> i64 {
        let database = Database::open(&Settings::new(admin_url())).await.unwrap();
        let mut connection = database.acquire(None).await.unwrap();
        query("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = $1 AND state LIKE $2")
            .bind(&self.name)
            .bind(state)
            .fetch_one(&mut connection)
            .await
            .unwrap()
            .get("n")
            .unwrap()
    }

    async fn through(&self, proxy: &FaultProxy) -> Settings {
        let mut settings = self.settings.clone();
        let url = settings.url.expose_secret().replacen(&self.address().to_string(), &proxy.address().to_string(), 1);
        assert_ne!(&url, settings.url.expose_secret(), "TEST_POSTGRES_URL must name 127.0.0.1 and a port");
        settings.url = url.into();
        settings
    }

    /// Where its database, or the pooler before it, listens.
    fn address(&self) -> std::net::SocketAddr {
        let authority = self.settings.url.expose_secret().split("//").nth(1).unwrap().split('/').next().unwrap();
        authority.rsplit('@').next().unwrap().parse().expect("TEST_POSTGRES_URL must name 127.0.0.1 and a port")
    }

    fn is_pooled(&self) -> bool {
        self.settings.direct_url.is_some()
    }
}

/// A database of this name at the server of `url`.
fn named(url: &str, name: &str) -> String {
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

fn pgbouncer(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: scripts/test starts a PgBouncer, or set MAINSTAY_TEST_DATABASES=sqlite"))
}

fn admin_url() -> String {
    let url = std::env::var("TEST_POSTGRES_URL")
        .expect("TEST_POSTGRES_URL is not set: name a PostgreSQL server, or set MAINSTAY_TEST_DATABASES=sqlite to leave it out");
    url.split('?').next().unwrap().to_owned()
}

async fn admin(sql: &str) {
    let mut settings = Settings::new(admin_url());
    settings.pool_min = 0;
    let database = Database::open(&settings).await.unwrap();
    query(sql.to_owned()).once().execute(&mut database.writer(None).await.unwrap()).await.unwrap();
    database.close(Duration::from_secs(5)).await;
}

macro_rules! on {
    ($module:ident, $way:ident: $($name:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::Ground::run(super::Way::$way, super::$name).await;
            })*
        }
    };
}

macro_rules! on_both {
    ($($name:ident)*) => {
        on! { postgres, Postgres: $($name)* }
        on! { sqlite, Sqlite: $($name)* }
    };
}

on_both! {
    every_type_comes_back_as_it_was_bound
    any_value_comes_back_as_it_was_bound
    what_one_database_cannot_store_is_refused_on_both
    a_column_is_read_as_what_it_is_or_not_at_all
    constraints_have_the_same_names
    a_transaction_stands_after_commit_and_not_without
    a_failed_statement_dooms_the_transaction
    a_deferred_constraint_speaks_at_commit
    a_reader_does_not_write
    a_commit_after_the_deadline_commits_nothing
    sixty_four_tasks_share_a_pool_of_four
    a_full_pool_refuses_at_the_acquire_timeout_or_the_deadline
    an_endless_statement_stops_at_the_statement_timeout
    an_endless_statement_stops_at_the_deadline
    a_dropped_future_frees_its_connection_and_stops_its_query
    a_transaction_dropped_in_a_statement_leaves_nothing
    connections_are_kept_warm_and_idle_ones_closed
    close_waits_for_those_in_use
    writers_of_two_processes_wait_for_each_other
    migrations_apply_once_and_in_order
    migrations_that_changed_or_went_missing_are_refused
    a_newer_migration_is_tolerated
    a_failing_migration_leaves_no_trace
    ten_starts_at_once_apply_each_migration_once
    syntax_errors_are_told_from_outages
    the_pool_shows_in_the_metrics
}

on! { postgres_only, Postgres:
    closed_connections_cost_no_read_and_no_transaction
    a_read_only_database_is_read_from_and_written_to_by_every_connection_soon_after
    a_deadlock_is_a_conflict
    limits_of_the_server_are_read
    a_wrong_password_is_not_repeated
    a_silent_server_is_an_error_in_time_and_recovers
    a_refusing_server_is_an_error_in_time_and_recovers
    a_resetting_server_is_an_error_in_time_and_recovers
    a_slow_network_ends_at_the_deadline
    json_columns_of_both_kinds_are_read
    a_listener_hears_what_was_committed_and_nothing_else
}

on! { pooled, Pooled:
    every_type_comes_back_as_it_was_bound
    any_value_comes_back_as_it_was_bound
    what_one_database_cannot_store_is_refused_on_both
    constraints_have_the_same_names
    a_transaction_stands_after_commit_and_not_without
    a_failed_statement_dooms_the_transaction
    a_deferred_constraint_speaks_at_commit
    a_reader_does_not_write
    a_commit_after_the_deadline_commits_nothing
    sixty_four_tasks_share_a_pool_of_four
    a_full_pool_refuses_at_the_acquire_timeout_or_the_deadline
    an_endless_statement_stops_at_the_statement_timeout
    an_endless_statement_stops_at_the_deadline
    a_dropped_future_frees_its_connection_and_stops_its_query
    a_transaction_dropped_in_a_statement_leaves_nothing
    close_waits_for_those_in_use
    migrations_apply_once_and_in_order
    a_failing_migration_leaves_no_trace
    ten_starts_at_once_apply_each_migration_once
    syntax_errors_are_told_from_outages
    closed_connections_cost_no_read_and_no_transaction
    a_deadlock_is_a_conflict
    a_wrong_password_is_not_repeated
    a_silent_server_is_an_error_in_time_and_recovers
    a_refusing_server_is_an_error_in_time_and_recovers
    a_resetting_server_is_an_error_in_time_and_recovers
    a_slow_network_ends_at_the_deadline
    a_listener_hears_what_was_committed_and_nothing_else
    sixty_four_clients_share_four_connections_of_the_server
    a_pooler_with_nothing_to_lend_is_waited_for_as_long_as_the_pool
    every_statement_runs_under_our_limits_and_leaves_nothing
    a_direct_url_to_another_database_is_refused
}

on! { poolers, Postgres:
    a_pooler_that_nobody_declared_is_noticed
}

on! { sqlite_only, Sqlite:
    the_file_and_its_directory_are_for_the_owner_only
    readers_see_the_last_commit_while_a_write_is_open
}

const THINGS: Migration = Migration {
    version: 1,
    name: "things",
    postgres: "CREATE TABLE things (
        id bigint PRIMARY KEY, body text, big bigint, small integer, ratio double precision, truth boolean,
        key uuid, doc jsonb, at timestamptz)",
    sqlite: "CREATE TABLE things (
        id INTEGER PRIMARY KEY, body TEXT, big INTEGER, small INTEGER, ratio REAL, truth INTEGER,
        key TEXT, doc TEXT, at INTEGER)",
};

async fn with_things(ground: &Ground) -> Database {
    let database = ground.open().await;
    migrate(&database, &Migrations(&[THINGS])).await.unwrap();
    database
}

async fn insert(database: &Database, id: i64) {
    let mut writer = database.writer(None).await.unwrap();
    query("INSERT INTO things (id) VALUES ($1)").bind(id).execute(&mut writer).await.unwrap();
}

async fn count(database: &Database) -> i64 {
    let mut connection = database.acquire(None).await.unwrap();
    let row = query("SELECT count(*) AS n FROM things").fetch_one(&mut connection).await.unwrap();
    row.get("n").unwrap()
}

/// Waits for a condition, ten seconds at most.
async fn until<F: Future<Output = bool>>(what: &str, within: Duration, mut met: impl FnMut() -> F) {
    let end = Instant::now() + within;
    while !met().await {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A statement that runs for twenty seconds unless it is stopped.
fn endless(dialect: Dialect) -> Query {
    query(dialect.sql(
        "SELECT 1 AS n FROM pg_sleep(20)",
        "SELECT count(*) AS n FROM (WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t)",
    ))
}

async fn every_type_comes_back_as_it_was_bound(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let key = Uuid::new_v4();
    let at: jiff::Timestamp = "2026-02-03T04:05:06.789012Z".parse().unwrap();
    let doc = serde_json::json!({"tags": ["a", "b"], "n": 1.5, "none": null});
    let mut transaction = database.begin(None).await.unwrap();
    let inserted = query("INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .bind(1_i64)
        .bind("žluťoučký 🐎 'quoted'")
        .bind(i64::MIN)
        .bind(7_i32)
        .bind(-0.25)
        .bind(true)
        .bind(key)
        .bind(&doc)
        .bind(at)
        .execute(&mut transaction)
        .await
        .unwrap();
    assert_eq!(inserted, 1);
    let nulls = query("INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .bind(2_i64)
        .bind(None::<String>)
        .bind(None::<i64>)
        .bind(None::<i32>)
        .bind(None::<f64>)
        .bind(None::<bool>)
        .bind(None::<Uuid>)
        .bind(None::<serde_json::Value>)
        .bind(None::<jiff::Timestamp>);
    nulls.execute(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();

    let mut connection = database.acquire(None).await.unwrap();
    let rows = query("SELECT * FROM things ORDER BY id").fetch_all(&mut connection).await.unwrap();
    let (full, empty) = (&rows[0], &rows[1]);
    assert_eq!(full.get::<String>("body").unwrap(), "žluťoučký 🐎 'quoted'");
    assert_eq!(full.get::<i64>("big").unwrap(), i64::MIN);
    assert_eq!(full.get::<i32>("small").unwrap(), 7);
    assert_eq!(full.get::<i64>("small").unwrap(), 7);
    assert_eq!(full.get::<f64>("ratio").unwrap(), -0.25);
    assert!(full.get::<bool>("truth").unwrap());
    assert_eq!(full.get::<Uuid>("key").unwrap(), key);
    assert_eq!(full.get::<serde_json::Value>("doc").unwrap(), doc);
    assert_eq!(full.get::<Option<jiff::Timestamp>>("at").unwrap(), Some(at));
    #[derive(serde::Deserialize)]
    struct Doc {
        tags: Vec<String>,
    }
    assert_eq!(full.json::<Doc>("doc").unwrap().tags, ["a", "b"]);
    assert_eq!(empty.get::<Option<String>>("body").unwrap(), None);
    assert_eq!(empty.get::<Option<i64>>("big").unwrap(), None);
    assert_eq!(empty.get::<Option<f64>>("ratio").unwrap(), None);
    assert_eq!(empty.get::<Option<bool>>("truth").unwrap(), None);
    assert_eq!(empty.get::<Option<Uuid>>("key").unwrap(), None);
    assert_eq!(empty.get::<Option<serde_json::Value>>("doc").unwrap(), None);
    assert_eq!(empty.get::<Option<jiff::Timestamp>>("at").unwrap(), None);
    let found = query("SELECT id FROM things WHERE key = $1 AND at >= $2 AND truth = $3 AND big = $4")
        .bind(key)
        .bind(at)
        .bind(true)
        .bind(i64::MIN)
        .fetch_optional(&mut connection)
        .await
        .unwrap();
    assert_eq!(found.unwrap().get::<i64>("id").unwrap(), 1);
    let by_list = query(format!("SELECT id FROM things WHERE id IN ({})", placeholders(1, 2))).once().bind_all([Value::Int(2), Value::Int(3)]);
    assert_eq!(by_list.fetch_all(&mut connection).await.unwrap().len(), 1);
}

async fn any_value_comes_back_as_it_was_bound(ground: Arc<Ground>) {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[^\0]{0,12}".prop_map(Into::into),
    ];
    let json = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[^\0]{0,8}", inner, 0..4).prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    });
    // Years 1 to 9999.
    let at = (-62_135_596_800_000_000_i64..253_402_207_200_000_000).prop_map(jiff::Timestamp::from_microsecond);
    let ratio = any::<f64>().prop_filter("a number", |ratio| !ratio.is_nan());
    let strategy = ("[^\0]{0,64}", any::<i64>(), any::<i32>(), ratio, any::<bool>(), any::<u128>(), json, at);
    let mut runner = proptest::test_runner::TestRunner::default();

    let database = with_things(&ground).await;
    let mut transaction = database.begin(None).await.unwrap();
    for id in 0..200_i64 {
        let (body, big, small, ratio, truth, key, doc, at) = strategy.new_tree(&mut runner).unwrap().current();
        let (key, at) = (Uuid::from_u128(key), at.unwrap());
        query("INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(id)
            .bind(&body)
            .bind(big)
            .bind(small)
            .bind(ratio)
            .bind(truth)
            .bind(key)
            .bind(&doc)
            .bind(at)
            .execute(&mut transaction)
            .await
            .unwrap();
        let row = query("SELECT * FROM things WHERE id = $1").bind(id).fetch_one(&mut transaction).await.unwrap();
        assert_eq!(row.get::<String>("body").unwrap(), body);
        assert_eq!(row.get::<i64>("big").unwrap(), big);
        assert_eq!(row.get::<i32>("small").unwrap(), small);
        // As numbers: SQLite keeps no sign of a zero.
        assert_eq!(row.get::<f64>("ratio").unwrap(), ratio);
        assert_eq!(row.get::<bool>("truth").unwrap(), truth);
        assert_eq!(row.get::<Uuid>("key").unwrap(), key);
        assert_eq!(row.get::<serde_json::Value>("doc").unwrap(), doc);
        assert_eq!(row.get::<jiff::Timestamp>("at").unwrap(), at);
    }
    // Stored instants sort as instants.
    let rows = query("SELECT at FROM things ORDER BY at").fetch_all(&mut transaction).await.unwrap();
    assert!(rows.is_sorted_by_key(|row| row.get::<jiff::Timestamp>("at").unwrap()));
}

async fn what_one_database_cannot_store_is_refused_on_both(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let mut writer = database.writer(None).await.unwrap();
    let refused = [
        query("INSERT INTO things (id, body) VALUES (1, $1)").bind("a\0b"),
        query("INSERT INTO things (id, doc) VALUES (1, $1)").bind(serde_json::json!({"a": ["\0"]})),
        query("INSERT INTO things (id, doc) VALUES (1, $1)").bind(serde_json::json!({"\0": 1})),
        query("INSERT INTO things (id, ratio) VALUES (1, $1)").bind(f64::NAN),
    ];
    for query in refused {
        let error = query.clone().execute(&mut writer).await.unwrap_err();
        assert!(matches!(error, Error::Data(_)), "{query:?}: {error:?}");
    }
    // Six characters that only look like it are fine.
    let looks_like_it = serde_json::json!("\\u0000");
    query("INSERT INTO things (id, doc) VALUES (1, $1)").bind(looks_like_it).execute(&mut writer).await.unwrap();
}

async fn a_column_is_read_as_what_it_is_or_not_at_all(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let mut writer = database.writer(None).await.unwrap();
    query("INSERT INTO things (id, big, body) VALUES (1, $1, 'x')").bind(1_i64 << 40).execute(&mut writer).await.unwrap();
    let row = query("SELECT * FROM things").fetch_one(&mut writer).await.unwrap();
    let failures = [
        row.get::<String>("nope").unwrap_err(),
        row.get::<i32>("big").unwrap_err(),
        row.get::<i64>("body").unwrap_err(),
        row.get::<String>("big").unwrap_err(),
        row.get::<bool>("big").unwrap_err(),
        row.get::<Uuid>("body").unwrap_err(),
        row.get::<jiff::Timestamp>("body").unwrap_err(),
        row.get::<f64>("ratio").unwrap_err(),
    ];
    for failure in failures {
        assert!(matches!(failure, Error::Decode { .. }), "{failure:?}");
    }
    assert!(!format!("{row:?}").contains("'x'"), "a row shows no values");
    let none = query("SELECT id FROM things WHERE id = 99").fetch_one(&mut writer).await.unwrap_err();
    assert!(matches!(none, Error::NoRow), "{none:?}");
}

const USERS: Migration = Migration {
    version: 1,
    name: "users",
    postgres: "
        CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, age bigint,
            CONSTRAINT users_age_positive CHECK (age > 0));
        CREATE UNIQUE INDEX users_email_key ON users (lower(email));
        CREATE TABLE keys (owner bigint NOT NULL REFERENCES users (id) DEFERRABLE INITIALLY IMMEDIATE,
            name text NOT NULL, UNIQUE (owner, name));
        CREATE TABLE late (owner bigint REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED);",
    sqlite: "
        CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL, age INTEGER,
            CONSTRAINT users_age_positive CHECK (age > 0));
        CREATE UNIQUE INDEX users_email_key ON users (lower(email));
        CREATE TABLE keys (owner INTEGER NOT NULL REFERENCES users (id),
            name TEXT NOT NULL, UNIQUE (owner, name));
        CREATE TABLE late (owner INTEGER REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED);",
};

async fn constraints_have_the_same_names(ground: Arc<Ground>) {
    let database = ground.open().await;
    migrate(&database, &Migrations(&[USERS])).await.unwrap();
    let mut writer = database.writer(None).await.unwrap();
    query("INSERT INTO users (id, email) VALUES (1, 'Ann@example.org')").execute(&mut writer).await.unwrap();
    query("INSERT INTO keys (owner, name) VALUES (1, 'laptop')").execute(&mut writer).await.unwrap();
    let cases = [
        ("INSERT INTO users (id, email) VALUES (2, 'ann@EXAMPLE.org')", ConstraintKind::Unique, "users_email_key"),
        ("INSERT INTO users (id, email) VALUES (1, 'bob@example.org')", ConstraintKind::Unique, "users_pkey"),
        ("INSERT INTO users (id, email) VALUES (3, NULL)", ConstraintKind::NotNull, "users_email_not_null"),
        ("INSERT INTO users (id, email, age) VALUES (3, 'c', -1)", ConstraintKind::Check, "users_age_positive"),
        ("INSERT INTO keys (owner, name) VALUES (1, 'laptop')", ConstraintKind::Unique, "keys_owner_name_key"),
    ];
    for (sql, kind, name) in cases {
        let error = query(sql).execute(&mut writer).await.unwrap_err();
        assert_eq!(error.constraint(), Some((kind, name)), "{sql}: {error:?}");
        assert!(!format!("{error:?} {error}").contains("example"), "the error shows a row: {error:?}");
    }
    let orphan = query("INSERT INTO keys (owner, name) VALUES (9, 'x')").execute(&mut writer).await.unwrap_err();
    let name = database.dialect().sql("keys_owner_fkey", "");
    assert_eq!(orphan.constraint(), Some((ConstraintKind::ForeignKey, name)));
    // The connection is as good as before.
    query("INSERT INTO users (id, email) VALUES (4, 'd')").execute(&mut writer).await.unwrap();
}

async fn a_transaction_stands_after_commit_and_not_without(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let mut transaction = database.begin(None).await.unwrap();
    query("INSERT INTO things (id) VALUES (1)").execute(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(count(&database).await, 1);

    let mut transaction = database.begin(None).await.unwrap();
    query("INSERT INTO things (id) VALUES (2)").execute(&mut transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(count(&database).await, 1);

    let mut transaction = database.begin(None).await.unwrap();
    query("INSERT INTO things (id) VALUES (3)").execute(&mut transaction).await.unwrap();
    drop(transaction);
    // The next transaction may write the same row: the first one is gone, and its lock with it.
    let mut transaction = database.begin(None).await.unwrap();
    query("INSERT INTO things (id) VALUES (3)").execute(&mut transaction).await.unwrap();
    drop(transaction);
    assert_eq!(count(&database).await, 1);
    let stats = database.stats();
    assert!(stats.size <= stats.max, "{stats:?}");
}

async fn a_failed_statement_dooms_the_transaction(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    insert(&database, 1).await;
    let mut transaction = database.begin(None).await.unwrap();
    query("INSERT INTO things (id) VALUES (2)").execute(&mut transaction).await.unwrap();
    let error = query("INSERT INTO things (id) VALUES (1)").execute(&mut transaction).await.unwrap_err();
    assert!(error.is_unique("things_pkey"), "{error:?}");
    let after = query("SELECT id FROM things").fetch_all(&mut transaction).await.unwrap_err();
    assert!(matches!(after, Error::Misuse(_)), "{after:?}");
    let commit = transaction.commit().await.unwrap_err();
    assert!(matches!(commit, Error::Misuse(_)), "{commit:?}");
    assert_eq!(count(&database).await, 1);
    let mut transaction = database.begin(None).await.unwrap();
    query("INSERT INTO things (id) VALUES (2)").execute(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(count(&database).await, 2);
}

async fn a_deferred_constraint_speaks_at_commit(ground: Arc<Ground>) {
    let database = ground.open().await;
    migrate(&database, &Migrations(&[USERS])).await.unwrap();
    let mut transaction = database.begin(None).await.unwrap();
    query("INSERT INTO late (owner) VALUES (9)").execute(&mut transaction).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.constraint().map(|(kind, _)| kind), Some(ConstraintKind::ForeignKey));
    let mut transaction = database.begin(None).await.unwrap();
    let left = query("SELECT owner FROM late").fetch_all(&mut transaction).await.unwrap();
    assert!(left.is_empty());
}

async fn a_reader_does_not_write(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let mut connection = database.acquire(None).await.unwrap();
    let error = query("INSERT INTO things (id) VALUES (1)").execute(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::Misuse(_)), "{error:?}");
    drop(connection);
    assert_eq!(count(&database).await, 0);
}

async fn a_commit_after_the_deadline_commits_nothing(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let mut transaction = database.begin(Some(deadline)).await.unwrap();
    query("INSERT INTO things (id) VALUES (1)").execute(&mut transaction).await.unwrap();
    tokio::time::sleep_until(deadline.into()).await;
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed), "{error:?}");
    let mut transaction = database.begin(None).await.unwrap();
    let rows = query("SELECT id FROM things").fetch_all(&mut transaction).await.unwrap();
    assert!(rows.is_empty());
}

async fn sixty_four_tasks_share_a_pool_of_four(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let tasks: Vec<_> = (0..64_i64)
        .map(|task| {
            let database = database.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let id = task * 10 + round;
                    let mut transaction = database.begin(None).await.unwrap();
                    query("INSERT INTO things (id) VALUES ($1)").bind(id).execute(&mut transaction).await.unwrap();
                    transaction.commit().await.unwrap();
                    let mut connection = database.acquire(None).await.unwrap();
                    let row = query("SELECT id FROM things WHERE id = $1").bind(id).fetch_one(&mut connection).await;
                    assert_eq!(row.unwrap().get::<i64>("id").unwrap(), id);
                    assert!(database.stats().size <= database.stats().max);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(count(&database).await, 640);
    let stats = database.stats();
    assert_eq!((stats.in_use, stats.waiting), (0, 0), "{stats:?}");
}

async fn a_full_pool_refuses_at_the_acquire_timeout_or_the_deadline(ground: Arc<Ground>) {
    let acquire_timeout = Duration::from_millis(300);
    let database = ground.open_with(|settings| settings.acquire_timeout = acquire_timeout).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(database.acquire(None).await.unwrap());
    }
    let started = Instant::now();
    let (one, other) = tokio::join!(database.acquire(None), database.acquire(Some(Instant::now() + Duration::from_millis(100))));
    let waited = started.elapsed();
    assert!(matches!(one, Err(Error::AcquireTimeout { waited }) if waited >= acquire_timeout));
    assert!(matches!(other, Err(Error::DeadlinePassed)));
    assert!(waited < acquire_timeout + Duration::from_millis(250), "{waited:?}");
    let passed = database.acquire(Some(Instant::now() - Duration::from_millis(1))).await;
    assert!(matches!(passed, Err(Error::DeadlinePassed)));
    // A connection that comes back goes to the one who waits.
    let (waiting, ()) = tokio::join!(database.acquire(None), async { drop(held.pop()) });
    assert!(waiting.is_ok());
}

async fn an_endless_statement_stops_at_the_statement_timeout(ground: Arc<Ground>) {
    let limit = Duration::from_millis(300);
    let database = ground.open_with(|settings| settings.statement_timeout = limit).await;
    let mut connection = database.acquire(None).await.unwrap();
    let started = Instant::now();
    let error = endless(database.dialect()).fetch_one(&mut connection).await.unwrap_err();
    let took = started.elapsed();
    assert!(matches!(error, Error::StatementTimeout), "{error:?}");
    assert!(took >= limit && took < limit + Duration::from_millis(250), "{took:?}");
    // It was stopped in order, so the connection is good.
    query("SELECT 1 AS n").fetch_one(&mut connection).await.unwrap();
    let mut transaction = database.begin(None).await.unwrap();
    let error = endless(database.dialect()).fetch_one(&mut transaction).await.unwrap_err();
    assert!(matches!(error, Error::StatementTimeout), "{error:?}");
    transaction.rollback().await.unwrap();
    let _ = database.begin(None).await.unwrap();
}

async fn an_endless_statement_stops_at_the_deadline(ground: Arc<Ground>) {
    let database = ground.open().await;
    let started = Instant::now();
    let limit = Duration::from_millis(300);
    let mut connection = database.acquire(Some(started + limit)).await.unwrap();
    let error = endless(database.dialect()).fetch_one(&mut connection).await.unwrap_err();
    let took = started.elapsed();
    assert!(matches!(error, Error::DeadlinePassed), "{error:?}");
    assert!(took < limit + Duration::from_millis(250), "{took:?}");
    let error = query("SELECT 1").fetch_one(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed), "{error:?}");
    drop(connection);
    database.ping().await.unwrap();
    if database.dialect() == Dialect::Postgres {
        until("the query ends on the server", Duration::from_secs(2), || async { ground.backends("active").await == 0 }).await;
    }
}

async fn a_dropped_future_frees_its_connection_and_stops_its_query(ground: Arc<Ground>) {
    let database = ground.open().await;
    let dialect = database.dialect();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move {
                let mut connection = database.acquire(None).await.unwrap();
                endless(dialect).fetch_one(&mut connection).await.map(drop)
            })
        })
        .collect();
    until("four queries run", Duration::from_secs(5), || async {
        let busy = database.stats().in_use == 4;
        busy && (dialect == Dialect::Sqlite || ground.backends("active").await == 4)
    })
    .await;
    for client in &clients {
        client.abort();
    }
    let aborted = Instant::now();
    for client in clients {
        assert!(client.await.unwrap_err().is_cancelled());
    }
    // The pool is whole at once.
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut connection = database.acquire(None).await.unwrap();
        let row = query("SELECT 1 AS n").fetch_one(&mut connection).await.unwrap();
        assert!(row.get::<i64>("n").is_ok());
        all.push(connection);
    }
    assert!(aborted.elapsed() < Duration::from_secs(1), "{:?}", aborted.elapsed());
    if dialect == Dialect::Postgres {
        until("no query runs on the server", Duration::from_secs(2), || async { ground.backends("active").await == 0 }).await;
        assert!(ground.backends("%").await <= 4);
    } else {
        // Threads of SQLite that still computed would take the processor.
        until("no thread computes", Duration::from_secs(2), || async {
            let before = processor_time();
            tokio::time::sleep(Duration::from_millis(100)).await;
            processor_time() - before < Duration::from_millis(50)
        })
        .await;
    }
}

/// What this process has computed (proc_pid_stat(5), in ticks of 10 ms). Other tests compute as well, so wait for it.
fn processor_time() -> Duration {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if !name.starts_with("sqlx-sqlite") {
            continue;
        }
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        sum += fields.get(11).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_millis(sum * 10)
}

async fn a_transaction_dropped_in_a_statement_leaves_nothing(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let dialect = database.dialect();
    let inserted = Arc::new(tokio::sync::Notify::new());
    let client = tokio::spawn({
        let (database, inserted) = (database.clone(), Arc::clone(&inserted));
        async move {
            let mut transaction = database.begin(None).await.unwrap();
            query("INSERT INTO things (id) VALUES (1)").execute(&mut transaction).await.unwrap();
            inserted.notify_one();
            endless(dialect).fetch_one(&mut transaction).await.map(drop)
        }
    });
    inserted.notified().await;
    client.abort();
    // The same row can be written, so the lock and the row are gone.
    let deadline = Some(Instant::now() + Duration::from_secs(2));
    let mut transaction = database.begin(deadline).await.unwrap();
    query("INSERT INTO things (id) VALUES (1)").execute(&mut transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(count(&database).await, 0);
}

async fn connections_are_kept_warm_and_idle_ones_closed(ground: Arc<Ground>) {
    let database = ground
        .open_with(|settings| {
            settings.pool_min = 2;
            settings.idle_timeout = Duration::from_millis(100);
        })
        .await;
    // On SQLite the writer stands besides the readers.
    let extra = usize::from(database.dialect() == Dialect::Sqlite);
    until("two are warm", Duration::from_secs(5), || async { database.stats().size == 2 + extra }).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(database.acquire(None).await.unwrap());
    }
    let stats = database.stats();
    assert_eq!((stats.size, stats.in_use), (4 + extra, 4), "{stats:?}");
    drop(held);
    until("idle ones are closed", Duration::from_secs(5), || async { database.stats().size == 2 + extra }).await;
    database.ping().await.unwrap();
}

async fn close_waits_for_those_in_use(ground: Arc<Ground>) {
    let database = ground.open().await;
    let mut connection = database.acquire(None).await.unwrap();
    assert!(!database.close(Duration::from_millis(50)).await, "one is still in use");
    query("SELECT 1").fetch_one(&mut connection).await.unwrap();
    let refused = database.acquire(None).await.map(drop).unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    let (closed, ()) = tokio::join!(database.close(Duration::from_secs(5)), async { drop(connection) });
    assert!(closed);
    assert_eq!(database.stats().size, 0);
}

async fn writers_of_two_processes_wait_for_each_other(ground: Arc<Ground>) {
    let (one, other) = (with_things(&ground).await, ground.open().await);
    let tasks: Vec<_> = (0..20_i64)
        .map(|id| {
            let database = if id % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move {
                let mut transaction = database.begin(None).await.unwrap();
                let before = query("SELECT count(*) AS n FROM things").fetch_one(&mut transaction).await.unwrap();
                assert!(before.get::<i64>("n").unwrap() <= 20);
                query("INSERT INTO things (id) VALUES ($1)").bind(id).execute(&mut transaction).await.unwrap();
                transaction.commit().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(count(&one).await, 20);
}

const STEPS: &[Migration] = &[
    THINGS,
    Migration {
        version: 2,
        name: "log",
        postgres: "
            CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY, thing bigint);
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO log (thing) VALUES (NEW.id); -- a semicolon; and a 'quote'
                RETURN NEW;
            END $$;
            CREATE TRIGGER noted AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION note();",
        sqlite: "
            CREATE TABLE log (id INTEGER PRIMARY KEY, thing INTEGER);
            CREATE TRIGGER noted AFTER INSERT ON things BEGIN
                INSERT INTO log (thing) VALUES (NEW.id); -- a semicolon; and a 'quote'
            END;",
    },
    Migration {
        version: 10,
        name: "seed",
        postgres: "INSERT INTO things (id, body) VALUES (1, 'a;b'); INSERT INTO things (id) VALUES (2);",
        sqlite: "INSERT INTO things (id, body) VALUES (1, 'a;b'); INSERT INTO things (id) VALUES (2);",
    },
];

async fn migrations_apply_once_and_in_order(ground: Arc<Ground>) {
    let database = ground.open().await;
    let before = migration_status(&database, &Migrations(STEPS)).await.unwrap();
    assert!(before.iter().all(|status| status.state == MigrationState::Pending));
    assert_eq!(migrate(&database, &Migrations(&STEPS[..1])).await.unwrap().versions, [1]);
    assert_eq!(migrate(&database, &Migrations(STEPS)).await.unwrap().versions, [2, 10]);
    assert_eq!(migrate(&database, &Migrations(STEPS)).await.unwrap(), Applied::default());
    assert_eq!(count(&database).await, 2);
    let mut connection = database.acquire(None).await.unwrap();
    let logged = query("SELECT thing FROM log ORDER BY id").fetch_all(&mut connection).await.unwrap();
    assert_eq!(logged.len(), 2, "the trigger works");
    let after = migration_status(&database, &Migrations(STEPS)).await.unwrap();
    assert!(after.iter().all(|status| matches!(status.state, MigrationState::Applied(_))), "{after:?}");
}

async fn migrations_that_changed_or_went_missing_are_refused(ground: Arc<Ground>) {
    let database = ground.open().await;
    migrate(&database, &Migrations(STEPS)).await.unwrap();
    let changed: &[Migration] = Box::leak(Box::new([Migration { postgres: "SELECT 2", sqlite: "SELECT 2", ..STEPS[0] }, STEPS[1], STEPS[2]]));
    let error = migrate(&database, &Migrations(changed)).await.unwrap_err();
    assert!(matches!(error, MigrateError::Changed { version: 1, .. }), "{error:?}");
    let status = migration_status(&database, &Migrations(changed)).await.unwrap();
    assert_eq!(status[0].state, MigrationState::Changed);
    let gap: &[Migration] = Box::leak(Box::new([STEPS[0], STEPS[2]]));
    let error = migrate(&database, &Migrations(gap)).await.unwrap_err();
    assert!(matches!(error, MigrateError::Unknown { version: 2, .. }), "{error:?}");
    let late: &[Migration] = Box::leak(Box::new([STEPS[0], STEPS[1], Migration { version: 5, ..STEPS[2] }, STEPS[2]]));
    let error = migrate(&database, &Migrations(late)).await.unwrap_err();
    assert!(matches!(error, MigrateError::OutOfOrder { version: 5, applied: 10 }), "{error:?}");
    let unsorted: &[Migration] = Box::leak(Box::new([STEPS[1], STEPS[0]]));
    let error = migrate(&database, &Migrations(unsorted)).await.unwrap_err();
    assert!(matches!(error, MigrateError::Unsorted { version: 1 }), "{error:?}");
}

async fn a_newer_migration_is_tolerated(ground: Arc<Ground>) {
    let database = ground.open().await;
    migrate(&database, &Migrations(STEPS)).await.unwrap();
    let applied = migrate(&database, &Migrations(&STEPS[..2])).await.unwrap();
    assert_eq!(applied, Applied { versions: vec![], newer: vec![10] });
    let status = migration_status(&database, &Migrations(&STEPS[..2])).await.unwrap();
    assert_eq!(status.last().unwrap().state, MigrationState::Newer);
}

async fn a_failing_migration_leaves_no_trace(ground: Arc<Ground>) {
    const BROKEN: Migration = Migration {
        version: 2,
        name: "broken",
        postgres: "CREATE TABLE half (id bigint); INSERT INTO nowhere VALUES (1);",
        sqlite: "CREATE TABLE half (id INTEGER); INSERT INTO nowhere VALUES (1);",
    };
    let database = ground.open().await;
    let error = migrate(&database, &Migrations(&[THINGS, BROKEN])).await.unwrap_err();
    assert!(error.to_string().contains("2 broken"), "{error}");
    let status = migration_status(&database, &Migrations(&[THINGS, BROKEN])).await.unwrap();
    assert!(matches!(status[0].state, MigrationState::Applied(_)));
    assert_eq!(status[1].state, MigrationState::Pending);
    let mut transaction = database.begin(None).await.unwrap();
    query("SELECT id FROM half").fetch_all(&mut transaction).await.unwrap_err();
}

async fn ten_starts_at_once_apply_each_migration_once(ground: Arc<Ground>) {
    let total = Arc::new(AtomicU64::new(0));
    let starts: Vec<_> = (0..10)
        .map(|_| {
            let (ground, total) = (Arc::clone(&ground), Arc::clone(&total));
            tokio::spawn(async move {
                // A pool of its own, as another process would have.
                let database = ground.open().await;
                let applied = migrate(&database, &Migrations(STEPS)).await.unwrap();
                total.fetch_add(applied.versions.len() as u64, Ordering::Relaxed);
            })
        })
        .collect();
    for start in starts {
        start.await.unwrap();
    }
    assert_eq!(total.load(Ordering::Relaxed), 3);
    assert_eq!(count(&ground.open().await).await, 2);
}

async fn syntax_errors_are_told_from_outages(ground: Arc<Ground>) {
    let database = ground.open().await;
    let mut connection = database.acquire(None).await.unwrap();
    let error = query("SELEC 1").fetch_one(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::Other(_)), "{error:?}");
    query("SELECT 1").fetch_one(&mut connection).await.unwrap();
}

async fn the_pool_shows_in_the_metrics(ground: Arc<Ground>) {
    static RECORDER: std::sync::OnceLock<metrics_exporter_prometheus::PrometheusHandle> = std::sync::OnceLock::new();
    let handle = RECORDER.get_or_init(|| metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap());
    let database = ground
        .open_with(|settings| {
            settings.acquire_timeout = Duration::from_millis(200);
            settings.statement_timeout = Duration::from_millis(200);
        })
        .await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(database.acquire(None).await.unwrap());
    }
    database.acquire(None).await.unwrap_err();
    endless(database.dialect()).fetch_one(&mut held[0]).await.unwrap_err();
    database.record_metrics();
    let text = handle.render();
    let pool = database.dialect().sql("main", "reader");
    // Tests of the same process share the counters, but not this pool's gauges: no other one is recorded.
    assert!(text.contains(&format!("mainstay_db_pool_in_use{{pool=\"{pool}\"}} 4")), "{text}");
    for name in [
        "mainstay_db_pool_size",
        "mainstay_db_pool_idle",
        "mainstay_db_pool_waiting",
        "mainstay_db_acquired_total",
        "mainstay_db_acquire_timeouts_total",
        "mainstay_db_acquire_seconds",
        "mainstay_db_connections_opened_total",
        "mainstay_db_statement_timeouts_total",
    ] {
        assert!(text.contains(name), "{name} is missing: {text}");
    }
}

async fn terminate_all(ground: &Ground) {
    admin(&format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'", ground.name)).await;
}

async fn closed_connections_cost_no_read_and_no_transaction(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    for round in 0..5 {
        // All four were just used, so none is checked when it is acquired.
        let mut all = Vec::new();
        for _ in 0..4 {
            let mut connection = database.acquire(None).await.unwrap();
            query("SELECT 1").fetch_one(&mut connection).await.unwrap();
            all.push(connection);
        }
        drop(all);
        terminate_all(&ground).await;
        if round % 2 == 0 {
            assert_eq!(count(&database).await, round);
            insert(&database, round).await;
        } else {
            let mut transaction = database.begin(None).await.unwrap();
            query("INSERT INTO things (id) VALUES ($1)").bind(round).execute(&mut transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
    }
    // One that is held when it dies is an outage for its holder, and for nobody else.
    let mut transaction = database.begin(None).await.unwrap();
    terminate_all(&ground).await;
    let error = query("SELECT 1").fetch_one(&mut transaction).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    drop(transaction);
    assert_eq!(count(&database).await, 5);
}

/// Connections stay as read-only as they were made. Whoever writes after that time must not meet them one after the other.
async fn a_read_only_database_is_read_from_and_written_to_by_every_connection_soon_after(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let all = async || {
        let mut all = Vec::new();
        for _ in 0..4 {
            let mut connection = database.writer(None).await.unwrap();
            query("SELECT 1").fetch_one(&mut connection).await.unwrap();
            all.push(connection);
        }
        all
    };
    admin(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", ground.name)).await;
    terminate_all(&ground).await;
    let mut connections = all().await;
    for (connection, id) in connections.iter_mut().zip(0_i64..) {
        let error = query("INSERT INTO things (id) VALUES ($1)").bind(id).execute(connection).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(cause) if cause.code.as_deref() == Some("25006")), "{error:?}");
        query("SELECT 1").fetch_one(connection).await.unwrap();
    }
    drop(connections);
    admin(&format!("ALTER DATABASE {} RESET default_transaction_read_only", ground.name)).await;
    // Looked at by reads alone: nobody has to be refused for it.
    let writable = "SELECT current_setting('transaction_read_only') AS setting";
    until("it is found out", Duration::from_secs(2), || async {
        let row = query(writable).fetch_one(&mut database.writer(None).await.unwrap()).await.unwrap();
        row.get::<String>("setting").unwrap() == "off"
    })
    .await;
    for (connection, id) in all().await.iter_mut().zip(0_i64..) {
        query("INSERT INTO things (id) VALUES ($1)").bind(id).execute(connection).await.unwrap();
    }
    assert_eq!(count(&database).await, 4);
}

async fn a_deadlock_is_a_conflict(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    insert(&database, 1).await;
    insert(&database, 2).await;
    let touch = |id: i64| query("UPDATE things SET body = 'x' WHERE id = $1").bind(id);
    let (mut one, mut other) = (database.begin(None).await.unwrap(), database.begin(None).await.unwrap());
    touch(1).execute(&mut one).await.unwrap();
    touch(2).execute(&mut other).await.unwrap();
    let (first, second) = tokio::join!(
        async {
            let result = touch(2).execute(&mut one).await;
            drop(one);
            result
        },
        async {
            let result = touch(1).execute(&mut other).await;
            drop(other);
            result
        }
    );
    let lost = first.err().or(second.err()).unwrap();
    assert!(matches!(lost, Error::Conflict(_)), "{lost:?}");
}

async fn limits_of_the_server_are_read(ground: Arc<Ground>) {
    let limits = ground.open().await.connection_limits().await.unwrap().unwrap();
    assert!(limits.max_connections > limits.reserved && limits.reserved > 0, "{limits:?}");
    assert!(check_arithmetic(Server::Alone, 1_000, 20, limits).is_err());
}

async fn a_wrong_password_is_not_repeated(ground: Arc<Ground>) {
    let url = ground.settings.url.expose_secret();
    let (_, rest) = url.split_once("//").unwrap();
    let host = rest.rsplit('@').next().unwrap();
    let mut settings = ground.settings.clone();
    settings.url = format!("postgres://nobody-here:hunter2@{host}").into();
    let error = Database::open(&settings).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(!format!("{error:?} {settings:?}").contains("hunter2"));
}

/// Every kind of use fails in time while the fault lasts, and works within a second after it.
async fn survives(ground: &Ground, fault: Fault) {
    let proxy = FaultProxy::start(ground.address()).await.unwrap();
    let mut settings = ground.through(&proxy).await;
    settings.acquire_timeout = Duration::from_secs(2);
    settings.statement_timeout = Duration::from_secs(2);
    let bound = settings.acquire_timeout + Duration::from_millis(250);
    let database = Database::open(&settings).await.unwrap();
    let read = async |database: &Database| {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut connection = database.acquire(Some(deadline)).await?;
        query("SELECT 1").fetch_one(&mut connection).await.map(drop)
    };
    read(&database).await.unwrap();
    proxy.set(fault);
    for _ in 0..2 {
        let started = Instant::now();
        let attempts: Vec<_> = (0..8)
            .map(|_| {
                let database = database.clone();
                tokio::spawn(async move { read(&database).await })
            })
            .collect();
        for attempt in attempts {
            let error = attempt.await.unwrap().unwrap_err();
            let expected = matches!(error, Error::Unavailable(_) | Error::AcquireTimeout { .. } | Error::DeadlinePassed);
            assert!(expected, "{error:?}");
        }
        assert!(started.elapsed() < bound, "{:?}", started.elapsed());
    }
    proxy.set(Fault::Ok);
    let back = Instant::now();
    until("the service recovers", Duration::from_secs(1), || async { read(&database).await.is_ok() }).await;
    for _ in 0..20 {
        read(&database).await.unwrap();
    }
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    let stats = database.stats();
    assert_eq!((stats.in_use, stats.waiting), (0, 0), "{stats:?}");
    drop(database);
    drop(proxy);
    // A pooler keeps its own.
    let left = if ground.is_pooled() { "% transaction%" } else { "%" };
    until("no connection is left behind", Duration::from_secs(3), || async { ground.backends(left).await == 0 }).await;
}

async fn a_silent_server_is_an_error_in_time_and_recovers(ground: Arc<Ground>) {
    survives(&ground, Fault::Blackhole).await;
}

async fn a_refusing_server_is_an_error_in_time_and_recovers(ground: Arc<Ground>) {
    survives(&ground, Fault::Refuse).await;
}

async fn a_resetting_server_is_an_error_in_time_and_recovers(ground: Arc<Ground>) {
    survives(&ground, Fault::Reset).await;
}

async fn a_slow_network_ends_at_the_deadline(ground: Arc<Ground>) {
    let proxy = FaultProxy::start(ground.address()).await.unwrap();
    let database = Database::open(&ground.through(&proxy).await).await.unwrap();
    // A new connection takes half a dozen turns, and a ping has a second for it.
    let latency = Duration::from_millis(40);
    proxy.set(Fault::Latency(latency));
    let started = Instant::now();
    let mut connection = database.acquire(Some(started + latency)).await.unwrap();
    let error = query("SELECT 1").fetch_one(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed), "{error:?}");
    assert!(started.elapsed() < latency * 10, "{:?}", started.elapsed());
    drop(connection);
    let started = Instant::now();
    database.ping().await.unwrap();
    assert!(started.elapsed() >= latency * 2, "the proxy holds data back in both directions");
}

async fn json_columns_of_both_kinds_are_read(ground: Arc<Ground>) {
    let database = ground.open().await;
    let mut connection = database.acquire(None).await.unwrap();
    let row = query("SELECT '[1]'::json AS a, '[1]'::jsonb AS b, 'x'::varchar AS c, 1::smallint AS d, 1.5::real AS e")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row.json::<Vec<i64>>("a").unwrap(), row.json::<Vec<i64>>("b").unwrap());
    assert_eq!(row.get::<String>("c").unwrap(), "x");
    assert_eq!(row.get::<i32>("d").unwrap(), 1);
    assert_eq!(row.get::<f64>("e").unwrap(), 1.5);
}

async fn the_file_and_its_directory_are_for_the_owner_only(ground: Arc<Ground>) {
    use std::os::unix::fs::PermissionsExt as _;
    let database = with_things(&ground).await;
    let path = std::path::PathBuf::from(ground.settings.url.expose_secret().strip_prefix("sqlite:").unwrap());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
    assert!(database.connection_limits().await.unwrap().is_none());
}

async fn readers_see_the_last_commit_while_a_write_is_open(ground: Arc<Ground>) {
    let database = with_things(&ground).await;
    let mut transaction = database.begin(None).await.unwrap();
    query("INSERT INTO things (id) VALUES (1)").execute(&mut transaction).await.unwrap();
    assert_eq!(count(&database).await, 0);
    transaction.commit().await.unwrap();
    assert_eq!(count(&database).await, 1);
    // Even a write that slips through as a read is refused by a reader.
    let mut connection = database.acquire(None).await.unwrap();
    query("INSERT INTO things (id) VALUES (2) RETURNING id").fetch_one(&mut connection).await.unwrap_err();
}

async fn a_listener_hears_what_was_committed_and_nothing_else(ground: Arc<Ground>) {
    let database = ground.open().await;
    let mut listener = database.listen(&["news", "other"]).await.unwrap();
    let tell = |text: &'static str| query("SELECT pg_notify('news', $1)::text AS told").bind(text);
    let mut kept = database.begin(None).await.unwrap();
    tell("kept").fetch_one(&mut kept).await.unwrap();
    let mut dropped = database.begin(None).await.unwrap();
    tell("dropped").fetch_one(&mut dropped).await.unwrap();
    dropped.rollback().await.unwrap();
    let soon = || Instant::now() + Duration::from_secs(10);
    // An answer after the notification was sent, and nothing heard: it is not here before the commit.
    listener.server(soon()).await.unwrap();
    assert_eq!(listener.waiting(), None);
    kept.commit().await.unwrap();
    assert_eq!(listener.next(soon()).await.unwrap(), Some(("news".to_owned(), "kept".to_owned())));
    query("SELECT pg_notify('other', 'heard')::text AS told").fetch_one(&mut database.writer(None).await.unwrap()).await.unwrap();
    assert_eq!(listener.next(soon()).await.unwrap(), Some(("other".to_owned(), "heard".to_owned())));
    assert_eq!(listener.next(Instant::now()).await.unwrap(), None);
    let end = "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    query(end).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
    assert!(matches!(listener.next(soon()).await, Err(Error::Unavailable(_))), "a connection that was lost is not replaced in silence");
}

async fn sixty_four_clients_share_four_connections_of_the_server(ground: Arc<Ground>) {
    drop(with_things(&ground).await);
    let database = ground.open_with(|settings| settings.pool_max = 64).await;
    let tasks: Vec<_> = (0..64_i64)
        .map(|task| {
            let database = database.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let id = task * 10 + round;
                    // The same texts from everybody, with other values and results: a statement kept by another client would be met here.
                    insert(&database, id).await;
                    let mut connection = database.acquire(None).await.unwrap();
                    let row = query("SELECT id, body FROM things WHERE id = $1").bind(id).fetch_one(&mut connection).await.unwrap();
                    assert_eq!(row.get::<i64>("id").unwrap(), id);
                    drop(connection);
                    let mut transaction = database.begin(None).await.unwrap();
                    let text = format!("UPDATE things SET body = $1, small = {} WHERE id = $2", task % 3);
                    assert_eq!(query(text).bind("x").bind(id).execute(&mut transaction).await.unwrap(), 1);
                    if round == 0 { drop(transaction) } else { transaction.commit().await.unwrap() }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut connection = database.acquire(None).await.unwrap();
    let row = query("SELECT count(*) AS n, count(body) AS changed FROM things").fetch_one(&mut connection).await.unwrap();
    assert_eq!((row.get::<i64>("n").unwrap(), row.get::<i64>("changed").unwrap()), (640, 576));
    assert!(database.stats().size > 4, "more connections to the pooler than it has to the server: {:?}", database.stats());
    assert!(ground.backends("%").await <= 4);
    until("nothing is left in a transaction", Duration::from_secs(5), || async { ground.backends("idle in%").await == 0 }).await;
}

async fn a_pooler_with_nothing_to_lend_is_waited_for_as_long_as_the_pool(ground: Arc<Ground>) {
    let patience = Duration::from_millis(400);
    let database = ground
        .open_with(|settings| {
            settings.pool_max = 8;
            settings.acquire_timeout = patience;
        })
        .await;
    let mut lent = Vec::new();
    for _ in 0..4 {
        lent.push(database.begin(None).await.unwrap());
    }
    let started = Instant::now();
    let refused = query("SELECT 1").fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap_err();
    assert!(matches!(refused, Error::AcquireTimeout { .. }), "{refused:?}");
    let deadline = Some(Instant::now() + patience / 4);
    let refused = database.begin(deadline).await.unwrap_err();
    assert!(matches!(refused, Error::DeadlinePassed), "{refused:?}");
    let took = started.elapsed();
    assert!(took >= patience && took < patience * 2 + Duration::from_millis(250), "{took:?}");
    drop(lent);
    until("what was lent is back", Duration::from_secs(5), || async { database.ping().await.is_ok() }).await;
    assert_eq!(ground.backends("active").await, 0);
}

async fn every_statement_runs_under_our_limits_and_leaves_nothing(ground: Arc<Ground>) {
    let database = ground.open_with(|settings| settings.statement_timeout = Duration::from_millis(12_345)).await;
    assert!(database.limits_hold());
    let limits = "SELECT current_setting('statement_timeout') AS statement, current_setting('idle_in_transaction_session_timeout') AS idle,
                         current_setting('client_connection_check_interval') AS watch";
    let expected = ["12345ms", "24690ms", "500ms"].map(str::to_owned);
    let read = |row: &Row| ["statement", "idle", "watch"].map(|name| row.get::<String>(name).unwrap());
    for _ in 0..8 {
        let row = query(limits).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
        assert_eq!(read(&row), expected);
        let mut transaction = database.begin(None).await.unwrap();
        assert_eq!(read(&query(limits).fetch_one(&mut transaction).await.unwrap()), expected);
        // Whatever fails alone leaves the connection as good as it was.
        let error = query("SELECT 1 / $1").bind(0_i64).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::Data(_)), "{error:?}");
    }
    // Another client of the same pooler finds neither a setting nor a statement of ours.
    let mut settings = ground.settings.clone();
    settings.statement_timeout = Duration::from_millis(777);
    let other = Database::open(&settings).await.unwrap();
    let row = query(limits).fetch_one(&mut other.acquire(None).await.unwrap()).await.unwrap();
    assert_eq!(read(&row)[0], "777ms");
    let prepared = query("SELECT count(*) AS n FROM pg_prepared_statements").fetch_one(&mut other.acquire(None).await.unwrap()).await.unwrap();
    assert_eq!(prepared.get::<i64>("n").unwrap(), 0);
    assert_eq!(ground.backends("idle in%").await, 0);
}

async fn a_direct_url_to_another_database_is_refused(ground: Arc<Ground>) {
    let mut settings = ground.settings.clone();
    settings.direct_url = Some(admin_url().into());
    let error = Database::open(&settings).await.unwrap_err();
    assert!(matches!(&error, Error::Configuration(words) if words.contains("different databases")), "{error:?}");
}

async fn a_pooler_that_nobody_declared_is_noticed(ground: Arc<Ground>) {
    assert!(ground.open().await.limits_hold(), "nothing stands in between");
    let mut settings = ground.settings.clone();
    settings.url = named(&pgbouncer("TEST_PGBOUNCER_SESSION_URL"), &ground.name).into();
    assert!(!Database::open(&settings).await.unwrap().limits_hold(), "it drops what it does not know");
    settings.url = named(&pgbouncer("TEST_PGBOUNCER_URL"), &ground.name).into();
    let error = Database::open(&settings).await.unwrap_err();
    assert!(error.to_string().contains("DATABASE_POOLER"), "{error:?}");
}
