//! An empty queue of its own for each test, and a clock that is set by hand.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mainstay::clock::Clock;
use mainstay::jobs::{self, Enqueued, Job};
use mainstay::store::{Connection, Database, Dialect, Migrations, Settings, migrate, query};
use uuid::Uuid;

static TABLES: Migrations = Migrations(&[jobs::migration(1)]);

/// The same tests on both databases.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::ground::Ground::run(mainstay::store::Dialect::Postgres, super::$name).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::ground::Ground::run(mainstay::store::Dialect::Sqlite, super::$name).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// A queue and a clock.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) database: Database,
    now_us: Arc<AtomicI64>,
}

impl Ground {
    pub(crate) async fn run<F: Future<Output = ()> + Send + 'static>(dialect: Dialect, test: impl FnOnce(Ground) -> F) {
        if dialect == Dialect::Postgres && std::env::var("MAINSTAY_TEST_DATABASES").is_ok_and(|databases| databases == "sqlite") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let name = format!("jobs_{}", Uuid::new_v4().simple());
        let url = match dialect {
            Dialect::Sqlite => format!("sqlite:{}", folder.path().join("test.db").display()),
            Dialect::Postgres => {
                on_server(&format!("CREATE DATABASE {name}")).await;
                format!("{}/{name}", server_url().rsplit_once('/').unwrap().0)
            }
        };
        let mut settings = Settings::new(url);
        settings.pool_max = 6;
        settings.pool_min = 1;
        let database = Database::open(&settings).await.unwrap();
        migrate(&database, &TABLES).await.unwrap();
        let ground = Ground { database: database.clone(), now_us: Arc::new(AtomicI64::new(1_000_000_000_000_000)) };
        let outcome = tokio::spawn(test(ground)).await;
        database.close(Duration::from_secs(5)).await;
        if dialect == Dialect::Postgres {
            on_server(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
        if let Err(failure) = outcome {
            std::panic::resume_unwind(failure.into_panic());
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        let now_us = self.now_us.clone();
        Clock::from_fn(move || Timestamp::from_microsecond(now_us.load(Ordering::SeqCst)).unwrap())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock().now()
    }

    /// Time goes by.
    pub(crate) fn pass(&self, time: Duration) {
        self.now_us.fetch_add(i64::try_from(time.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) async fn writer(&self) -> Connection {
        self.database.writer(None).await.unwrap()
    }

    pub(crate) async fn enqueue(&self, job: &Job) -> Uuid {
        match jobs::enqueue(&mut *self.writer().await, job, self.now()).await.unwrap() {
            Enqueued::New(id) => id,
            Enqueued::Already => panic!("the event has its job already"),
        }
    }

    /// State, tries and whether there is a payload; nothing for a row that is gone.
    pub(crate) async fn job(&self, id: Uuid) -> Option<(String, i64, bool)> {
        let text = "SELECT state, attempts, CASE WHEN payload IS NULL THEN 0 ELSE 1 END AS whole FROM jobs WHERE id = $1";
        let row = query(text).bind(id).fetch_optional(&mut self.database.acquire(None).await.unwrap()).await.unwrap()?;
        Some((row.get("state").unwrap(), row.get("attempts").unwrap(), row.get::<i64>("whole").unwrap() == 1))
    }

    pub(crate) async fn state(&self, id: Uuid) -> String {
        self.job(id).await.map_or_else(|| "gone".to_owned(), |(state, ..)| state)
    }

    /// Rows of the table, those done with their keys included.
    pub(crate) async fn rows(&self) -> i64 {
        let mut session = self.database.acquire(None).await.unwrap();
        query("SELECT CAST(count(*) AS bigint) AS n FROM jobs").fetch_one(&mut session).await.unwrap().get("n").unwrap()
    }
}

fn server_url() -> String {
    let url = std::env::var("TEST_POSTGRES_URL")
        .expect("TEST_POSTGRES_URL is not set: name a PostgreSQL server, or set MAINSTAY_TEST_DATABASES=sqlite to leave it out");
    url.split('?').next().unwrap().to_owned()
}

async fn on_server(text: &str) {
    let mut settings = Settings::new(server_url());
    settings.pool_max = 1;
    settings.pool_min = 0;
    let database = Database::open(&settings).await.unwrap();
    query(text.to_owned()).once().execute(&mut database.writer(None).await.unwrap()).await.unwrap();
    database.close(Duration::from_secs(5)).await;
}

/// Waits until `holds` says yes, and fails after ten seconds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
