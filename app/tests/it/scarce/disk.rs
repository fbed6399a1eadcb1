//! A disk without room: the database's on SQLite, that of the index and the mails on PostgreSQL.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mainstay::store::{self, Database, query};
use mainstay_app::mail::Folder;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::json;

use super::{RECOVERY, admin, details, health, sign_in, text};
use crate::client::Answer;
use crate::ground::{ADMIN, Ground, within};
use crate::process::{self, Server};

/// Room for the database, its log up to a checkpoint (4 MiB), and the index of some products.
const DISK: &str = "size=24m,mode=700";
/// A write that finds room left somewhere is followed by one that does not: the log is full after a thousand pages.
const WRITES_MAX: usize = 3_000;
/// A mail that failed once is tried again within 20 s, twice within 40 s.
const MAIL: Duration = Duration::from_secs(90);
/// Where clients are told no causes.
const PRODUCTION: [(&str, &str); 3] = [("APP_ENV", "production"), ("RATE_LIMIT_MAX", "1000000"), ("RATE_LIMIT_ACCOUNT_MAX", "1000000")];

mod sqlite {
    use mainstay::store::Dialect;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_disk_refuses_writes_and_nothing_else_until_there_is_room() {
        crate::ground::Ground::run(Dialect::Sqlite, super::a_full_disk_refuses_writes_and_nothing_else_until_there_is_room).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_limit_on_files_refuses_writes_and_nothing_else_until_it_is_lifted() {
        crate::ground::Ground::run(Dialect::Sqlite, super::a_limit_on_files_refuses_writes_and_nothing_else_until_it_is_lifted).await;
    }
}

on_postgres! { a_full_disk_beside_the_database_costs_fresh_searches_and_late_mails_alone }

/// A disk of its own that the service's process alone sees, at the data folder. It is gone with the process.
struct Disk {
    /// As this process sees it.
    folder: PathBuf,
}

impl Disk {
    /// The service, started on such a disk; nothing where this machine lets nobody mount one.
    fn start(ground: &Ground, own: &[(&str, &str)]) -> Option<(Server, Self)> {
        let namespace: &[&str] = if rustix::process::geteuid().is_root() { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
        if !Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success()) {
            eprintln!("not tried: this machine gives no namespace of mounts (unshare)");
            return None;
        }
        fs::create_dir_all(ground.data_dir()).unwrap();
        let mut command = process::mainstay_at("unshare".as_ref(), &ground.pairs(own));
        let script = r#"mount -t tmpfs -o "$1" tmpfs "$2" && exec "$3" serve"#;
        command.args(namespace).args(["sh", "-c", script, "sh", DISK]).arg(ground.data_dir()).arg(process::binary());
        let server = Server::start_as(command);
        let folder = PathBuf::from(format!("/proc/{}/root{}", server.pid().as_raw_nonzero(), ground.data_dir().display()));
        Some((server, Self { folder }))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.folder.join("ballast")).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0_u8; size];
            let error = loop {
                if let Err(error) = ballast.write_all(&piece) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
    }

    fn empty(&self) {
        fs::remove_file(self.folder.join("ballast")).unwrap();
    }
}

/// Did anything panic? The search library has the word for a worker that met an error, too.
fn panicked(log: &str) -> bool {
    log.replace("(io::Error most likely) or panicked", "").contains("panic")
}

/// One number of the database in `folder`, of a copy that is made while the process stands still: whoever asks leaves no trace, on a disk without room
/// least of all, and SQLite takes no name that leads into the process's own mounts.
async fn number(server: &Server, folder: &Path, sql: &str) -> i64 {
    let copy = tempfile::tempdir().unwrap();
    server.signal(Signal::STOP);
    for name in ["test.db", "test.db-wal"] {
        fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    server.signal(Signal::CONT);
    let mut settings = store::Settings::new(format!("sqlite:{}", copy.path().join("test.db").display()));
    settings.pool_max = 1;
    settings.pool_min = 0;
    let database = Database::open(&settings).await.unwrap();
    let row = query(sql.to_owned()).once().fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
    database.close(RECOVERY).await;
    row.get("n").unwrap()
}

/// A refusal that a client can act on, and that says nothing about the machine.
#[track_caller]
fn refused(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "database_unavailable"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0)), "{answer:?}");
    let told = answer.text().to_lowercase();
    for word in ["disk", "full", "sqlite", ".db", "i/o"] {
        assert!(!told.contains(word), "`{word}` is told: {told}");
    }
}

async fn a_full_disk_refuses_writes_and_nothing_else_until_there_is_room(ground: Arc<Ground>) {
    let url = format!("sqlite:{}", ground.data_dir().join("test.db").display());
    let Some((mut server, disk)) = Disk::start(&ground, &[&PRODUCTION[..], &[("DATABASE_URL", &url)]].concat()) else { return };
    without_room(&server, &disk.folder, || disk.fill(), || disk.empty()).await;
    assert_eq!(server.end(RECOVERY), 0, "{}", server.output());
}

async fn a_limit_on_files_refuses_writes_and_nothing_else_until_it_is_lifted(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&PRODUCTION));
    let pid = server.pid();
    let own = getrlimit(Resource::Fsize);
    let limit = |current| _ = prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: own.maximum }).unwrap();
    let (fill, empty) = (|| limit(Some(16 << 10)), || limit(own.current));
    without_room(&server, ground.data_dir().parent().unwrap(), fill, empty).await;
    assert_eq!(server.end(RECOVERY), 0, "{}", server.output());
}

async fn without_room(server: &Server, folder: &Path, fill: impl FnOnce(), empty: impl FnOnce()) {
    let number = |sql: &'static str| number(server, folder, sql);
    let (admin, refresh) = admin(server).await;
    let made = admin.post("/api/products", &json!({"sku": "before", "name": "Sturdy kettle"})).await.expect(201);
    let path = made.header("location").unwrap().to_owned();
    let key = admin.post("/api/auth/keys", &json!({"name": "A machine", "scopes": ["read"]})).await.expect(201).data();
    let machine = server.client().with_token(text(&key, "key"));
    let found = async |word: &str| server.client().get(&format!("/api/products/search?q={word}")).await.expect(200).json()["meta"]["total"].clone();
    assert_eq!(found("kettle").await, 1);
    assert_eq!((health(server).await.as_str(), &details(server).await["database"]["takes_writes"]), ("ok", &json!(true)));

    fill();
    let mut acknowledged = 1;
    let first_refusal = loop {
        let answer = admin.post("/api/products", &json!({"name": "Filler", "description": "x".repeat(10_000)})).await;
        if answer.status != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < WRITES_MAX, "there is room without an end");
    };
    refused(&first_refusal);
    for (method, path, body) in [
        ("PATCH", path.as_str(), json!({"name": "Changed"})),
        ("DELETE", path.as_str(), json!(null)),
        ("POST", "/api/auth/refresh", json!({"refresh_token": refresh})),
        ("POST", "/api/auth/register", json!({"email": "late@example.com", "name": "Late", "password": crate::ground::PASSWORD})),
        ("POST", "/api/auth/forgot-password", json!({"email": ADMIN})),
        ("POST", "/api/auth/logout", json!({})),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        refused(&admin.raw(method, path, body.as_bytes()).await);
    }
    refused(&sign_in(&server.client()).await);
    // What reads goes on: from the database, from the index, of strangers, accounts and machines.
    for (client, target) in
        [(server.client(), path.as_str()), (server.client(), "/api/products?limit=3"), (admin.clone(), "/api/users/me"), (machine, "/api/users/me")]
    {
        client.get(target).await.expect(200);
    }
    assert_eq!(found("kettle").await, 1);
    for target in ["/health/live", "/health/ready"] {
        server.client().get(target).await.expect(200);
    }
    assert_eq!((health(server).await.as_str(), &details(server).await["database"]["takes_writes"]), ("degraded", &json!(false)));
    assert_eq!(number("SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check <> 'ok'").await, 0);

    empty();
    within(RECOVERY, "writes are taken again", || async { admin.patch(&path, &json!({"name": "Sturdier kettle"})).await.status == 200 }).await;
    within(RECOVERY, "health says so", || async { health(server).await == "ok" }).await;
    admin.post("/api/products", &json!({"sku": "after", "name": "Copper teapot"})).await.expect(201);
    within(RECOVERY, "the index follows", || async { found("teapot").await == 1 && found("sturdier").await == 1 }).await;
    // A refresh token whose use was refused was not used.
    server.client().post("/api/auth/refresh", &json!({"refresh_token": refresh})).await.expect(200);
    sign_in(&server.client()).await.expect(200);
    admin.post("/api/auth/forgot-password", &json!({"email": ADMIN})).await.expect(202);
    // What was acknowledged is there, once, and what was refused is not.
    assert_eq!(number("SELECT count(*) AS n FROM products WHERE deleted_at IS NULL").await, acknowledged as i64 + 1);
    assert_eq!(number("SELECT count(*) AS n FROM products WHERE name = 'Changed'").await, 0);
    assert_eq!(number("SELECT count(*) AS n FROM users WHERE email = 'late@example.com'").await, 0);
    assert_eq!(number("SELECT count(*) AS n FROM users WHERE NOT EXISTS (SELECT 1 FROM profiles WHERE user_id = users.id)").await, 0);
    assert_eq!(number("SELECT count(*) AS n FROM pragma_integrity_check WHERE integrity_check <> 'ok'").await, 0);
    let log = server.log();
    assert!(log.contains("the database takes no writes") && log.contains("the database takes writes again"), "{log}");
    assert!(!panicked(&log), "{log}");
}

async fn a_full_disk_beside_the_database_costs_fresh_searches_and_late_mails_alone(ground: Arc<Ground>) {
    let Some((mut server, disk)) = Disk::start(&ground, &[]) else { return };
    let (admin, _) = admin(&server).await;
    admin.post("/api/products", &json!({"name": "Sturdy kettle"})).await.expect(201);
    let found = async |word: &str| server.client().get(&format!("/api/products/search?q={word}")).await.expect(200).json()["meta"]["total"].clone();
    assert_eq!(found("kettle").await, 1);

    disk.fill();
    let begun = std::time::Instant::now();
    let path = admin.post("/api/products", &json!({"name": "Copper teapot"})).await.expect(201).header("location").unwrap().to_owned();
    assert!(begun.elapsed() < RECOVERY, "nobody waits for an index that cannot be written: {:?}", begun.elapsed());
    admin.post("/api/auth/forgot-password", &json!({"email": ADMIN})).await.expect(202);
    admin.patch(&path, &json!({"name": "Copper teapot, large"})).await.expect(200);
    server.client().get(&path).await.expect(200);
    assert_eq!((found("kettle").await, found("teapot").await), (json!(1), json!(0)), "what the index had is found");
    within(RECOVERY, "health says so", || async { health(&server).await == "degraded" }).await;
    server.client().get("/health/ready").await.expect(200);
    let tried = "SELECT count(*) AS n FROM jobs WHERE attempts > 0 AND state = 'waiting'";
    within(RECOVERY, "the mail was tried", || async { ground.number(tried).await == 1 }).await;
    let letters = Folder::new(&disk.folder.join("mail"));
    assert_eq!(letters.list().unwrap(), [], "no half of a mail is one");

    disk.empty();
    within(RECOVERY, "the index follows", || async { found("teapot").await == 1 }).await;
    within(RECOVERY, "health says so", || async { health(&server).await == "ok" }).await;
    within(MAIL, "the mail is written", || async { letters.list().unwrap().len() == 1 }).await;
    assert_eq!(ground.number("SELECT count(*) AS n FROM jobs WHERE state <> 'done'").await, 0);
    assert!(!panicked(&server.log()), "{}", server.log());
    assert_eq!(server.end(RECOVERY), 0, "{}", server.output());
}
