//! Every setting once: its name, unit, default, bounds and meaning stand in the line that reads it.
//!
//! The environment comes over `mainstay.toml`, the file over the defaults. Nothing else in the workspace reads the environment.
//! All problems of all settings are found in one pass ([`Problems`]), and the reference in the documentation is written by the same lines that read.
//!
//! A service adds its own settings by reading them from the same [`Reader`].

mod birth;
mod reader;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use crate::redis::{Address, TlsFiles};
use crate::store::REPLICAS_MAX;

pub use birth::Birth;
pub(crate) use birth::{HANDOVER, LISTEN};
pub use reader::{Entry, Knob, Origin, Problems, Reader};
pub use values::{ByteSize, Origins, Setting};

/// Where the service runs. It chooses defaults, and whether the service helps a developer: causes in answers, a made-up administrator and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppEnv {
    /// Readable logs, causes in answers, wide limits.
    Development,
    /// JSON logs, no causes, secrets required.
    Production,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For human eyes.
    Text,
}

/// Which `Content-Security-Policy` answers carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentPolicy {
    /// What helmet sends: fit for an API that also serves pages.
    Documents,
    /// `default-src 'none'` on everything but the documentation page.
    Api,
}

/// What stands before PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or what gives each connection a session of its own.
    None,
    /// A pooler that lends a connection of the server for one transaction.
    Transaction,
}

/// What signs and verifies access tokens. With both, the folder signs and the secret still verifies.
#[derive(Debug, Clone)]
pub struct TokenKeys {
    /// `JWT_SECRET`
    pub secret: Option<SecretString>,
    /// `JWT_KEYS_DIR`
    pub folder: Option<PathBuf>,
}

/// The settings of the foundation. Fields are in the order of the reference.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // The documentation of each is the text in `read`, which the reference and the editor's hover would otherwise repeat.
pub struct Settings {
    pub app_env: AppEnv,
    pub host: IpAddr,
    pub port: u16,
    pub management_addr: SocketAddr,
    pub trusted_proxies: Vec<IpNet>,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub allowed_origins: Origins,
    pub cors_credentials: bool,
    pub content_policy: ContentPolicy,
    pub request_timeout: Duration,
    pub concurrency_max: usize,
    pub concurrency_min: usize,
    pub rate_limit_max: u32,
    pub rate_limit_window: Duration,
    pub rate_limit_account_max: u32,
    pub rate_limit_allowlist: Vec<IpNet>,
    pub body_limit: ByteSize,
    pub database_url: SecretString,
    pub database_pooler: Pooler,
    pub database_direct_url: Option<SecretString>,
    pub database_replica_urls: Vec<SecretString>,
    pub replica_lag_max: Duration,
    pub db_pool_max: u32,
    pub db_pool_min: u32,
    pub db_idle_timeout: Duration,
    pub db_acquire_timeout: Duration,
    pub db_statement_timeout: Duration,
    pub instances: u32,
    pub redis_url: Option<SecretString>,
    pub redis_tls: TlsFiles,
    pub redis_prefix: String,
    pub redis_timeout: Duration,
    pub cache_size: ByteSize,
    pub cache_max_age: Duration,
    /// How long an answer is given that was good, when the database cannot be asked for a newer one.
    pub cache_stale_max: Duration,
    pub token_keys: TokenKeys,
    pub jwt_expiry: Duration,
    pub jwt_issuer: String,
    pub jwt_audience: String,
    pub shutdown_timeout: Duration,
    pub drain_delay: Duration,
    pub handover_timeout: Duration,
    pub log_level: String,
    pub log_format: LogFormat,
    pub data_dir: PathBuf,
}

impl Settings {
    /// Reads every setting of the foundation; what is wrong is collected in `reader`.
    #[rustfmt::skip]
    pub fn read(reader: &mut Reader) -> Self {
        let seconds = |n| Duration::from_secs(n);
        let app_env = reader.read(Knob::new("APP_ENV", "Where the service runs: chooses the defaults below").default("development"));
        let production = app_env == AppEnv::Production;
        let data_dir: PathBuf = reader.read(Knob::new("DATA_DIR", "Folder of everything the service keeps on disk: embedded database, search index, development key").default("data"));
        let allowed_origins: Origins = reader.read(Knob::new("ALLOWED_ORIGINS", "Origins whose pages may call the API, `https://app.example.com` each, or `*`").default(if production { "" } else { "*" }).default_says("`*` in development, none in production"));
        let settings = Self {
            app_env,
            host: reader.read(Knob::new("HOST", "Address to listen on").default("127.0.0.1")),
            port: reader.read(Knob::new("PORT", "Port to listen on; 0 takes a free one").default("3000")),
            management_addr: reader.read(Knob::new("MANAGEMENT_ADDR", "Address and port of metrics and health details; never make it public").default("127.0.0.1:3001")),
            trusted_proxies: reader.read(Knob::new("TRUSTED_PROXIES", "Proxies whose `X-Forwarded-For` is believed, as addresses or CIDRs").default("")),
            connections_max: reader.read(Knob::new("CONNECTIONS_MAX", "Connections held at once; one more is closed at the door").default("10000").between(1, 1_000_000)),
            connections_per_address_max: reader.read(Knob::new("CONNECTIONS_PER_ADDRESS_MAX", "Connections of one address (IPv6: one /64) at once; trusted proxies have no such limit").default("5000").between(1, 1_000_000)),
            header_timeout: reader.read(Knob::new("HEADER_TIMEOUT", "Time to send the request's head, and to begin it").default("10s").within(seconds(1), seconds(120))),
            idle_timeout: reader.read(Knob::new("IDLE_TIMEOUT", "Time that a kept connection may stay without a request").default("75s").within(seconds(1), seconds(3600))),
            cors_credentials: reader.read(Knob::new("CORS_CREDENTIALS", "May pages of the allowed origins send cookies and credentials; not possible with `*`").default(if allowed_origins.any { "false" } else { "true" }).default_says("`true` with a list of origins, `false` with `*`")),
            allowed_origins,
            content_policy: reader.read(Knob::new("CONTENT_POLICY", "Content security policy: `documents` (what helmet sends) or `api` (`default-src 'none'` outside the documentation page)").default("documents")),
            request_timeout: reader.read(Knob::new("REQUEST_TIMEOUT", "Time budget of a request, from its head to its answer; past it 504").default("30s").within(Duration::from_millis(10), seconds(3600))),
            concurrency_max: reader.read(Knob::new("CONCURRENCY_MAX", "Most requests worked on at once; how many of them is learnt from how long they take, and one more is a 503").default("1024").between(1, 1_000_000)),
            concurrency_min: reader.read(Knob::new("CONCURRENCY_MIN", "The limit that is learnt never falls below this many; the same as `CONCURRENCY_MAX` makes it a fixed one").default("4").between(1, 1_000_000)),
            rate_limit_max: reader.read(Knob::new("RATE_LIMIT_MAX", "Requests of one client address in a window").default(if production { "100" } else { "10000" }).default_says("`100` in production, `10000` in development").between(1, 1_000_000_000)),
            rate_limit_window: reader.read(Knob::new("RATE_LIMIT_WINDOW", "The window that slides over the requests").default("15m").within(Duration::from_millis(100), seconds(86_400))),
            rate_limit_account_max: reader.read(Knob::new("RATE_LIMIT_ACCOUNT_MAX", "Requests of one account in a window").default(if production { "1000" } else { "10000" }).default_says("`1000` in production, `10000` in development").between(1, 1_000_000_000)),
            rate_limit_allowlist: reader.read(Knob::new("RATE_LIMIT_ALLOWLIST", "Addresses and CIDRs without a limit").default("")),
            body_limit: reader.read(Knob::new("BODY_LIMIT", "Largest request body").default("1MB").sized(1, 1 << 30)),
            database_url: database_url(reader, &data_dir),
            database_pooler: reader.read(Knob::new("DATABASE_POOLER", "What answers at DATABASE_URL: `none` is PostgreSQL itself, `transaction` a pooler that lends its connections for a transaction (PgBouncer's `pool_mode = transaction`)").default("none")),
            database_direct_url: reader.read(Knob::new("DATABASE_DIRECT_URL", "The same database past the pooler, for notifications, migrations and the watch over replicas").default_says("none; required with `DATABASE_POOLER=transaction`")),
            database_replica_urls: database_replica_urls(reader),
            replica_lag_max: reader.read(Knob::new("REPLICA_LAG_MAX", "A replica that may show something older than this is left out").default("2s").within(seconds(1), seconds(300))),
            db_pool_max: reader.read(Knob::new("DB_POOL_MAX", "Most database connections of one instance").default("20").between(1, 10_000)),
            db_pool_min: reader.read(Knob::new("DB_POOL_MIN", "Database connections kept open").default("5").between(0, 10_000)),
            db_idle_timeout: reader.read(Knob::new("DB_IDLE_TIMEOUT", "Unused connections above the minimum are closed after this time").default("30s").within(seconds(1), seconds(86_400))),
            db_acquire_timeout: reader.read(Knob::new("DB_ACQUIRE_TIMEOUT", "Longest wait for a connection; past it 503").default("5s").within(Duration::from_millis(10), seconds(300))),
            db_statement_timeout: reader.read(Knob::new("DB_STATEMENT_TIMEOUT", "A statement is ended by the database after this time").default("30s").within(Duration::from_millis(10), seconds(3600))),
            instances: reader.read(Knob::new("INSTANCES", "Instances that share the database, for the sum of their pools and for the part of a limit that each admits without Redis").default("1").between(1, 10_000)),
            redis_url: reader.read(Knob::new("REDIS_URL", "Redis, Valkey or a Redis Cluster in which all instances count limits together: `redis://host:port`, with TLS `rediss://`; nodes of a cluster with commas between them").default_says("none: each instance counts by itself")),
            redis_tls: redis_tls(reader),
            redis_prefix: reader.read(Knob::new("REDIS_PREFIX", "What all names in Redis begin with: tells services and environments that share a server apart").default("mainstay")),
            redis_timeout: reader.read(Knob::new("REDIS_TIMEOUT", "Longest wait for an answer of Redis; past it a request goes on without").default("100ms").within(Duration::from_millis(1), seconds(5))),
            cache_size: reader.read(Knob::new("CACHE_SIZE", "Answers of hot reads kept in memory, with all their codings; 0 keeps none").default("64MB").sized(0, 1 << 30)),
            cache_max_age: reader.read(Knob::new("CACHE_MAX_AGE", "No answer is kept longer, even if nothing it was made of has changed").default("60s").within(Duration::from_millis(100), seconds(86_400))),
            cache_stale_max: reader.read(Knob::new("CACHE_STALE_MAX", "While the database cannot be asked, answers are given that were known to be good this long ago at most; 0s gives none").default("5m").within(Duration::ZERO, seconds(86_400))),
            token_keys: token_keys(reader, production),
            jwt_expiry: reader.read(Knob::new("JWT_EXPIRY", "Life of an access token").default("15m").within(seconds(10), seconds(31 * 86_400))),
            jwt_issuer: reader.read(Knob::new("JWT_ISSUER", "`iss` of access tokens").default("mainstay")),
            jwt_audience: reader.read(Knob::new("JWT_AUDIENCE", "`aud` of access tokens").default("mainstay")),
            shutdown_timeout: reader.read(Knob::new("SHUTDOWN_TIMEOUT", "Time for requests in flight at the end; past it they are cut").default("30s").within(Duration::from_millis(10), seconds(3600))),
            drain_delay: reader.read(Knob::new("DRAIN_DELAY", "Time between failing readiness and draining; 5s behind a balancer").default("0s").within(Duration::ZERO, seconds(300))),
            handover_timeout: reader.read(Knob::new("HANDOVER_TIMEOUT", "Time that a new process has, after SIGUSR2, to begin serving; past it the old one goes on").default("60s").within(seconds(1), seconds(3600))),
            log_level: reader.read(Knob::new("LOG_LEVEL", "`error`, `warn`, `info`, `debug`, `trace`; `info,sqlx=debug` for one part").default("info")),
            log_format: reader.read(Knob::new("LOG_FORMAT", "`json` or `text`").default(if production { "json" } else { "text" }).default_says("`json` in production, `text` in development")),
            data_dir,
        };
        settings.judge(reader);
        settings
    }

    /// Rules between settings.
    fn judge(&self, reader: &mut Reader) {
        if self.allowed_origins.any && self.cors_credentials {
            reader.problem("CORS_CREDENTIALS", "cannot be `true` while ALLOWED_ORIGINS is `*`: browsers refuse the combination; list the origins");
        }
        if self.db_pool_min > self.db_pool_max {
            reader.problem("DB_POOL_MIN", format!("is {}, more than DB_POOL_MAX, which is {}", self.db_pool_min, self.db_pool_max));
        }
        if let Some(Err(unusable)) = self.redis_url.as_ref().map(|url| Address::new(url, &self.redis_tls)) {
            reader.problem(unusable.setting, unusable.words);
        }
        if !(1..=64).contains(&self.redis_prefix.len())
            || !self.redis_prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        {
            reader.problem("REDIS_PREFIX", "must be 1 to 64 letters, digits, `-`, `_`, `.` or `:`");
        }
        self.judge_pooler(reader);
        if !self.database_replica_urls.is_empty() && self.database_url.expose_secret().starts_with("sqlite:") {
            reader.problem(
                "DATABASE_REPLICA_URL",
                "stands beside an SQLite database, which has no replicas: set DATABASE_URL to a PostgreSQL, or leave it out",
            );
        }
        if let Err(reason) = crate::log::check_level(&self.log_level) {
            reader.problem("LOG_LEVEL", reason);
        }
    }

    fn judge_pooler(&self, reader: &mut Reader) {
        match (self.database_pooler, &self.database_direct_url) {
            (Pooler::None, None) => {}
            (Pooler::None, Some(_)) => {
                reader.problem("DATABASE_DIRECT_URL", "is used with DATABASE_POOLER=transaction only: set that, or leave this out");
            }
            (Pooler::Transaction, None) => reader.problem(
                "DATABASE_DIRECT_URL",
                "is required with DATABASE_POOLER=transaction: a URL of the same database past the pooler, which carries neither notifications nor long migrations",
            ),
            (Pooler::Transaction, Some(url)) if !is_postgres(url) => {
                reader.problem("DATABASE_DIRECT_URL", "must begin with `postgres://` or `postgresql://`");
            }
            (Pooler::Transaction, Some(_)) if !is_postgres(&self.database_url) => {
                reader.problem("DATABASE_POOLER", "is `transaction` beside an SQLite database, which has no pooler: set DATABASE_URL, or leave it out");
            }
            (Pooler::Transaction, Some(_)) => {}
        }
    }

    /// Is this production?
    pub fn production(&self) -> bool {
        self.app_env == AppEnv::Production
    }
}

fn is_postgres(url: &SecretString) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| url.expose_secret().starts_with(scheme))
}

/// `DATABASE_URL`, or the `DB_*` parts that others put together, or the embedded database.
fn database_url(reader: &mut Reader, data_dir: &std::path::Path) -> SecretString {
    let embedded = format!("sqlite:{}/mainstay.db", data_dir.display());
    let whole: Option<SecretString> = reader.read(
        Knob::new("DATABASE_URL", "`postgres://user:password@host:port/name` or `sqlite:path`")
            .default_says("`sqlite:` and `mainstay.db` in DATA_DIR"),
    );
    let host: Option<String> = reader.read(Knob::new("DB_HOST", "PostgreSQL host, in place of DATABASE_URL"));
    let port: u16 = reader.read(Knob::new("DB_PORT", "PostgreSQL port, with DB_HOST").default("5432"));
    let name: String = reader.read(Knob::new("DB_NAME", "Database, with DB_HOST").default("mainstay"));
    let user: String = reader.read(Knob::new("DB_USER", "Role, with DB_HOST").default("mainstay"));
    let password: Option<SecretString> = reader.read(Knob::new("DB_PASSWORD", "Password of the role, with DB_HOST"));
    match (whole, host) {
        (Some(_), Some(_)) => {
            reader.problem("DB_HOST", "stands beside DATABASE_URL: set one of them");
            SecretString::from(embedded)
        }
        (Some(url), None) => {
            let known = ["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| url.expose_secret().starts_with(scheme));
            if !known {
                reader.problem("DATABASE_URL", "must begin with `postgres://`, `postgresql://` or `sqlite:`");
            }
            url
        }
        (None, Some(host)) => {
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let password = password.map(|password| format!(":{}", encode(password.expose_secret()))).unwrap_or_default();
            SecretString::from(format!("postgres://{}{password}@{host}:{port}/{}", encode(&user), encode(&name)))
        }
        (None, None) => SecretString::from(embedded),
    }
}

/// `DATABASE_REPLICA_URL`: one or several.
fn database_replica_urls(reader: &mut Reader) -> Vec<SecretString> {
    let listed: Option<SecretString> = reader.read(Knob::new(
        "DATABASE_REPLICA_URL",
        "Streaming replicas of the PostgreSQL of DATABASE_URL, with commas between their URLs: what strangers read of products, and the cache does not keep, comes from there",
    ));
    let urls: Vec<&str> = listed.iter().flat_map(|urls| urls.expose_secret().split(',')).map(str::trim).collect();
    if urls.iter().any(|url| !url.starts_with("postgres://") && !url.starts_with("postgresql://")) {
        reader.problem("DATABASE_REPLICA_URL", "must be URLs that begin with `postgres://`; a comma in a password is written `%2C`");
    } else if urls.len() > REPLICAS_MAX {
        reader.problem("DATABASE_REPLICA_URL", format!("has {} URLs; {REPLICAS_MAX} are allowed", urls.len()));
    } else if (1..urls.len()).any(|end| urls[..end].contains(&urls[end])) {
        reader.problem("DATABASE_REPLICA_URL", "names a replica twice");
    }
    urls.into_iter().map(SecretString::from).collect()
}

/// What TLS to Redis needs beside what the system trusts.
fn redis_tls(reader: &mut Reader) -> TlsFiles {
    TlsFiles {
        authorities: reader.read(
            Knob::new("REDIS_CA_FILE", "Authorities that may vouch for a `rediss://` server, as PEM").default_says("those that the system trusts"),
        ),
        certificate: reader.read(Knob::new(
            "REDIS_CERT_FILE",
            "Certificate that is shown to a `rediss://` server which asks for one, with those between it and its authority, as PEM",
        )),
        key: reader.read(Knob::new("REDIS_KEY_FILE", "Private key of REDIS_CERT_FILE, as PEM")),
    }
}

/// What signs access tokens. Production does not make something up: one of the two must be set.
fn token_keys(reader: &mut Reader, production: bool) -> TokenKeys {
    let secret: Option<SecretString> = reader.read(
        Knob::new("JWT_SECRET", "Secret that signs access tokens (HS256), at least 32 bytes; beside JWT_KEYS_DIR it only verifies")
            .default_says("made at first start in development; this or JWT_KEYS_DIR is required in production"),
    );
    let folder: Option<PathBuf> =
        reader.read(Knob::new("JWT_KEYS_DIR", "Folder of the keys that sign access tokens (EdDSA, ES256); `mainstay keys new` makes one"));
    match &secret {
        // RFC 7518, 3.2: the key of HS256 has at least the 256 bits of its hash.
        Some(secret) if secret.expose_secret().len() < 32 => {
            reader.problem("JWT_SECRET", format!("has {} bytes; at least 32 are needed", secret.expose_secret().len()));
        }
        None if production && folder.is_none() => reader.problem(
            "JWT_SECRET",
            "or JWT_KEYS_DIR is required in production: a folder of keys that `mainstay keys new` fills, or at least 32 random bytes, for instance from `openssl rand -base64 48`",
        ),
        _ => {}
    }
    TokenKeys { secret, folder }
}

#[cfg(test)]
mod tests;
