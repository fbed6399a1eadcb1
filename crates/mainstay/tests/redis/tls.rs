//! TLS: who is believed, and what is said of who is not.

use std::time::Duration;

use mainstay::redis::{Address, Redis, TlsFiles};
use mainstay::stack::rate_limit::{Quota, Together};
use secrecy::SecretString;
use uuid::Uuid;

use super::servers::{Authority, Cluster, PATIENCE, Server};
use super::{LONG, exactly, until};

const HERE: &str = "IP:127.0.0.1,DNS:localhost";

fn believing(authority: &Authority) -> TlsFiles {
    TlsFiles { authorities: Some(authority.certificate()), ..TlsFiles::default() }
}

async fn open(url: &str, files: &TlsFiles) -> Redis {
    let address = Address::new(&SecretString::from(url.to_owned()), files).unwrap();
    Redis::open(address, "test", Duration::from_secs(5)).await
}

fn cause(redis: &Redis) -> String {
    assert!(!redis.answers());
    redis.cause().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_exactly_the_quota_is_admitted_and_who_is_not_believed_is_not_asked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::with_tls(&authority, HERE, &["--tls-auth-clients", "no"]).await;
    let at = |host: &str| format!("rediss://{host}:{}", server.port);
    exactly(&at("localhost"), &believing(&authority), 100).await;

    let wrong = open(&at("localhost"), &believing(&other)).await;
    assert!(cause(&wrong).starts_with("its certificate is of an authority that is not believed here"), "{}", cause(&wrong));
    let by_system = open(&at("localhost"), &TlsFiles::default()).await;
    assert!(cause(&by_system).contains("REDIS_CA_FILE"), "{}", cause(&by_system));
    let spoken_plainly = open(&format!("redis://localhost:{}", server.port), &TlsFiles::default()).await;
    assert_eq!(cause(&spoken_plainly), "the connection broke");

    // It goes on counting by itself.
    let quota = Quota::new("test", 8, LONG).together(Some(Together::new(wrong, 2)));
    assert_eq!(quota.count(Uuid::new_v4(), std::time::Instant::now()).await.unwrap().remaining, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_name_is_refused_and_a_plain_server_too() {
    let authority = Authority::new();
    let server = Server::with_tls(&authority, "DNS:redis.internal", &["--tls-auth-clients", "no"]).await;
    let named = open(&format!("rediss://localhost:{}", server.port), &believing(&authority)).await;
    assert_eq!(cause(&named), "its certificate is not for `localhost`");
    let plain = Server::start(&[]).await;
    let plain = open(&format!("rediss://localhost:{}", plain.port), &believing(&authority)).await;
    let said = cause(&plain);
    assert!(["it does not speak TLS", "the connection broke", "no connection in a second"].contains(&said.as_str()), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let authority = Authority::new();
    let server = Server::with_tls(&authority, HERE, &["--tls-auth-clients", "yes"]).await;
    let url = format!("rediss://localhost:{}", server.port);
    let without = open(&url, &believing(&authority)).await;
    // Its last words come just before the end of the connection, and now and then the end is all that is heard of them.
    let asks = || cause(&without).starts_with("it asks for a certificate of ours");
    until("it says what it asks for", PATIENCE, asks).await;
    let (certificate, key) = authority.sign("DNS:mainstay");
    let files = TlsFiles { certificate: Some(certificate), key: Some(key), ..believing(&authority) };
    assert!(open(&url, &files).await.answers());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_the_nodes_that_it_announces_are_spoken_to_with_tls_as_well() {
    let authority = Authority::new();
    for announced in ["IP:127.0.0.1", "DNS:localhost"] {
        let cluster = Cluster::start(3, false, Some((&authority, announced))).await;
        exactly(&cluster.url(), &believing(&authority), 100).await;
        // Two are named; of the third the cluster tells.
        let two = cluster.url().rsplit_once(',').unwrap().0.to_owned();
        let redis = open(&two, &believing(&authority)).await;
        until("the third is known", PATIENCE, || redis.answers()).await;
        let wrong = open(&cluster.url(), &believing(&Authority::new())).await;
        assert!(cause(&wrong).contains("its certificate is of an authority that is not believed here"), "{}", cause(&wrong));
    }
}
