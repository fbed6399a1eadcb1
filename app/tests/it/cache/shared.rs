//! Instances that share what they made: in Redis, beside what each keeps in memory.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use mainstay::news::Hearing;
use mainstay::redis::Script;
use mainstay::store::query;
use mainstay::testing::{Fault, FaultProxy};
use serde_json::json;
use uuid::Uuid;

use super::{SOON, product, seen};
use crate::ground::{Ground, Service, within};
use crate::together::{instances, redis_url};

on_postgres! {
    ten_thousand_writes_are_seen_by_every_instance_within_a_tenth_of_a_second_of_each
    what_one_instance_made_the_others_need_no_database_for
    of_instances_that_miss_the_same_answers_at_once_one_makes_each
    whoever_cannot_make_an_answer_leaves_the_turn_to_the_next
    without_redis_each_makes_its_own
}

/// Instances that hear of each other's changes.
async fn sharing(ground: &Ground, count: usize, url: &str, pairs: &[(&str, &str)]) -> Vec<Service> {
    let services = instances(ground, count, url, pairs).await;
    for service in &services {
        within(SOON, "it hears", || async { service.app.auth.hearing() == Hearing::Live }).await;
    }
    services
}

async fn ten_thousand_writes_are_seen_by_every_instance_within_a_tenth_of_a_second_of_each(ground: Arc<Ground>) {
    const PRODUCTS: usize = 16;
    const WRITES: i64 = 625;
    let services = Arc::new(sharing(&ground, 2, &redis_url(), &[("RATE_LIMIT_MAX", "1000000"), ("RATE_LIMIT_ACCOUNT_MAX", "1000000")]).await);
    let editor = product(&services[0]).await.0;
    let mut writing = tokio::task::JoinSet::new();
    for number in 0..PRODUCTS {
        let path = editor.post("/api/products", &json!({"name": "Hot"})).await.expect(201).header("location").unwrap().to_owned();
        let (services, database) = (services.clone(), ground.database().await);
        let editor = editor.clone();
        writing.spawn(async move {
            let id = path.rsplit('/').next().unwrap().to_owned();
            let readers = [services[0].stranger(), services[1].stranger()];
            let (mut took, mut last) = (Vec::new(), 1);
            for write in 1..=WRITES {
                // Most by a hand that waits for nobody: when this is here, it is committed, and no instance was told. The others through an instance.
                let by_hand = !(write as usize + number).is_multiple_of(10);
                last += 1;
                if by_hand {
                    let mut connection = database.writer(None).await.unwrap();
                    query(format!("UPDATE products SET version = {last} WHERE id = '{id}'")).once().execute(&mut connection).await.unwrap();
                } else {
                    editor.patch(&path, &json!({"name": Uuid::new_v4().to_string()})).await.expect(200);
                    assert_eq!(seen(&readers[0], &path).await, last, "its own instance");
                }
                let begun = Instant::now();
                for reader in &readers {
                    loop {
                        let asked = begun.elapsed();
                        let version = seen(reader, &path).await;
                        if version == last {
                            break;
                        }
                        assert_eq!(version, last - 1, "nothing older");
                        // However busy the machine is: the promise counts from the commit to the request.
                        assert!(asked < Duration::from_millis(100), "version {version} for a request {asked:?} after {last}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                took.push(begun.elapsed());
            }
            for reader in &readers {
                assert_eq!(seen(reader, &path).await, last, "and nothing old afterwards");
            }
            took
        });
    }
    let mut took: Vec<Duration> = writing.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    assert_eq!(took.len(), 10_000);
    let counts: Vec<_> = services.iter().map(|service| service.app.cache.counts()).collect();
    eprintln!("seen by both: median {:?}, 99 % {:?}, most {:?}; {counts:?}", took[5_000], took[9_900], took[9_999]);
    assert!(counts.iter().all(|counts| counts.hits > 0), "{counts:?}");
    assert!(counts.iter().map(|counts| counts.shared).sum::<u64>() > 100, "{counts:?}");
}

async fn what_one_instance_made_the_others_need_no_database_for(ground: Arc<Ground>) {
    let services = sharing(&ground, 3, &redis_url(), &[]).await;
    let (_, path) = product(&services[0]).await;
    services[0].app.search.caught_up().await;
    let nowhere = format!("/api/products/{}", Uuid::new_v4());
    let list = "/api/products?limit=3";
    // Once the log has told of the product, what is made of it may be believed.
    let shared = || async {
        for service in &services {
            service.app.cache.forget_all();
        }
        let before = services[1].app.cache.counts().shared;
        let mut said = Vec::new();
        for service in &services {
            let stranger = service.stranger();
            let (product, page) = (stranger.get(&path).await.expect(200), stranger.get(list).await.expect(200));
            assert_eq!(stranger.get(&nowhere).await.expect(404).code(), "product_not_found");
            said.push((product.text(), page.text(), page.header("link").map(str::to_owned), page.header("etag").map(str::to_owned)));
        }
        assert!(said.windows(2).all(|two| two[0] == two[1]), "{said:?}");
        services[1].app.cache.counts().shared - before
    };
    within(SOON, "it is shared", || async { shared().await == 3 }).await;
    // A change is a change for all of them, whoever kept what.
    services[2].admin().await.client.patch(&path, &json!({"name": "Changed"})).await.expect(200);
    for service in &services {
        within(SOON, "the change", || async { service.stranger().get(&path).await.data()["name"] == "Changed" }).await;
    }
}

async fn of_instances_that_miss_the_same_answers_at_once_one_makes_each(ground: Arc<Ground>) {
    const PAGES: usize = 100;
    let services = sharing(&ground, 3, &redis_url(), &[]).await;
    product(&services[0]).await;
    services[0].app.search.caught_up().await;
    // Until the log has told of the product, nobody believes the others.
    let believed = async |number: usize| {
        let nowhere = format!("/api/products/{}", Uuid::new_v4());
        let before = services[number].app.cache.counts().shared;
        for service in [&services[0], &services[number]] {
            service.stranger().get(&nowhere).await.expect(404);
        }
        services[number].app.cache.counts().shared > before
    };
    for number in [1, 2] {
        within(SOON, "the first is believed", || believed(number)).await;
    }
    let made = || {
        let counts = services.iter().map(|service| service.app.cache.counts());
        counts.map(|counts| counts.misses - counts.shared).sum::<u64>()
    };
    let before = made();
    for page in 0..PAGES {
        let path = format!("/api/products?limit=20&price_min={page}");
        let asked = services.iter().map(|service| {
            let (client, path) = (service.stranger(), path.clone());
            async move { client.get(&path).await.expect(200).text() }
        });
        let pages = futures_util::future::join_all(asked).await;
        assert!(pages.windows(2).all(|two| two[0] == two[1]));
    }
    let made = made() - before;
    // 300 without the others. A busy machine may take longer for one than the others wait.
    assert!((100..=150).contains(&made), "{made}");
}

async fn whoever_cannot_make_an_answer_leaves_the_turn_to_the_next(ground: Arc<Ground>) {
    static MAKING: LazyLock<Script> = LazyLock::new(|| Script::new("return #redis.call('KEYS', ARGV[1])"));
    let services = sharing(&ground, 1, &redis_url(), &[]).await;
    services[0].app.search.caught_up().await;
    ground.execute("ALTER TABLE products RENAME TO elsewhere").await;
    let redis = services[0].app.redis.as_ref().unwrap();
    let turns = || async { redis.run::<i64, _>(&MAKING, &[], &[format!("{}:cache:*:making", ground.name())]).await.unwrap() };
    // A turn ends by itself after a second. Of these some end within it, if they are ended.
    let quick = || async {
        let before = redis.counts().asked;
        let begun = Instant::now();
        services[0].stranger().get(&format!("/api/products/{}", Uuid::new_v4())).await.expect(500);
        // The limit, the turn, and its end.
        let taken = redis.counts().asked >= before + 2;
        within(SOON, "the turn ends", || async { turns().await == 0 }).await;
        taken && begun.elapsed() < Duration::from_millis(500)
    };
    within(SOON, "a turn that is over before its time", quick).await;
}

async fn without_redis_each_makes_its_own(ground: Arc<Ground>) {
    let url = redis_url();
    let (credentials, address) = url.rsplit_once('@').unwrap();
    let proxy = FaultProxy::start(address.parse().unwrap()).await.unwrap();
    let url = format!("{credentials}@{}", proxy.address());
    let services = sharing(&ground, 2, &url, &[("REDIS_TIMEOUT", "100ms")]).await;
    let (editor, path) = product(&services[0]).await;
    for fault in [Fault::Blackhole, Fault::Reset, Fault::Refuse] {
        proxy.set(fault);
        for _ in 0..10 {
            let name = Uuid::new_v4().to_string();
            editor.patch(&path, &json!({"name": name})).await.expect(200);
            for service in &services {
                let begun = Instant::now();
                within(SOON, "the change", || async { service.stranger().get(&path).await.expect(200).data()["name"] == name.as_str() }).await;
                // One late answer of Redis for a request, and what a busy machine adds.
                assert!(begun.elapsed() < Duration::from_secs(2), "{fault:?}");
            }
        }
        proxy.set(Fault::Ok);
        for service in &services {
            within(SOON, "it is back", || async { service.app.redis.as_ref().unwrap().answers() }).await;
        }
    }
}
