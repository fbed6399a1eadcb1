//! Hot reads come from memory, and no write is ever read back as it was before.

mod instances;
mod shared;

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use mainstay::auth::Role;
use mainstay::cache::Counts;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::ground::{Ground, Service, within};

on_both! {
    what_was_read_once_is_answered_without_the_database
    every_caller_reads_the_same
    who_has_it_already_is_told_so
    every_coding_is_the_same_product_and_head_says_what_get_says
    sixty_four_readers_of_one_product_cost_one_query
    no_reader_gets_what_was_before_a_write_that_was_answered
    what_was_not_there_is_there_when_it_is_made
    a_page_changes_with_any_product
    a_change_by_another_process_is_seen
    without_a_cache_every_read_asks
}

const SOON: Duration = Duration::from_secs(10);

async fn product(service: &Service) -> (Client, String) {
    let editor = service.account(Role::Editor).await.client;
    let description = "Long enough to be worth a coding of its own. ".repeat(40);
    let created = editor.post("/api/products", &json!({"name": "Hot", "description": description})).await.expect(201);
    (editor, created.header("location").unwrap().to_owned())
}

fn version(product: &Value) -> i64 {
    product["version"].as_i64().unwrap()
}

async fn seen(client: &Client, path: &str) -> i64 {
    version(&client.get(path).await.expect(200).data())
}

fn since(service: &Service, before: Counts) -> (u64, u64) {
    let now = service.app.cache.counts();
    (now.misses - before.misses, now.hits + now.waits - before.hits - before.waits)
}

async fn what_was_read_once_is_answered_without_the_database(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (_, path) = product(&service).await;
    let stranger = service.stranger();
    let (read, page) = (stranger.get(&path).await.expect(200).text(), stranger.get("/api/products?limit=5").await.expect(200).text());
    // The index has written down that it has seen the product, and looks at it no more.
    service.app.search.caught_up().await;
    let nowhere = format!("/api/products/{}", Uuid::new_v4());
    for path in [&path, "/api/products?limit=5"] {
        stranger.get(path).await.expect(200);
    }
    stranger.get(&nowhere).await.expect(404);
    ground.execute("ALTER TABLE products RENAME TO elsewhere").await;
    // On a machine that is too busy to read the log in time, nothing is believed for a moment, and the database is asked in vain.
    let kept = async |path: &str| {
        let begun = Instant::now();
        loop {
            let answer = stranger.get(path).await;
            if answer.status != 500 || begun.elapsed() > SOON {
                return answer;
            }
        }
    };
    for _ in 0..10 {
        assert_eq!(kept(&path).await.expect(200).text(), read);
        assert_eq!(kept("/api/products?limit=5").await.expect(200).text(), page);
        assert_eq!(kept(&nowhere).await.expect(404).code(), "product_not_found");
    }
    stranger.get("/api/products?limit=6").await.expect(500);
    let bytes = service.app.cache.counts().bytes;
    assert!(bytes > 0 && bytes < 64 << 20, "{bytes}");
}

async fn every_caller_reads_the_same(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (editor, path) = product(&service).await;
    let removed = editor.post("/api/products", &json!({"name": "Removed"})).await.expect(201).header("location").unwrap().to_owned();
    editor.delete(&removed).await.expect(204);
    let callers = [
        service.admin().await.client,
        editor,
        service.account(Role::User).await.client,
        service.stranger(),
        service.stranger().with_token("no token"),
    ];
    // Whoever fills the cache.
    for first in 0..callers.len() {
        service.app.cache.forget_all();
        let order = callers.iter().cycle().skip(first).take(callers.len());
        let mut bodies = HashSet::new();
        for caller in order {
            bodies.insert(caller.get(&path).await.expect(200).text());
            caller.get(&removed).await.expect(404);
        }
        assert_eq!(bodies.len(), 1);
    }
}

async fn who_has_it_already_is_told_so(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let uncached = ground.start(&[("DATA_DIR", &ground.file("uncached").display().to_string()), ("CACHE_SIZE", "0")]).await;
    let (editor, path) = product(&service).await;
    let ask = async |client: &Client, method: &str, path: &str, known: &str, coding: &str| {
        let fields = [("if-none-match", known), ("accept-encoding", coding)];
        client.ask(method, path, &fields, b"").await
    };
    for path in [path.as_str(), "/api/products?limit=2&sort=-created_at"] {
        let mut tags = HashSet::new();
        for coding in ["identity", "zstd", "br", "gzip"] {
            let mut same = HashSet::new();
            for client in [&service.stranger(), &editor, &uncached.stranger()] {
                let whole = ask(client, "GET", path, "\"other\", W/\"another\"", coding).await.expect(200);
                let tag = whole.header("etag").unwrap().to_owned();
                assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}: strong");
                assert_eq!((whole.header("cache-control"), whole.header("vary").is_some()), (Some("public, no-cache"), true));
                let listed = format!("\"other\",W/{tag}");
                for (method, known) in [("GET", tag.as_str()), ("HEAD", &tag), ("GET", &listed), ("GET", "*")] {
                    let same = ask(client, method, path, known, coding).await.expect(304);
                    assert_eq!((same.header("etag"), same.text()), (Some(tag.as_str()), String::new()), "{coding} {method} {known}");
                    for absent in ["content-length", "content-encoding", "content-type", "link"] {
                        assert_eq!(same.header(absent), None, "{coding} {method} {known}: {absent}");
                    }
                    assert!(same.header("vary").unwrap().contains("accept-encoding") && same.header("x-request-id").is_some());
                }
                same.insert(tag);
            }
            assert_eq!(same.len(), 1, "{coding}: the same bytes on every instance, kept or not");
            tags.extend(same);
        }
        assert_eq!(tags.len(), 4, "{tags:?}: each coding has its own");
        let tag = service.stranger().get(path).await.expect(200).header("etag").unwrap().to_owned();
        editor.patch(&format!("/api/products/{}", product_id(path, &service).await), &json!({"name": format!("Other {path}")})).await.expect(200);
        let changed = ask(&service.stranger(), "GET", path, &tag, "identity").await.expect(200);
        assert_ne!(changed.header("etag"), Some(tag.as_str()));
    }
    // Who writes is not asked what he has.
    ask(&editor, "DELETE", &path, "*", "identity").await.expect(204);
    ask(&editor, "GET", &path, "*", "identity").await.expect(404);
}

/// The product of this path, or the first of this list.
async fn product_id(path: &str, service: &Service) -> String {
    let data = service.stranger().get(path).await.expect(200).data();
    data.get(0).unwrap_or(&data)["id"].as_str().unwrap().to_owned()
}

async fn every_coding_is_the_same_product_and_head_says_what_get_says(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (_, path) = product(&service).await;
    let stranger = service.stranger();
    let plain = stranger.get(&path).await.expect(200);
    assert_eq!((plain.header("content-encoding"), plain.header("content-type")), (None, Some("application/json")));
    for coding in ["zstd", "br", "gzip"] {
        let ask = async |method: &str| stranger.ask(method, &path, &[("accept-encoding", coding)], b"").await.expect(200);
        let (first, again, head) = (ask("GET").await, ask("GET").await, ask("HEAD").await);
        for answer in [&first, &again, &head] {
            assert_eq!(answer.header("content-encoding"), Some(coding));
            let vary: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "vary").map(|(_, value)| value.to_ascii_lowercase()).collect();
            assert!(vary.iter().any(|value| value.contains("accept-encoding")), "{vary:?}");
        }
        assert_eq!(first.body, again.body);
        assert_eq!(head.header("content-length"), first.header("content-length"));
        assert!(first.body.len() < plain.body.len());
        let mut decoded = Vec::new();
        match coding {
            "zstd" => decoded = zstd::decode_all(&first.body[..]).unwrap(),
            "gzip" => drop(flate2::read::GzDecoder::new(&first.body[..]).read_to_end(&mut decoded).unwrap()),
            // The unit tests of the cache decode it.
            _ => decoded.clone_from(&plain.body),
        }
        assert_eq!(decoded, plain.body);
    }
    let opted_out = stranger.ask("GET", &path, &[("accept-encoding", "gzip"), ("x-no-compression", "1")], b"").await.expect(200);
    assert_eq!((opted_out.header("content-encoding"), &opted_out.body), (None, &plain.body));
    // One, and one more whenever a busy machine is late to read the log.
    let misses = service.app.cache.counts().misses;
    assert!((1..=5).contains(&misses), "{misses} of 13 reads asked the database");
}

async fn sixty_four_readers_of_one_product_cost_one_query(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (_, path) = product(&service).await;
    service.app.search.caught_up().await;
    for _ in 0..5 {
        service.app.cache.forget_all();
        let before = service.app.cache.counts();
        let asked: Vec<_> = (0..64)
            .map(|_| {
                let (client, path) = (service.stranger(), path.clone());
                tokio::spawn(async move { client.get(&path).await.expect(200).text() })
            })
            .collect();
        let mut bodies = HashSet::new();
        for asked in asked {
            bodies.insert(asked.await.unwrap());
        }
        let (misses, kept) = since(&service, before);
        // One, and another one for those who come after a tenth of a second on a machine that is late to read the log.
        assert!((1..=3).contains(&misses) && misses + kept == 64 && bodies.len() == 1, "{misses} asked, {kept} did not, {} bodies", bodies.len());
    }
}

async fn no_reader_gets_what_was_before_a_write_that_was_answered(ground: Arc<Ground>) {
    let service = ground.start(&[("RATE_LIMIT_MAX", "1000000000")]).await;
    let (editor, path) = product(&service).await;
    let (answered, over) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (client, path, answered, over) = (service.stranger(), path.clone(), answered.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Acquire) {
                    let least = answered.load(Ordering::Acquire);
                    let read = seen(&client, &path).await;
                    assert!(read >= least, "version {read} after {least} was answered");
                }
            })
        })
        .collect();
    for _ in 0..60 {
        let written = version(&editor.patch(&path, &json!({"name": Uuid::new_v4().to_string()})).await.expect(200).data());
        answered.store(written, Ordering::Release);
        assert_eq!(seen(&editor, &path).await, written);
    }
    over.store(true, Ordering::Release);
    for reader in readers {
        reader.await.unwrap();
    }
    let counts = service.app.cache.counts();
    assert!(counts.hits > 0, "{counts:?}");
}

async fn what_was_not_there_is_there_when_it_is_made(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (editor, path) = product(&service).await;
    let admin = service.admin().await.client;
    for _ in 0..10 {
        editor.delete(&path).await.expect(204);
        for _ in 0..3 {
            service.stranger().get(&path).await.expect(404);
        }
        admin.ask("POST", &format!("{path}/restore"), &[], b"").await.expect(200);
        service.stranger().get(&path).await.expect(200);
    }
}

async fn a_page_changes_with_any_product(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (editor, path) = product(&service).await;
    let stranger = service.stranger();
    let page = async || stranger.get("/api/products?limit=2&sort=-created_at").await.expect(200).json();
    assert_eq!(page().await["data"][0]["name"], "Hot");
    editor.patch(&path, &json!({"name": "Hotter"})).await.expect(200);
    assert_eq!(page().await["data"][0]["name"], "Hotter");
    for name in ["Second", "Third"] {
        editor.post("/api/products", &json!({"name": name})).await.expect(201);
        assert_eq!(page().await["data"][0]["name"], name);
    }
    let with_link = stranger.get("/api/products?limit=2&sort=-created_at").await;
    assert!(with_link.header("link").is_some_and(|link| link.contains("cursor=")), "a page from memory leads on");
    editor.delete(&path).await.expect(204);
    assert_eq!(page().await["meta"]["next_cursor"], Value::Null);
    for wrong in ["limit=0", "limit=2&limit=3", "colour=red"] {
        stranger.get(&format!("/api/products?{wrong}")).await.expect(400);
    }
}

async fn a_change_by_another_process_is_seen(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (_, path) = product(&service).await;
    let stranger = service.stranger();
    for round in 2..5 {
        seen(&stranger, &path).await;
        ground.execute(&format!("UPDATE products SET version = {round}")).await;
        let begun = Instant::now();
        within(Duration::from_secs(2), "the change by hand", || async { seen(&stranger, &path).await == round }).await;
        eprintln!("seen after {:?}", begun.elapsed());
    }
}

async fn without_a_cache_every_read_asks(ground: Arc<Ground>) {
    let service = ground.start(&[("CACHE_SIZE", "0")]).await;
    let (_, path) = product(&service).await;
    let stranger = service.stranger();
    seen(&stranger, &path).await;
    let packed = stranger.ask("GET", &path, &[("accept-encoding", "gzip")], b"").await.expect(200);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    ground.execute("UPDATE products SET version = 7").await;
    assert_eq!(seen(&stranger, &path).await, 7);
    assert_eq!(service.app.cache.counts(), Counts::default());
}
