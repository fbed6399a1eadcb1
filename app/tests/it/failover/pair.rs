//! A primary and a standby of the test's own, behind an address that can be led from one to the other.

use std::time::Duration;

use mainstay::store::{self, Database, Row, query};
use mainstay::testing::{FaultProxy, PostgresServer};
use tempfile::TempDir;

use crate::ground::within;

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Pair {
    pub(super) primary: PostgresServer,
    pub(super) standby: PostgresServer,
    pub(super) proxy: FaultProxy,
    _folder: TempDir,
}

impl Pair {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let primary = PostgresServer::start(folder.path(), "primary", &[], &[]).unwrap();
        let standby = primary.replica(folder.path(), "standby").unwrap();
        let proxy = FaultProxy::start(primary.address()).await.unwrap();
        Self { primary, standby, proxy, _folder: folder }
    }

    /// Where the service finds whichever is the primary.
    pub(super) fn url(&self) -> String {
        format!("postgres://mainstay@{}/postgres", self.proxy.address())
    }

    /// The standby has all there is, and gets nothing more: what is committed from now on is lost with the primary.
    pub(super) async fn part(&self) {
        let text = "SELECT count(*)::bigint AS n FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()";
        within(PATIENCE, "the standby has everything", || async { number(&self.primary, text).await == 1 }).await;
        on(&self.standby, "ALTER SYSTEM SET primary_conninfo = ''").await;
        on(&self.standby, "SELECT 1 AS one FROM pg_reload_conf()").await;
        let text = "SELECT count(*)::bigint AS n FROM pg_stat_replication";
        within(PATIENCE, "the standby is cut off", || async { number(&self.primary, text).await == 0 }).await;
    }

    /// The standby becomes a primary, on a timeline of its own.
    pub(super) async fn promote(&self) {
        on(&self.standby, "SELECT 1 AS one FROM pg_promote()").await;
        within(PATIENCE, "it is promoted", || async {
            number(&self.standby, "SELECT count(*)::bigint AS n WHERE NOT pg_is_in_recovery()").await == 1
        })
        .await;
    }
}

async fn opened(server: &PostgresServer) -> Database {
    let mut settings = store::Settings::new(server.url("postgres"));
    settings.pool_max = 1;
    settings.pool_min = 0;
    settings.application_name = "the test".to_owned();
    Database::open(&settings).await.unwrap()
}

/// Runs a statement on a server, past the service.
pub(super) async fn on(server: &PostgresServer, text: &str) -> Option<Row> {
    let database = opened(server).await;
    let row = query(text.to_owned()).once().fetch_optional(&mut database.writer(None).await.unwrap()).await.unwrap();
    database.close(Duration::from_secs(5)).await;
    row
}

/// The number that a statement gives as `n`.
pub(super) async fn number(server: &PostgresServer, text: &str) -> i64 {
    on(server, text).await.unwrap().get("n").unwrap()
}
