//! TLS to PostgreSQL, with a real server and certificates made here by `openssl`.
#![allow(clippy::unwrap_used, reason = "tests")]

use mainstay::store::{Database, Error, Settings, query};
use mainstay::testing::PostgresServer;
use std::error::Error as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn openssl(folder: &Path, arguments: &str) {
    let output =
        Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output().expect("openssl is needed: scripts/test installs it");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and another one; a certificate of the first for a server that is called `localhost`.
fn certificates(folder: &Path) {
    for authority in ["ca", "other"] {
        openssl(
            folder,
            &format!("req -x509 -newkey rsa:2048 -nodes -keyout {authority}.key -out {authority}.crt -days 2 -subj /CN=authority-{authority}"),
        );
    }
    openssl(folder, "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server");
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost").unwrap();
    openssl(folder, "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt");
}

async fn open(url: String) -> Result<Database, Error> {
    let mut settings = Settings::new(url);
    (settings.pool_max, settings.pool_min) = (2, 0);
    Database::open(&settings).await
}

/// Are all connections of this database encrypted?
async fn encrypted(database: &Database) -> bool {
    let listener = database.listen(&["news"]).await.unwrap();
    let text =
        "SELECT bool_and(ssl) AS encrypted, count(*) AS n FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'mainstay'";
    let row = query(text).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
    drop(listener);
    assert!(row.get::<i64>("n").unwrap() >= 2, "one reads and one listens");
    row.get("encrypted").unwrap()
}

fn cause(error: &Error) -> String {
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    error.source().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_as_safe_as_its_url_says() {
    if std::env::var("MAINSTAY_TEST_DATABASES").is_ok_and(|databases| databases == "sqlite") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    certificates(folder.path());
    let [certificate, key] = ["server.crt", "server.key"].map(|name| std::fs::read(path(name)).unwrap());
    let settings = [("ssl", "on"), ("ssl_cert_file", "../server.crt"), ("ssl_key_file", "../server.key")];
    let server = PostgresServer::start(folder.path(), "tls", &[("server.crt", &certificate), ("server.key", &key)], &settings).unwrap();
    let port = server.address().port();
    let url = |host: &str, parameters: String| format!("postgres://mainstay@{host}:{port}/postgres?{parameters}");

    let verified = open(url("localhost", format!("sslmode=verify-full&sslrootcert={}", path("ca.crt")))).await.unwrap();
    assert!(encrypted(&verified).await);
    verified.close(Duration::from_secs(5)).await;

    let wrong = open(url("localhost", format!("sslmode=verify-full&sslrootcert={}", path("other.crt")))).await.unwrap_err();
    assert!(cause(&wrong).contains("UnknownIssuer"), "{wrong:?}");
    // The authorities of the machine do not know ours either.
    let unknown = open(url("localhost", "sslmode=verify-full".to_owned())).await.unwrap_err();
    assert!(cause(&unknown).contains("UnknownIssuer"), "{unknown:?}");
    let elsewhere = open(url("127.0.0.1", format!("sslmode=verify-full&sslrootcert={}", path("ca.crt")))).await.unwrap_err();
    assert!(cause(&elsewhere).contains("127.0.0.1"), "{elsewhere:?}");
    let absent = open(url("localhost", format!("sslmode=verify-full&sslrootcert={}", path("absent.crt")))).await.unwrap_err();
    assert!(cause(&absent).contains("No such file"), "{absent:?}");

    // The authority without the name, and neither of them.
    for parameters in [format!("sslmode=verify-ca&sslrootcert={}", path("ca.crt")), "sslmode=require".to_owned()] {
        let database = open(url("127.0.0.1", parameters)).await.unwrap();
        assert!(encrypted(&database).await);
        database.close(Duration::from_secs(5)).await;
    }
    let plain = open(url("127.0.0.1", "sslmode=disable".to_owned())).await.unwrap();
    assert!(!encrypted(&plain).await);

    let bare = PostgresServer::start(folder.path(), "bare", &[], &[]).unwrap();
    let refused = open(format!("{}?sslmode=require", bare.url("postgres"))).await.unwrap_err();
    assert!(cause(&refused).to_lowercase().contains("tls") || cause(&refused).to_lowercase().contains("ssl"), "{refused:?}");
}
