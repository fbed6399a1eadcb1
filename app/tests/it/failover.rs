//! PostgreSQL fails over to a standby that never had the last commits: clear refusals meanwhile, service within a second, and then the truth of the new
//! primary, which gives the numbers of the lost transactions to others.

mod pair;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::auth::Role;
use mainstay::news::Hearing;
use serde_json::json;

use self::pair::{Pair, number, on};
use crate::client::Client;
use crate::ground::{Account, Ground, Service, within};

on_postgres! {
    what_never_reached_the_new_primary_is_forgotten_everywhere
    an_old_primary_that_lives_on_and_takes_no_writes_is_left
}

const PATIENCE: Duration = Duration::from_secs(30);
/// What a client waits for service when the address leads to the new primary.
const BACK: Duration = Duration::from_secs(1);
/// What it takes to leave an old primary: a look, a new connection that takes writes, another one that listens.
const LEFT: Duration = Duration::from_secs(5);

/// The ids that a search finds.
async fn found(client: &Client, words: &str) -> Vec<String> {
    let hits = client.get(&format!("/api/products/search?q={words}")).await.expect(200).data();
    hits.as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
}

async fn created(editor: &Client, name: &str) -> String {
    editor.post("/api/products", &json!({"name": name})).await.expect(201).data()["id"].as_str().unwrap().to_owned()
}

async fn name(client: &Client, id: &str) -> Option<String> {
    let answer = client.get(&format!("/api/products/{id}")).await;
    match answer.status {
        200 => answer.data()["name"].as_str().map(str::to_owned),
        404 => None,
        other => panic!("{other}: {}", answer.text()),
    }
}

async fn listed(client: &Client) -> Vec<String> {
    let products = client.get("/api/products?limit=50").await.expect(200).data();
    let mut names: Vec<String> = products.as_array().unwrap().iter().map(|product| product["name"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

async fn hears(service: &Service) {
    within(PATIENCE, "the instance hears", || async { service.app.auth.hearing() == Hearing::Live }).await;
}

/// A change that the new primary commits under a number far below the last one that was read.
async fn by_hand(pair: &Pair, id: &str, name: &str) {
    let folded = name.to_lowercase();
    on(&pair.standby, &format!("UPDATE products SET name = '{name}', name_folded = '{folded}' WHERE id = '{id}'")).await;
}

async fn what_never_reached_the_new_primary_is_forgotten_everywhere(ground: Arc<Ground>) {
    let mut pair = Pair::start().await;
    let (url, folder) = (pair.url(), ground.file("sleeper").display().to_string());
    let settings = [("DATABASE_URL", url.as_str()), ("DB_ACQUIRE_TIMEOUT", "1s")];
    let sleeping = [settings[0], ("DATA_DIR", folder.as_str())];
    let (service, sleeper) = (ground.start(&settings).await, ground.start(&sleeping).await);
    let account = service.account(Role::Editor).await;
    let (editor, stranger) = (account.client.clone(), service.stranger());
    let ended = service.account(Role::User).await;
    let kept = created(&editor, "Kept").await;
    let renamed = created(&editor, "Renamed before").await;
    let removed = created(&editor, "Removed before").await;

    pair.part().await;
    let mut lost = Vec::new();
    // Each takes numbers of transactions and of changes.
    for number in 0..30 {
        lost.push(created(&editor, &format!("Lost {number}")).await);
    }
    editor.patch(&format!("/api/products/{renamed}"), &json!({"name": "Renamed in vain"})).await.expect(200);
    editor.delete(&format!("/api/products/{removed}")).await.expect(204);
    let cursor = number(&pair.primary, "SELECT max(xact) AS n FROM product_changes").await;
    for service in [&service, &sleeper] {
        let stranger = service.stranger();
        within(PATIENCE, "the index has what will be lost", || async { found(&stranger, "vain").await == [renamed.clone()] }).await;
        assert_eq!((listed(&stranger).await.len(), name(&stranger, &lost[0]).await), (32, Some("Lost 0".to_owned())));
    }
    ended.client.get("/api/users/me").await.expect(200);
    sleeper.end().await;

    pair.primary.kill();
    is_refused(&stranger, &editor, &kept).await;
    pair.promote().await;
    by_hand(&pair, &kept, "Truth of today").await;
    on(&pair.standby, &format!("DELETE FROM sessions WHERE id = '{}'", ended.session)).await;
    let last = number(&pair.standby, "SELECT max(xact) AS n FROM product_changes").await;
    assert!(last < cursor, "the numbers are given again: {last}, and {cursor} was read");

    pair.proxy.redirect(pair.standby.address());
    let led = Instant::now();
    within(BACK, "reads come back", || async { stranger.get("/api/products?limit=50").await.status == 200 }).await;
    tells_the_truth(&service, &kept, &renamed, &removed, &lost).await;
    // Believed for a quarter of a second without news.
    within(BACK, "the session that ended is refused", || async { ended.client.get("/api/users/me").await.status == 401 }).await;
    editor.patch(&format!("/api/products/{removed}"), &json!({"name": "Written again"})).await.expect(200);
    assert!(led.elapsed() < BACK + PATIENCE / 10, "{:?}", led.elapsed());
    within(PATIENCE, "the index has what is new", || async { found(&stranger, "today").await == [kept.clone()] }).await;
    assert_eq!(found(&stranger, "again").await.as_slice(), std::slice::from_ref(&removed));
    assert!(found(&stranger, "lost").await.is_empty() && found(&stranger, "vain").await.is_empty());
    assert_eq!(service.app.search.standing().documents, 3, "nothing that was lost is left in the index");
    hears(&service).await;
    by_hand(&pair, &renamed, "Heard").await;
    within(BACK, "changes are heard from the new primary", || async { name(&stranger, &renamed).await.as_deref() == Some("Heard") }).await;

    // One that slept through it comes with an index that has read further than this primary has counted, or other things under the same numbers.
    let awake = ground.start(&sleeping).await;
    let reader = awake.stranger();
    within(PATIENCE, "its index tells the truth", || async {
        found(&reader, "today").await == [kept.clone()] && found(&reader, "lost").await.is_empty()
    })
    .await;
    within(PATIENCE, "nothing is in use", || async { service.app.database.stats().in_use == 0 }).await;
    // A pool of six and the one that listens, twice; the test's own.
    assert!(number(&pair.standby, "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'mainstay'").await <= 14);
}

/// While there is no primary, everything that needs one is refused, with the time to come again.
async fn is_refused(stranger: &Client, editor: &Client, kept: &str) {
    let path = format!("/api/products/{kept}");
    // Nothing that was read before is given for longer than a tenth of a second.
    within(PATIENCE, "the outage shows", || async { stranger.get(&path).await.status == 503 }).await;
    for _ in 0..3 {
        for refused in [stranger.get("/api/products").await, editor.patch(&path, &json!({"name": "No"})).await] {
            assert_eq!(refused.expect(503).header("retry-after"), Some("1"));
        }
    }
}

async fn tells_the_truth(service: &Service, kept: &str, renamed: &str, removed: &str, lost: &[String]) {
    let stranger = service.stranger();
    assert_eq!(name(&stranger, kept).await.as_deref(), Some("Truth of today"));
    assert_eq!(name(&stranger, renamed).await.as_deref(), Some("Renamed before"));
    assert_eq!(name(&stranger, removed).await.as_deref(), Some("Removed before"));
    for lost in lost {
        assert_eq!(name(&stranger, lost).await, None);
    }
    assert_eq!(listed(&stranger).await, ["Removed before", "Renamed before", "Truth of today"]);
}

async fn an_old_primary_that_lives_on_and_takes_no_writes_is_left(ground: Arc<Ground>) {
    let pair = Pair::start().await;
    let service = ground.start(&[("DATABASE_URL", &pair.url())]).await;
    let Account { client: editor, .. } = service.account(Role::Editor).await;
    let stranger = service.stranger();
    let kept = created(&editor, "Kept").await;
    assert_eq!(name(&stranger, &kept).await.as_deref(), Some("Kept"));
    hears(&service).await;
    pair.part().await;
    on(&pair.primary, "ALTER SYSTEM SET default_transaction_read_only = on").await;
    on(&pair.primary, "SELECT 1 AS one FROM pg_reload_conf()").await;
    pair.promote().await;
    by_hand(&pair, &kept, "Truth of today").await;
    pair.proxy.redirect(pair.standby.address());

    // Nobody writes: the connection that listens finds out that it and the others were left behind.
    within(LEFT, "the service reads the new primary", || async { name(&stranger, &kept).await.as_deref() == Some("Truth of today") }).await;
    within(PATIENCE, "writes are taken", || async { editor.patch(&format!("/api/products/{kept}"), &json!({"type": "tea"})).await.status == 200 })
        .await;
    hears(&service).await;
    by_hand(&pair, &kept, "Truth of tomorrow").await;
    within(BACK, "changes are heard from it", || async { name(&stranger, &kept).await.as_deref() == Some("Truth of tomorrow") }).await;
    within(PATIENCE, "the index follows it", || async { found(&stranger, "tomorrow").await == [kept.clone()] }).await;
    let left = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'mainstay'";
    within(PATIENCE, "nothing stays at the old one", || async { number(&pair.primary, left).await == 0 }).await;
}
