//! Limits that instances count together, in a real Redis and a real cluster, and what happens without them.
//!
//! `TEST_REDIS_URL` and `TEST_REDIS_CLUSTER_URL` name them (`scripts/test` starts both).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "redis/deadline.rs"]
mod deadline;
#[path = "redis/failover.rs"]
mod failover;
#[path = "redis/servers.rs"]
mod servers;
#[path = "redis/strange.rs"]
mod strange;
#[path = "redis/tls.rs"]
mod tls;
#[path = "redis/tries.rs"]
mod tries;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use mainstay::redis::{Address, Redis, TlsFiles};
use mainstay::stack::rate_limit::window::Decision;
use mainstay::stack::rate_limit::{Quota, Together};
use mainstay::testing::{Fault, FaultProxy};
use secrecy::SecretString;
use uuid::Uuid;

const WAIT: Duration = Duration::from_millis(100);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

fn url() -> String {
    std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL names a Redis; scripts/test starts one")
}

fn address(url: &str) -> Address {
    Address::new(&SecretString::from(url.to_owned()), &TlsFiles::default()).unwrap()
}

async fn open(url: &str) -> Redis {
    open_with(url, &TlsFiles::default()).await
}

async fn open_with(url: &str, files: &TlsFiles) -> Redis {
    let address = Address::new(&SecretString::from(url.to_owned()), files).unwrap();
    // A busy machine is not what these tests are about.
    Redis::open(address, "test", Duration::from_secs(5)).await
}

/// One of some instances, with connections of its own.
async fn instance(url: &str, max: u32, window: Duration, instances: u32) -> (Arc<Quota<Uuid>>, Redis) {
    let redis = open(url).await;
    (Arc::new(Quota::new("test", max, window).together(Some(Together::new(redis.clone(), instances)))), redis)
}

async fn exactly(url: &str, files: &TlsFiles, max: u32) {
    const INSTANCES: u32 = 3;
    const REQUESTS: u32 = 10_000;
    let key = Uuid::new_v4();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..INSTANCES {
        let redis = open_with(url, files).await;
        let quota = Arc::new(Quota::new("test", max, LONG).together(Some(Together::new(redis, INSTANCES))));
        // Sixty-four at once on each instance.
        for client in 0..64 {
            let quota = quota.clone();
            asking.spawn(async move {
                let mut admitted = 0;
                for _ in (client..REQUESTS.div_ceil(INSTANCES)).step_by(64) {
                    admitted += u32::from(quota.count(key, Instant::now()).await.is_ok());
                }
                admitted
            });
        }
    }
    assert_eq!(asking.join_all().await.into_iter().sum::<u32>(), max);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_requests_to_three_instances_exactly_the_quota_is_admitted() {
    exactly(&url(), &TlsFiles::default(), 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_quota_is_counted_exactly_too() {
    exactly(&url(), &TlsFiles::default(), 3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_as_well() {
    let url = std::env::var("TEST_REDIS_CLUSTER_URL").expect("TEST_REDIS_CLUSTER_URL names nodes of a cluster; scripts/test starts one");
    exactly(&url, &TlsFiles::default(), 100).await;
}

/// What was admitted: between which two moments.
async fn admitted_during(quota: &Arc<Quota<Uuid>>, key: Uuid, time: Duration) -> Vec<(Instant, Instant)> {
    let end = Instant::now() + time;
    let mut admitted = Vec::new();
    while Instant::now() < end {
        let before = Instant::now();
        if quota.count(key, before).await.is_ok() {
            admitted.push((before, Instant::now()));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    admitted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_placement_of_the_window_holds_more_than_the_quota_and_it_comes_back() {
    // The second is counted by granules. Both are asked for far more than they admit.
    for (max, window, askers) in [(5, Duration::from_millis(300), 2), (1_100, Duration::from_secs(1), 64)] {
        let key = Uuid::new_v4();
        let instances = [instance(&url(), max, window, 2).await.0, instance(&url(), max, window, 2).await.0];
        let time = 5 * window;
        let mut asking = tokio::task::JoinSet::new();
        for asker in 0..askers {
            let quota = instances[asker % 2].clone();
            asking.spawn(async move { admitted_during(&quota, key, time).await });
        }
        let mut all: Vec<(Instant, Instant)> = asking.join_all().await.into_iter().flatten().collect();
        all.sort_unstable();
        for (number, (begin, _)) in all.iter().enumerate() {
            // Those that were certainly within one window.
            let within =
                all[number..].iter().take_while(|(before, _)| *before < *begin + window).filter(|(_, after)| *after < *begin + window).count();
            assert!(within <= max as usize, "{within} of {max}");
        }
        assert!(all.len() >= 2 * max as usize, "the quota comes back: {} of {max} in five windows", all.len());
    }
}

fn retry_after(refused: mainstay::Error) -> Duration {
    let answer = refused.into_response();
    Duration::from_secs(answer.headers()["retry-after"].to_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_time_that_a_refusal_names_a_request_passes_on_any_instance() {
    for (max, window) in [(3, Duration::from_secs(2)), (1_100, Duration::from_secs(4))] {
        let key = Uuid::new_v4();
        let (one, _) = instance(&url(), max, window, 2).await;
        let (two, _) = instance(&url(), max, window, 2).await;
        let mut filling = tokio::task::JoinSet::new();
        for asker in 0..32 {
            let quota = one.clone();
            filling.spawn(async move {
                for _ in (asker..max).step_by(32) {
                    let _ = quota.count(key, Instant::now()).await;
                }
            });
        }
        filling.join_all().await;
        // On a machine that took longer than the window to fill it, some of it is free already.
        let wait = loop {
            if let Err(refused) = two.count(key, Instant::now()).await {
                break retry_after(refused);
            }
        };
        tokio::time::sleep(wait).await;
        let Decision { allowed, .. } = two.count(key, Instant::now()).await.unwrap();
        assert!(allowed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_was_lowered_tells_when_enough_of_it_has_left() {
    let (key, window) = (Uuid::new_v4(), Duration::from_secs(3));
    let (before, _) = instance(&url(), 10, window, 1).await;
    for _ in 0..10 {
        before.count(key, Instant::now()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (after, _) = instance(&url(), 3, window, 1).await;
    let refused = after.count(key, Instant::now()).await.unwrap_err();
    tokio::time::sleep(retry_after(refused)).await;
    after.count(key, Instant::now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_to_be_refused_asks_nobody() {
    let (quota, redis) = instance(&url(), 2, LONG, 2).await;
    let key = Uuid::new_v4();
    for _ in 0..50 {
        let _ = quota.count(key, Instant::now()).await;
    }
    let asked = redis.counts().asked;
    // A script that the server does not have is sent once more.
    assert!((3..=6).contains(&asked), "{asked}: two that were admitted and the one that was refused first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_forgotten_its_scripts_is_sent_them_again() {
    let (quota, _) = instance(&url(), 100, LONG, 2).await;
    let key = Uuid::new_v4();
    quota.count(key, Instant::now()).await.unwrap();
    let mut connection = redis::Client::open(url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
    assert_eq!(quota.count(key, Instant::now()).await.unwrap().remaining, 98);
}

/// A Redis behind a network that can fail.
async fn behind_a_proxy() -> (FaultProxy, String) {
    let url = url();
    let (credentials, address) = url.rsplit_once('@').unwrap();
    let proxy = FaultProxy::start(address.parse::<SocketAddr>().unwrap()).await.unwrap();
    let through = format!("{credentials}@{}", proxy.address());
    (proxy, through)
}

async fn until(what: &str, most: Duration, holds: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < most, "{what}, not within {most:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_instance_admits_its_part_nobody_waits_long_and_it_comes_back_by_itself() {
    for fault in [Fault::Blackhole, Fault::Reset, Fault::Refuse, Fault::Latency(Duration::from_secs(2))] {
        let (proxy, url) = behind_a_proxy().await;
        let redis = Redis::open(address(&url), "test", WAIT).await;
        let quota = Quota::new("test", 8, LONG).together(Some(Together::new(redis.clone(), 2)));
        let fresh = whole(&quota, &redis).await;

        proxy.set(fault);
        if matches!(fault, Fault::Reset | Fault::Refuse) {
            // The proxy ends what is open in its own time.
            until("the connections have ended", Duration::from_secs(5), || proxy.connections() == 0).await;
        }
        let mut admitted = 1;
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let begun = Instant::now();
            admitted += u32::from(quota.count(fresh, Instant::now()).await.is_ok());
            longest = longest.max(begun.elapsed());
        }
        assert_eq!(admitted, 4, "{fault:?}: half of eight, and what was admitted before counts");
        // Each of three waits for 100 ms; the rest is what a busy machine may take to wake somebody.
        assert!(
            redis.counts().late <= 3 && longest < Duration::from_secs(1),
            "{fault:?}: {} were late, somebody waited {longest:?}",
            redis.counts().late
        );
        assert!(!redis.answers(), "{fault:?}");

        proxy.set(Fault::Ok);
        whole(&quota, &redis).await;
    }
}

/// Waits until the instances count together, and gives the key of which one was counted so.
async fn whole(quota: &Quota<Uuid>, redis: &Redis) -> Uuid {
    let begun = Instant::now();
    loop {
        until("it is asked", Duration::from_secs(5), || redis.answers()).await;
        let key = Uuid::new_v4();
        if quota.count(key, Instant::now()).await.unwrap().remaining == 7 {
            return key;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it is not whole again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_starts_without_redis_serves_and_finds_it_later() {
    let (proxy, url) = behind_a_proxy().await;
    proxy.set(Fault::Refuse);
    let redis = Redis::open(address(&url), "test", WAIT).await;
    assert!(!redis.answers());
    let quota = Quota::new("test", 8, LONG).together(Some(Together::new(redis.clone(), 4)));
    assert_eq!(quota.count(Uuid::new_v4(), Instant::now()).await.unwrap().remaining, 1, "a quarter of eight");
    proxy.set(Fault::Ok);
    until("it is asked", Duration::from_secs(3), || redis.answers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_and_refuses_to_count_is_left_alone() {
    let url = url();
    let mut connection = redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let name = format!("u{}", Uuid::new_v4().simple());
    // May ask whether it lives, and nothing else, as of a server that is full or follows another one.
    let () = redis::cmd("ACL").arg("SETUSER").arg(&name).arg("on").arg(">secret").arg("~*").arg("+ping").query_async(&mut connection).await.unwrap();
    let (_, address) = url.rsplit_once('@').unwrap();
    let limited = open(&format!("redis://{name}:secret@{address}")).await;
    assert!(!limited.answers());
    let quota = Quota::new("test", 8, LONG).together(Some(Together::new(limited.clone(), 2)));
    assert_eq!(quota.count(Uuid::new_v4(), Instant::now()).await.unwrap().remaining, 3, "its part");
    // With the rights comes the count, by itself.
    let () = redis::cmd("ACL").arg("SETUSER").arg(&name).arg("+@all").query_async(&mut connection).await.unwrap();
    until("it is asked", Duration::from_secs(5), || limited.answers()).await;
    assert_eq!(quota.count(Uuid::new_v4(), Instant::now()).await.unwrap().remaining, 7);
    // And when they go, nobody asks in vain for long.
    let () = redis::cmd("ACL").arg("SETUSER").arg(&name).arg("-evalsha").arg("-eval").query_async(&mut connection).await.unwrap();
    assert_eq!(quota.count(Uuid::new_v4(), Instant::now()).await.unwrap().remaining, 3, "its part again");
    assert!(!limited.answers());
    let () = redis::cmd("ACL").arg("DELUSER").arg(&name).query_async(&mut connection).await.unwrap();
}
