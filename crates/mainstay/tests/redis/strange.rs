//! Servers and networks that say what no Redis says, or what a Redis says when it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay::auth::{Throttle, ThrottleLimits};
use mainstay::redis::Redis;
use mainstay::stack::rate_limit::{Quota, Together};
use mainstay::testing::{Fault, FaultProxy, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::servers::{Canary, PATIENCE, Server};
use super::tries::{client, somebody};
use super::{LONG, WAIT, address, open, until};

/// A server that passes for a Redis until it is asked to count; then it says this, over and over.
async fn impostor(says: &'static [u8], often: usize) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, sent) = (format!("redis://{}", listener.local_addr().unwrap()), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(pass_for_redis(stream, says, often, Arc::clone(&count)));
        }
    });
    (url, sent)
}

async fn pass_for_redis(mut stream: TcpStream, says: &'static [u8], often: usize, sent: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let asked = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if !asked.contains("EVALSHA") {
            // As many answers as there are commands.
            let commands = asked.matches("CLIENT").count() + asked.matches("EVAL\r\n").count();
            if stream.write_all(b"+OK\r\n".repeat(commands).as_slice()).await.is_err() {
                return;
            }
            continue;
        }
        for _ in 0..often {
            if stream.write_all(says).await.is_err() {
                return;
            }
            sent.fetch_add(says.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Asks once, as one of two instances that admit eight. The answer is this instance's own.
async fn asked_in_vain(redis: &Redis) -> Duration {
    let quota = Quota::new("test", 8, LONG).together(Some(Together::new(redis.clone(), 2)));
    let begun = Instant::now();
    assert_eq!(quota.count(Uuid::new_v4(), begun).await.unwrap().remaining, 3, "its part");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_what_is_no_answer_cost_nothing_but_the_common_count() {
    let said: [&[u8]; 16] = [
        b"-MOVED 12182 127.0.0.1:1\r\n",
        b"-ASK 12182 127.0.0.1:1\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-BUSY Redis is busy running a script\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"+OK\r\n",
        b"*0\r\n",
        b"$-1\r\n",
        b"*1\r\n*3\r\n:1\r\n:x\r\n:0\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff\x00\xff",
    ];
    for says in said {
        let (url, _) = impostor(says, 1).await;
        let redis = Redis::open(address(&url), "test", Duration::from_secs(5)).await;
        assert!(redis.answers(), "{:?}", redis.cause());
        let took = asked_in_vain(&redis).await;
        let words = String::from_utf8_lossy(says);
        assert!(took < Duration::from_secs(2), "{words}: nobody waits for what has come, {took:?}");
        assert_eq!((redis.counts().fallbacks, redis.counts().outages), (1, 1), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_a_hundred_megabytes_is_not_gathered() {
    const PIECE: usize = 64 * 1024;
    static LETTERS: [u8; PIECE] = [b'x'; PIECE];
    // One that is announced, one without an end, and numbers without end.
    let announced: &[u8] = b"$104857600\r\n";
    let numbers: &[u8] = b"*2000000000\r\n";
    for (first, rest) in [(announced, &LETTERS[..]), (numbers, b":1\r\n".as_slice()), (b"+", &LETTERS[..])] {
        let said: &'static [u8] = Box::leak([first, &rest.repeat(PIECE / rest.len())].concat().into_boxed_slice());
        let (url, sent) = impostor(said, 1_600).await;
        let redis = Redis::open(address(&url), "test", Duration::from_secs(5)).await;
        asked_in_vain(&redis).await;
        assert_eq!((redis.counts().outages, redis.counts().late), (1, 0), "the connection is lost, and nobody has waited for the rest");
        // What the kernel holds between two processes is a few megabytes.
        assert!(sent.load(Ordering::Relaxed) < 16 << 20, "{} bytes were taken", sent.load(Ordering::Relaxed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_halves_or_corrupts_is_a_lost_connection_and_heals() {
    let server = Server::start(&[]).await;
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let redis = Redis::open(address(&format!("redis://{}", proxy.address())), "test", WAIT).await;
    for fault in [Fault::Halve(Side::Server), Fault::Corrupt(Side::Server), Fault::Halve(Side::Client), Fault::Corrupt(Side::Client)] {
        until("it is asked", PATIENCE, || redis.answers()).await;
        let outages = redis.counts().outages;
        proxy.set(fault);
        let (canary, mut longest) = (Canary::start(), Duration::ZERO);
        for _ in 0..20 {
            longest = longest.max(asked_in_vain(&redis).await);
        }
        assert!(!redis.answers() && redis.counts().outages > outages, "{fault:?}: {:?}", redis.counts());
        assert!(longest < canary.wait_max(), "{fault:?}: {longest:?}");
        proxy.set(Fault::Ok);
    }
    until("it is asked", PATIENCE, || redis.answers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_never_ends_and_a_long_silence_hold_nobody() {
    let server = Server::start(&["--busy-reply-threshold", "200"]).await;
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let redis = Redis::open(address(&format!("redis://{}", proxy.address())), "test", WAIT).await;
    let mut admin = server.admin().await;
    tokio::spawn(async move {
        let endless = redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<redis::Value>(&mut admin).await;
        assert!(endless.is_err(), "it is ended");
    });
    let quota = Quota::new("test", 8, LONG).together(Some(Together::new(redis.clone(), 2)));
    let asking = tokio::spawn(async move {
        loop {
            quota.count(Uuid::new_v4(), Instant::now()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    until("it says BUSY", PATIENCE, || redis.cause().is_some_and(|cause| cause.contains("(BUSY)"))).await;
    asking.abort();
    let _: String = server.tell("SCRIPT KILL").await;
    until("it is asked", PATIENCE, || redis.answers()).await;

    // Silent for longer than anybody waits: what was begun is ended, and connections do not pile up.
    proxy.set(Fault::Blackhole);
    for _ in 0..5 {
        asked_in_vain(&redis).await;
    }
    assert!(!redis.answers());
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        asked_in_vain(&redis).await;
        most = most.max(proxy.connections());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(most <= 6, "{most} connections to a server that says nothing");
    proxy.set(Fault::Ok);
    until("it is asked", PATIENCE, || redis.answers()).await;
}

fn cause_of(redis: &Redis) -> String {
    assert!(!redis.answers());
    redis.cause().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_with_any_characters_signs_in_and_a_wrong_one_is_said_to_be_wrong() {
    let server = Server::start(&[]).await;
    let _: String = server.tell("ACL SETUSER some/one on >p@ss:w%rd,#?é ~test:* +@scripting +@read +@write +@connection +time").await;
    let _: String = server.tell("ACL SETUSER default off").await;
    let at = |account: &str| format!("redis://{account}127.0.0.1:{}", server.port);
    let right = open(&at("some%2Fone:p%40ss%3Aw%25rd%2C%23%3F%C3%A9@")).await;
    assert!(right.answers(), "{:?}", right.cause());
    for max in [8, 2_000] {
        let quota = Quota::new("test", max, LONG).together(Some(Together::new(right.clone(), 2)));
        assert_eq!(quota.count(Uuid::new_v4(), Instant::now()).await.unwrap().remaining, max - 1);
    }
    let throttle = Throttle::new(ThrottleLimits::default(), Instant::now()).together("t4", Some(right.clone()));
    throttle.admit(somebody(), client(1), Instant::now()).await.unwrap().failed();
    assert_eq!(right.counts().fallbacks, 0);
    let wrong = open(&at("some%2Fone:wrong-word@")).await;
    assert!(cause_of(&wrong).starts_with("the user or the password in REDIS_URL is not the right one"), "{}", cause_of(&wrong));
    assert!(!format!("{wrong:?} {}", cause_of(&wrong)).contains("wrong-word"));
    let without = open(&at("")).await;
    assert!(cause_of(&without).contains("(NOAUTH)"), "{}", cause_of(&without));
}
