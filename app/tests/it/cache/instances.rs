//! Several instances over one database: what one of them writes, and what is lost on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::news::Hearing;
use mainstay::store::query;
use mainstay::testing::Fault;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use super::{SOON, product, seen, since, version};
use crate::ground::{Ground, within};
use crate::standing::{one_behind_a_proxy, two};

on_postgres! {
    a_statement_of_any_size_is_told
    a_transaction_that_commits_late_is_told
    an_instance_that_is_cut_off_says_that_what_it_gives_may_be_old
    an_instance_that_is_cut_off_answers_nothing_old_for_long
    an_instance_behind_a_silent_connection_answers_nothing_old_for_long
    a_listener_that_is_killed_has_missed_nothing
    a_client_that_leaves_while_others_wait_hands_its_work_on
}

async fn a_statement_of_any_size_is_told(ground: Arc<Ground>) {
    let (one, other) = two(&ground).await;
    let (_, path) = product(&one).await;
    let columns = "name, name_folded, category, category_path, tags, attributes, created_at, updated_at";
    for count in [199, 2_000] {
        ground
            .execute(&format!(
                "INSERT INTO products (id, version, {columns}) SELECT gen_random_uuid(), 1, {columns} FROM products, generate_series(1, {count}) WHERE sku IS NULL AND name = 'Hot' AND description IS NOT NULL"
            ))
            .await;
    }
    let reader = other.stranger();
    for (number, statement) in [
        "UPDATE products SET version = 2",
        "UPDATE products SET version = 3 WHERE id IN (SELECT id FROM products ORDER BY description NULLS LAST LIMIT 200)",
        "UPDATE products SET version = 4 WHERE description IS NOT NULL",
    ]
    .iter()
    .enumerate()
    {
        let (before, expected) = (seen(&reader, &path).await, number as i64 + 2);
        assert_eq!(before, expected - 1);
        ground.execute(statement).await;
        within(SOON, statement, || async { seen(&reader, &path).await == expected }).await;
    }
}

async fn a_transaction_that_commits_late_is_told(ground: Arc<Ground>) {
    let (one, other) = two(&ground).await;
    let (editor, path) = product(&one).await;
    let (_, second) = product(&one).await;
    let reader = other.stranger();
    let database = ground.database().await;
    let mut early = database.begin(None).await.unwrap();
    query(format!("UPDATE products SET version = 100 WHERE id = '{}'", second.rsplit('/').next().unwrap())).once().execute(&mut early).await.unwrap();
    // Others overtake it, and are told meanwhile.
    for _ in 0..20 {
        assert_eq!(seen(&reader, &second).await, 1);
        let written = version(&editor.patch(&path, &json!({"name": Uuid::new_v4().to_string()})).await.expect(200).data());
        within(SOON, "the one that overtook", || async { seen(&reader, &path).await == written }).await;
    }
    early.commit().await.unwrap();
    within(SOON, "the one that was early and late", || async { seen(&reader, &second).await == 100 }).await;
}

async fn an_instance_that_is_cut_off_says_that_what_it_gives_may_be_old(ground: Arc<Ground>) {
    let (one, other, proxy) = one_behind_a_proxy(&ground, &[("RATE_LIMIT_MAX", "1000000")]).await;
    let (editor, path) = product(&one).await;
    let there = other.stranger();
    let before = seen(&there, &path).await;
    proxy.set(Fault::Reset);
    let written = version(&editor.patch(&path, &json!({"name": "Unheard of"})).await.expect(200).data());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = begun.elapsed();
        let answer = there.get(&path).await.expect(200);
        let says = answer.header("cache-status").map(str::to_owned);
        // A reading of the log is good for a tenth of a second, and a busy machine may look at the request later than it was sent.
        assert!(says.is_some() || asked < Duration::from_millis(150), "{asked:?}");
        assert_eq!((version(&answer.data()), says.is_none_or(|says| says.starts_with("mainstay; hit; ttl=-"))), (before, true));
    }
    assert!(other.app.cache.counts().stale > 0);
    // What it never had it does not make up.
    there.get(&format!("/api/products/{}", Uuid::new_v4())).await.expect(503);
    proxy.set(Fault::Ok);
    within(SOON, "it is back", || async { seen(&there, &path).await == written }).await;
    assert_eq!(there.get(&path).await.expect(200).header("cache-status"), None);
}

async fn an_instance_that_is_cut_off_answers_nothing_old_for_long(ground: Arc<Ground>) {
    cut_off(ground, Fault::Reset).await;
}

async fn an_instance_behind_a_silent_connection_answers_nothing_old_for_long(ground: Arc<Ground>) {
    cut_off(ground, Fault::Blackhole).await;
}

async fn cut_off(ground: Arc<Ground>, fault: Fault) {
    let (one, other, proxy) = one_behind_a_proxy(&ground, &[("CACHE_STALE_MAX", "0s")]).await;
    let (editor, path) = product(&one).await;
    let there = other.stranger();
    within(SOON, "it is there", || async { there.get(&path).await.status == 200 }).await;
    proxy.set(fault);
    let written = version(&editor.patch(&path, &json!({"name": "Unheard of"})).await.expect(200).data());
    let (begun, mut last) = (Instant::now(), None);
    while begun.elapsed() < Duration::from_secs(4) {
        let asked = begun.elapsed();
        if there.get(&path).await.status == 200 {
            last = Some(asked);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A reading of the log is good for a tenth of a second, whether or not it is noticed that no other one comes.
    assert!(last.is_none_or(|last| last < Duration::from_millis(150)), "{last:?}");
    proxy.set(Fault::Ok);
    within(SOON, "it is back", || async { there.get(&path).await.status == 200 }).await;
    assert_eq!(seen(&there, &path).await, written);
}

async fn a_listener_that_is_killed_has_missed_nothing(ground: Arc<Ground>) {
    let (one, other) = two(&ground).await;
    let (_, path) = product(&one).await;
    for version in 2..5 {
        let readers = [one.stranger(), other.stranger()];
        for reader in &readers {
            seen(reader, &path).await;
        }
        // The change in the moment in which nobody listens.
        let changed = ground
            .execute(&format!(
                "UPDATE products SET version = {version} WHERE 0 < (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE datname = current_database() AND (query LIKE 'SELECT pg_current_snapshot%' OR query LIKE 'LISTEN%') AND pid <> pg_backend_pid())"
            ))
            .await;
        assert_eq!(changed, 1, "there were listeners");
        for (reader, service) in readers.iter().zip([&one, &other]) {
            within(Duration::from_secs(2), "the change", || async { seen(reader, &path).await == version }).await;
            within(SOON, "it hears", || async { service.app.auth.hearing() == Hearing::Live }).await;
            assert_eq!(seen(reader, &path).await, version);
        }
    }
}

async fn a_client_that_leaves_while_others_wait_hands_its_work_on(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (_, path) = product(&service).await;
    service.app.search.caught_up().await;
    service.app.cache.forget_all();
    let before = service.app.cache.counts();
    let database = ground.database().await;
    let mut transaction = database.begin(None).await.unwrap();
    query("LOCK TABLE products IN ACCESS EXCLUSIVE MODE").execute(&mut transaction).await.unwrap();
    let mut leaves = TcpStream::connect(service.address).await.unwrap();
    leaves.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    within(SOON, "it asks", || async { since(&service, before).0 == 1 }).await;
    let stay: Vec<_> = (0..8)
        .map(|_| {
            let (client, path) = (service.stranger(), path.clone());
            tokio::spawn(async move { client.get(&path).await.expect(200) })
        })
        .collect();
    let nine = || {
        let (made, waited) = since(&service, before);
        (made + waited == 9).then_some(made)
    };
    within(SOON, "they wait", || async { nine().is_some() }).await;
    // One; and another one for those who came when a busy machine was late to read the log.
    let made = nine().unwrap();
    assert!(made <= 3, "{made}");
    let waiting = format!(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock' AND query LIKE '%WHERE id = $1 AND%'",
        ground.name()
    );
    assert_eq!(ground.number(&waiting).await, i64::try_from(made).unwrap(), "a query for each");
    drop(leaves);
    within(SOON, "another one asks", || async { since(&service, before).0 > made }).await;
    transaction.rollback().await.unwrap();
    for stays in stay {
        stays.await.unwrap();
    }
}
