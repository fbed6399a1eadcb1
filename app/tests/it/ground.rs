//! The ground a test stands on: a database of its own, a folder of its own, and the service in this process on a free port.
//!
//! What a test leaves behind is gone after it, also when it fails.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mainstay::auth::{Role, Throttle, ThrottleLimits};
use mainstay::clock::Clock;
use mainstay::config::{LogFormat, Reader};
use mainstay::log::Sink;
use mainstay::metrics::Metrics;
use mainstay::serve::{self, Drain, Limits, Report};
use mainstay::store::{self, Database, Dialect, query};
use mainstay_app::app::{Address, App};
use mainstay_app::audit::{Actor, Entry, actions};
use mainstay_app::life;
use mainstay_app::sessions::{self, Device};
use mainstay_app::settings::Settings;
use mainstay_app::users::NewAccount;
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::client::Client;

/// The password of every account that tests make.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// The first administrator's address.
pub(crate) const ADMIN: &str = "admin@example.com";
/// Signs the tokens; 43 bytes.
pub(crate) const JWT_SECRET: &str = "a secret that is only used by the tests 0123";

/// A database and a folder.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) url: String,
    /// The same database through a pooler, if the service takes that way.
    pooled: Option<String>,
    folder: tempfile::TempDir,
    name: String,
}

impl Ground {
    /// Is this kind of database tried at all?
    pub(crate) fn is_tried(dialect: Dialect) -> bool {
        dialect == Dialect::Sqlite || std::env::var("MAINSTAY_TEST_DATABASES").as_deref() != Ok("sqlite")
    }

    /// Runs a test on an empty database.
    pub(crate) async fn run<F: Future<Output = ()> + Send + 'static>(dialect: Dialect, test: impl FnOnce(Arc<Ground>) -> F) {
        Self::run_by(dialect, None, test).await;
    }

    /// Runs a test on an empty PostgreSQL that the service reaches through PgBouncer in transaction mode. What the test does behind its back goes past it.
    pub(crate) async fn run_pooled<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Arc<Ground>) -> F) {
        let pooler = std::env::var("TEST_PGBOUNCER_URL").unwrap_or_default();
        Self::run_by(Dialect::Postgres, Some(pooler), test).await;
    }

    async fn run_by<F: Future<Output = ()> + Send + 'static>(dialect: Dialect, pooler: Option<String>, test: impl FnOnce(Arc<Ground>) -> F) {
        if !Self::is_tried(dialect) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let name = format!("it_{}", Uuid::new_v4().simple());
        let url = match dialect {
            Dialect::Sqlite => format!("sqlite:{}", folder.path().join("test.db").display()),
            Dialect::Postgres => {
                on_server(&format!("CREATE DATABASE {name}")).await;
                let server = server_url();
                format!("{}/{name}", server.rsplit_once('/').unwrap().0)
            }
        };
        let pooled = pooler.map(|pooler| {
            let (server, _) = pooler.rsplit_once('/').expect("TEST_PGBOUNCER_URL is not set: scripts/test starts a PgBouncer");
            format!("{server}/{name}")
        });
        let ground = Arc::new(Ground { url, pooled, folder, name: name.clone() });
        let outcome = tokio::spawn(test(ground)).await;
        if dialect == Dialect::Postgres {
            on_server(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
        if let Err(failure) = outcome {
            std::panic::resume_unwind(failure.into_panic());
        }
    }

    /// Where the service keeps its files.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path for a file of the test's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings of a small service on this ground, changed by `pairs`.
    pub(crate) fn pairs(&self, pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let data_dir = self.data_dir().display().to_string();
        let (way, pooler, direct) = match &self.pooled {
            Some(pooled) => (pooled.as_str(), "transaction", self.url.as_str()),
            None => (self.url.as_str(), "", ""),
        };
        let standard = [
            ("DATABASE_URL", way),
            ("DATABASE_POOLER", pooler),
            ("DATABASE_DIRECT_URL", direct),
            ("DATA_DIR", &data_dir),
            ("PORT", "0"),
            ("MANAGEMENT_ADDR", "127.0.0.1:0"),
            ("SAMPLE", "false"),
            ("JWT_SECRET", JWT_SECRET),
            ("ADMIN_EMAIL", ADMIN),
            ("ADMIN_PASSWORD", PASSWORD),
            ("DB_POOL_MAX", "6"),
            ("DB_POOL_MIN", "1"),
        ];
        let kept = standard.into_iter().filter(|(name, _)| pairs.iter().all(|(changed, _)| changed != name));
        kept.chain(pairs.iter().copied()).filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Starts the service; an empty value takes a setting back to its default.
    pub(crate) async fn start(&self, pairs: &[(&str, &str)]) -> Service {
        self.start_at(Clock::system(), pairs).await
    }

    /// Starts the service in a time of the test's own.
    pub(crate) async fn start_at(&self, clock: Clock, pairs: &[(&str, &str)]) -> Service {
        let pairs = self.pairs(pairs);
        let (settings, _) = Settings::read(Reader::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))).unwrap();
        Service::start(settings, clock).await
    }

    /// Starts the service without a throttle of wrong passwords, for a test that gives more of them than anybody may.
    pub(crate) async fn start_unthrottled(&self) -> Service {
        self.start_throttled(&[], ThrottleLimits { window: Duration::ZERO, ..ThrottleLimits::default() }).await
    }

    /// Starts the service with a throttle of the test's own.
    pub(crate) async fn start_throttled(&self, pairs: &[(&str, &str)], limits: ThrottleLimits) -> Service {
        let pairs = self.pairs(pairs);
        let (settings, _) = Settings::read(Reader::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))).unwrap();
        let mut app = life::prepare(settings, Clock::system()).await.unwrap().app;
        app.throttle = Throttle::new(limits, Instant::now());
        Service::serve(app).await
    }

    /// A second way into the database, behind the service's back.
    pub(crate) async fn database(&self) -> Database {
        let mut settings = store::Settings::new(&self.url);
        settings.pool_max = 3;
        settings.pool_min = 0;
        Database::open(&settings).await.unwrap()
    }

    /// Runs one statement behind the service's back; gives the rows affected.
    pub(crate) async fn execute(&self, text: &str) -> u64 {
        let database = self.database().await;
        let affected = query(text.to_owned()).once().execute(&mut database.writer(None).await.unwrap()).await.unwrap();
        database.close(Duration::from_secs(5)).await;
        affected
    }

    /// One number asked for behind the service's back, as the column `n`.
    pub(crate) async fn number(&self, text: &str) -> i64 {
        let database = self.database().await;
        let row = query(text.to_owned()).once().fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
        database.close(Duration::from_secs(5)).await;
        row.get("n").unwrap()
    }

    /// Does the service go through a pooler?
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// The name of the database on its server.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The test server, as its superuser.
pub(crate) fn server_url() -> String {
    let url = std::env::var("TEST_POSTGRES_URL")
        .expect("TEST_POSTGRES_URL is not set: name a PostgreSQL server, or set MAINSTAY_TEST_DATABASES=sqlite to leave it out");
    url.split('?').next().unwrap().to_owned()
}

/// Where the test server listens.
pub(crate) fn server_address() -> SocketAddr {
    address(&server_url())
}

/// The host of a URL of PostgreSQL.
pub(crate) fn address(url: &str) -> SocketAddr {
    let authority = url.split("//").nth(1).unwrap().split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().parse().expect("the URL must name 127.0.0.1 and a port")
}

/// Runs one statement on the server, outside of the test's database.
pub(crate) async fn on_server(text: &str) {
    let mut settings = store::Settings::new(server_url());
    settings.pool_max = 1;
    settings.pool_min = 0;
    let database = Database::open(&settings).await.unwrap();
    query(text.to_owned()).once().execute(&mut database.writer(None).await.unwrap()).await.unwrap();
    database.close(Duration::from_secs(5)).await;
}

/// The service, running.
pub(crate) struct Service {
    pub(crate) app: App,
    pub(crate) address: SocketAddr,
    drain: Drain,
    serving: JoinHandle<Report>,
    accounts: AtomicUsize,
}

/// An account and a client that is signed in to it.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: Uuid,
    pub(crate) session: Uuid,
    pub(crate) refresh_token: String,
    pub(crate) client: Client,
}

impl Service {
    /// Starts the service with these settings.
    pub(crate) async fn start(settings: Settings, clock: Clock) -> Self {
        Self::serve(life::prepare(settings, clock).await.unwrap().app).await
    }

    async fn serve(app: App) -> Self {
        let listener = serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let drain = Drain::new();
        let serving =
            tokio::spawn(serve::serve(listener, app.service(Sink::memory(LogFormat::Json), Metrics::local()), Limits::default(), drain.clone()));
        app.jobs.start();
        app.health.ready();
        Self { app, address, drain, serving, accounts: AtomicUsize::new(0) }
    }

    /// A stranger.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(self.address)
    }

    /// A new account of this role, signed in.
    pub(crate) async fn account(&self, role: Role) -> Account {
        let number = self.accounts.fetch_add(1, Ordering::Relaxed);
        let email = format!("{role}-{number}@example.com");
        let account = NewAccount::parse(&email, "Somebody", PASSWORD.into()).unwrap();
        let user = self.app.open_account(account, role, Address::Vouched, Entry::new(Actor::System, actions::USER_CREATED)).await.unwrap();
        self.signed_in(user.id).await
    }

    /// The first administrator, signed in.
    pub(crate) async fn admin(&self) -> Account {
        let email = mainstay_app::users::Email::parse(ADMIN).unwrap();
        let id = mainstay_app::users::sql::id_of(&mut self.app.read().await.unwrap(), &email).await.unwrap().unwrap();
        self.signed_in(id).await
    }

    /// Another session of an account.
    pub(crate) async fn signed_in(&self, id: Uuid) -> Account {
        let grant = sessions::open(&self.app, id, None, device()).await.unwrap();
        let token = self.app.auth.tokens().issue(id, grant.session, grant.role, self.app.clock().now());
        let refresh_token = grant.refresh.text().expose_secret().to_owned();
        Account { id, session: grant.session, refresh_token, client: self.stranger().with_token(token.expose_secret()) }
    }

    /// Ends the service in order.
    pub(crate) async fn end(mut self) {
        self.drain.begin(Duration::from_secs(5));
        (&mut self.serving).await.unwrap();
        self.app.jobs.stop(Duration::from_secs(5)).await;
        self.app.database.close(Duration::from_secs(5)).await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.drain.cut();
    }
}

/// A time that the test moves.
pub(crate) struct Time(Arc<AtomicI64>);

impl Time {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(Timestamp::now().as_second())))
    }

    pub(crate) fn clock(&self) -> Clock {
        let second = self.0.clone();
        Clock::from_fn(move || Timestamp::from_second(second.load(Ordering::SeqCst)).unwrap())
    }

    /// Seconds since 1970.
    pub(crate) fn second(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

/// Somebody's.
pub(crate) fn device() -> Device {
    Device::new("192.0.2.1".parse().unwrap(), "tests")
}

/// Waits until `holds` says yes, and fails after `deadline`.
pub(crate) async fn within<F: Future<Output = bool>>(deadline: Duration, what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
