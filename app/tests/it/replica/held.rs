//! The replica beside the test server, held by one test at a time.

use std::time::Duration;

use mainstay::store::{self, Connection, Database, query};
use mainstay::testing::FaultProxy;

use super::PATIENCE;
use crate::ground::{Ground, address, server_url, within};

/// Names the lock of [`Replica`] on the test server.
const LOCK: i64 = 7_351_992;

/// The replica's server, as its superuser.
pub(crate) fn replica_url() -> String {
    let url = std::env::var("TEST_POSTGRES_REPLICA_URL").expect(
        "TEST_POSTGRES_REPLICA_URL is not set: name a streaming replica of the server of TEST_POSTGRES_URL, as scripts/test does, or set \
         MAINSTAY_TEST_DATABASES=sqlite to leave PostgreSQL out",
    );
    url.split('?').next().unwrap().to_owned()
}

/// The replica, held by one test at a time: what is paused is paused for all.
pub(crate) struct Replica {
    server: Database,
    _lock: Connection,
}

impl Replica {
    pub(crate) async fn hold() -> Replica {
        let open = async |url: String| {
            let mut settings = store::Settings::new(url);
            settings.pool_max = 1;
            settings.pool_min = 0;
            settings.statement_timeout = Duration::from_secs(600);
            Database::open(&settings).await.unwrap()
        };
        // First: its failure is the clearest.
        let server = open(replica_url()).await;
        let mut lock = open(server_url()).await.acquire(None).await.unwrap();
        query("SELECT 1 AS one FROM pg_advisory_lock($1)").bind(LOCK).fetch_one(&mut lock).await.unwrap();
        let replica = Replica { server, _lock: lock };
        // A test that failed may have left it paused.
        replica.resume().await;
        replica
    }

    async fn ask(&self, text: &'static str) -> i64 {
        query(text).fetch_one(&mut self.server.acquire(None).await.unwrap()).await.unwrap().get("n").unwrap()
    }

    /// From now on it shows what it shows.
    pub(crate) async fn pause(&self) {
        self.ask("SELECT 1::bigint AS n FROM pg_wal_replay_pause()").await;
        let paused = "SELECT count(*) AS n WHERE pg_get_wal_replay_pause_state() = 'paused'";
        within(PATIENCE, "replay is paused", || async { self.ask(paused).await == 1 }).await;
    }

    pub(crate) async fn resume(&self) {
        self.ask("SELECT 1::bigint AS n FROM pg_wal_replay_resume()").await;
    }
}

/// The ground's database on the replica, by way of this address.
pub(crate) fn on_replica(ground: &Ground, through: Option<&FaultProxy>) -> String {
    let url = format!("{}/{}", replica_url().rsplit_once('/').unwrap().0, ground.name());
    match through {
        Some(proxy) => url.replacen(&address(&url).to_string(), &proxy.address().to_string(), 1),
        None => url,
    }
}
