//! Redis fails over: another server takes its address, or another node of the cluster its keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use mainstay::redis::Redis;
use mainstay::stack::rate_limit::{Quota, Together};
use mainstay::testing::FaultProxy;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::servers::{Canary, Cluster, PATIENCE, Server};
use super::{LONG, WAIT, address, until};

/// Clients that ask all the time, of one key each that they share by their number.
struct Load {
    quota: Arc<Quota<Uuid>>,
    keys: Vec<Uuid>,
    admitted: Vec<AtomicU32>,
    longest_us: AtomicU64,
    asked: AtomicU64,
    end: AtomicBool,
    canary: Canary,
}

impl Load {
    fn start(redis: &Redis, max: u32, instances: u32, keys: usize) -> (Arc<Self>, JoinSet<()>) {
        let load = Arc::new(Self {
            quota: Arc::new(Quota::new("test", max, LONG).together(Some(Together::new(redis.clone(), instances)))),
            keys: (0..keys).map(|_| Uuid::new_v4()).collect(),
            admitted: (0..keys).map(|_| AtomicU32::new(0)).collect(),
            longest_us: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            end: AtomicBool::new(false),
            canary: Canary::start(),
        });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(Arc::clone(&load).ask(client));
        }
        (load, clients)
    }

    async fn ask(self: Arc<Self>, client: usize) {
        for number in client.. {
            if self.end.load(Ordering::Relaxed) {
                return;
            }
            let which = number % self.keys.len();
            let begun = Instant::now();
            match self.quota.count(self.keys[which], begun).await {
                Ok(_) => _ = self.admitted[which].fetch_add(1, Ordering::Relaxed),
                Err(refused) => assert_eq!(refused.into_response().status(), 429, "nothing else ever comes of Redis"),
            }
            self.longest_us.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn admitted(&self) -> u32 {
        self.admitted.iter().map(|admitted| admitted.load(Ordering::Relaxed)).sum()
    }

    async fn end(&self, clients: JoinSet<()>) {
        self.end.store(true, Ordering::Relaxed);
        clients.join_all().await;
        let longest = Duration::from_micros(self.longest_us.load(Ordering::Relaxed));
        assert!(longest < self.canary.wait_max(), "somebody waited {longest:?}");
    }

    /// Until nothing passes anymore. That is not when as many passed as may: one that was counted as its answer was lost passed for nobody.
    async fn used_up(&self) {
        let begun = Instant::now();
        loop {
            let before = self.admitted();
            self.goes_on(10 * (CLIENTS * self.keys.len()) as u64).await;
            if self.admitted() == before {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the quota is never used up");
        }
    }

    /// So many more requests have been answered.
    async fn goes_on(&self, more: u64) {
        let before = self.asked.load(Ordering::Relaxed);
        until("requests are answered", PATIENCE, || self.asked.load(Ordering::Relaxed) >= before + more).await;
    }
}

const CLIENTS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_replica_takes_over_limits_go_on_and_what_passes_beyond_them_is_bounded() {
    const MAX: u32 = 1_000;
    let (mut primary, replica) = (Server::start(&[]).await, Server::start(&[]).await);
    let _: String = replica.tell(&format!("REPLICAOF 127.0.0.1 {}", primary.port)).await;
    replica.hears(&primary).await;
    let proxy = FaultProxy::start(primary.address()).await.unwrap();
    let redis = Redis::open(address(&format!("redis://{}", proxy.address())), "test", WAIT).await;
    // One of so many instances that it admits nothing by itself: whatever passes beyond the quota was not replicated.
    let (load, clients) = Load::start(&redis, MAX, MAX, 1);
    until("some are admitted", PATIENCE, || load.admitted() > MAX / 4).await;

    primary.kill();
    until("it is left alone", PATIENCE, || !redis.answers()).await;
    load.goes_on(200).await;
    let _: String = replica.tell("REPLICAOF NO ONE").await;
    proxy.redirect(replica.address());
    until("the new one is asked", PATIENCE, || redis.answers()).await;
    load.used_up().await;
    load.end(clients).await;

    let lost = load.admitted().saturating_sub(MAX);
    println!("{lost} of {MAX} were not replicated");
    // A primary tells its replica of a request when it answers it, so these are at most those that were under way.
    assert!(lost <= CLIENTS as u32, "{lost} were not replicated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_that_follows_another_one_counts_for_nobody() {
    let (former, present) = (Server::start(&[]).await, Server::start(&[]).await);
    let proxy = FaultProxy::start(former.address()).await.unwrap();
    let redis = Redis::open(address(&format!("redis://{}", proxy.address())), "test", WAIT).await;
    let (load, clients) = Load::start(&redis, 1_000_000, 2, 1);
    load.goes_on(50).await;
    // The connection stays open, and reading would go on.
    let _: String = former.tell(&format!("REPLICAOF 127.0.0.1 {}", present.port)).await;
    until("it is left alone", PATIENCE, || !redis.answers()).await;
    let outages = redis.counts().outages;
    until("it is known why", PATIENCE, || redis.cause().is_some_and(|cause| cause.contains("(READONLY)"))).await;
    former.until("INFO replication", "master_link_status:up").await;
    load.goes_on(200).await;
    assert!(!redis.answers() && redis.counts().outages == outages, "nobody believes it again: {:?}", redis.counts());
    proxy.redirect(present.address());
    until("the present one is asked", PATIENCE, || redis.answers()).await;
    load.end(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_replica_takes_over_and_the_other_nodes_count_meanwhile() {
    const MAX: u32 = 150;
    const KEYS: usize = 12;
    let mut cluster = Cluster::start(3, true, None).await;
    let redis = Redis::open(address(&cluster.url()), "test", WAIT).await;
    until("all are asked", PATIENCE, || redis.answers()).await;
    let (load, clients) = Load::start(&redis, MAX, 3, KEYS);
    until("some are admitted", PATIENCE, || load.admitted() > KEYS as u32 * 20).await;

    cluster.nodes[0].kill();
    until("it is known", PATIENCE, || !redis.answers()).await;
    let begun = Instant::now();
    until("the replica is asked", PATIENCE, || redis.answers()).await;
    let took = begun.elapsed();
    load.used_up().await;
    load.end(clients).await;
    let most = load.admitted.iter().map(|admitted| admitted.load(Ordering::Relaxed)).max().unwrap();
    println!("the replica was asked after {took:?}; of {MAX} at most {most} were admitted; {:?}", redis.counts());
    // Its own third may pass beyond, and what was not replicated.
    assert!(most <= MAX + MAX / 3 + 2 * CLIENTS as u32, "{most} of {MAX}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_silent_holds_up_three_requests_and_others_go_on_counting() {
    let cluster = Cluster::start(3, false, None).await;
    // The others wait longer for it than this test takes, so they go on.
    for node in &cluster.nodes {
        let _: String = node.tell("CONFIG SET cluster-node-timeout 60000").await;
    }
    let redis = Redis::open(address(&cluster.url()), "test", WAIT).await;
    until("all are asked", PATIENCE, || redis.answers()).await;
    let quota = Quota::new("test", 9, LONG).together(Some(Together::new(redis.clone(), 3)));
    let canary = Canary::start();
    cluster.nodes[1].signal("-STOP");
    let (mut alone, mut together, mut longest) = (0, 0, Duration::ZERO);
    for _ in 0..60 {
        let begun = Instant::now();
        match quota.count(Uuid::new_v4(), begun).await.unwrap().remaining {
            8 => together += 1,
            2 => alone += 1,
            other => panic!("{other}"),
        }
        longest = longest.max(begun.elapsed());
    }
    cluster.nodes[1].signal("-CONT");
    assert!(redis.counts().late <= 3 && longest < canary.wait_max(), "{:?}, {longest:?}", redis.counts());
    // A third of the keys; of sixty fewer than five would be chance of one in ten thousand.
    assert!(alone >= 5 && together >= 20, "{alone} alone, {together} together");
    until("it is asked again", PATIENCE, || redis.answers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_while_they_are_counted_lose_nothing() {
    const MAX: u32 = 600;
    let cluster = Cluster::start(3, false, None).await;
    // With the rights that the documentation names, and no more.
    for node in &cluster.nodes {
        let rights = "~test:* +@scripting +@read +@write +@connection +time +cluster|slots +asking";
        let _: String = node.tell(&format!("ACL SETUSER mainstay on >secret {rights}")).await;
    }
    let url = cluster.url().replace("redis://", "redis://mainstay:secret@");
    let redis = Redis::open(address(&url), "test", Duration::from_secs(5)).await;
    until("all are asked", PATIENCE, || redis.answers()).await;
    let (load, clients) = Load::start(&redis, MAX, 3, 1);
    until("some are admitted", PATIENCE, || load.admitted() > MAX / 10).await;
    let names = cluster.names("test:limit").await;
    let (name, slot) = names.iter().next().unwrap();
    let from = &cluster.nodes[cluster.master_of(*slot, 3)];
    let to = &cluster.nodes[(cluster.master_of(*slot, 3) + 1) % 3];
    let (from_id, to_id): (String, String) = (from.tell("CLUSTER MYID").await, to.tell("CLUSTER MYID").await);
    let _: String = to.tell(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
    let _: String = from.tell(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
    load.goes_on(20).await;
    let _: String = from.tell(&format!("MIGRATE 127.0.0.1 {} {name} 0 5000", to.port)).await;
    // Now the one says ASK and the other one wants ASKING.
    load.goes_on(100).await;
    for node in [to, from] {
        let _: String = node.tell(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
    }
    load.used_up().await;
    load.end.store(true, Ordering::Relaxed);
    clients.join_all().await;
    assert_eq!((load.admitted(), redis.counts().fallbacks), (MAX, 0));
}
