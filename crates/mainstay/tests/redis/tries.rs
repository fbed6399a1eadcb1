//! Tries of passwords that instances count together, and what they tell each other of them.

use std::time::{Duration, Instant};

use mainstay::auth::{AccountKey, Allowance, Throttle, ThrottleLimits};
use mainstay::client::ClientKey;
use mainstay::redis::Redis;
use mainstay::testing::Fault;
use uuid::Uuid;

use super::{WAIT, address, behind_a_proxy, open, url};

/// A throttle of one of several instances, under a name of this test's own.
async fn throttle(url: &str, name: &'static str) -> Throttle {
    Throttle::new(ThrottleLimits::default(), Instant::now()).together(name, Some(open(url).await))
}

pub(super) fn somebody() -> AccountKey {
    AccountKey::of(&Uuid::new_v4().to_string())
}

pub(super) fn client(number: u32) -> ClientKey {
    ClientKey::from(std::net::IpAddr::from((0x0a00_0000 + number).to_be_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_on_all_instances_and_in_a_cluster_slow_down_as_one() {
    for url in [url(), std::env::var("TEST_REDIS_CLUSTER_URL").unwrap()] {
        let (one, two) = (throttle(&url, "t1").await, throttle(&url, "t1").await);
        let account = somebody();
        let mut trying = tokio::task::JoinSet::new();
        for number in 0..64 {
            let throttle = if number % 2 == 0 { one.clone() } else { two.clone() };
            trying.spawn(async move { throttle.admit(account, client(number), Instant::now()).await.map(|pass| pass.failed()).is_ok() });
        }
        let begun = Instant::now();
        let admitted = trying.join_all().await.into_iter().filter(|admitted| *admitted).count();
        let free = ThrottleLimits::default().account.free as usize;
        // After a second there is one more, after three the next.
        let later = usize::from(begun.elapsed() > Duration::from_millis(900)) + usize::from(begun.elapsed() > Duration::from_millis(2_900));
        assert!((free..=free + later).contains(&admitted), "{admitted} of all strangers at one account");
        let wait = loop {
            match two.admit(account, client(1_000), Instant::now()).await {
                Err(refusal) => break refusal.retry_after,
                Ok(pass) => pass.failed(),
            }
        };
        assert!(wait <= Duration::from_secs(8), "{wait:?}");
        tokio::time::sleep(wait).await;
        one.admit(account, client(1_001), Instant::now()).await.unwrap().failed();
        // Another account, and the same one where it is known, are not slowed down.
        one.admit(somebody(), client(1), Instant::now()).await.unwrap().failed();
        one.vouch(account, client(7), Instant::now());
        let known = async || two.admit(account, client(7), Instant::now()).await;
        let begun = Instant::now();
        while known().await.map(|pass| pass.unused()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(5), "what one instance vouches for, the other knows");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        one.vouch_alone(account, client(8), Instant::now());
        let begun = Instant::now();
        while known().await.map(|pass| pass.unused()).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(5), "what one instance forgets, the other does not know");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_that_were_none_are_taken_back_everywhere() {
    let (one, two) = (throttle(&url(), "t2").await, throttle(&url(), "t2").await);
    let account = somebody();
    for number in 0..40 {
        let begun = Instant::now();
        // The one before is taken back in the background.
        let pass = loop {
            match if number % 2 == 0 { &one } else { &two }.admit(account, client(1), Instant::now()).await {
                Ok(pass) => break pass,
                Err(_) => assert!(begun.elapsed() < Duration::from_millis(900), "nothing counts, so nothing slows down"),
            }
        };
        if number % 3 == 0 { pass.succeeded(Instant::now()) } else { pass.unused() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_told_by_one_instance_to_come_back_is_let_in_by_another() {
    let limits = ThrottleLimits { strangers: Some(Allowance { per_second: 0, at_once: 4 }), ..ThrottleLimits::default() };
    for url in [url(), std::env::var("TEST_REDIS_CLUSTER_URL").unwrap()] {
        let open = async || Throttle::new(limits, Instant::now()).together("t5", Some(open(&url).await));
        let (one, two, three) = (open().await, open().await, open().await);
        // Names of this run's own: what was told is kept for a minute.
        let admit =
            async |throttle: &Throttle, account, number| throttle.admit(account, client(number), Instant::now()).await.map(|pass| pass.failed());
        for throttle in [&one, &two, &three] {
            assert!(admit(throttle, somebody(), 50).await.is_ok() && admit(throttle, somebody(), 51).await.is_ok(), "half of them");
        }
        let account = somebody();
        let wait = admit(&one, account, 52).await.unwrap_err().retry_after;
        assert!(wait <= Duration::from_secs(2), "{wait:?}");
        tokio::time::sleep(wait).await;
        assert!(admit(&two, somebody(), 53).await.is_err(), "nobody told this one");
        assert!(admit(&two, account, 52).await.is_ok());
        assert!(admit(&three, account, 52).await.is_err(), "who was let in has waited for that");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_an_instance_judges_tries_by_what_it_has_seen() {
    let (proxy, url) = behind_a_proxy().await;
    let redis = Redis::open(address(&url), "test", WAIT).await;
    let throttle = Throttle::new(ThrottleLimits::default(), Instant::now()).together("t3", Some(redis.clone()));
    let account = somebody();
    for number in 0..6 {
        throttle.admit(account, client(number), Instant::now()).await.unwrap().failed();
    }
    proxy.set(Fault::Reset);
    let mut admitted = 6;
    for number in 6..30 {
        admitted += u32::from(throttle.admit(account, client(number), Instant::now()).await.map(|pass| pass.failed()).is_ok());
    }
    assert_eq!(admitted, 10, "ten free tries in all");
}
