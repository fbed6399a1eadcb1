//! Search: what it finds, that it follows every write whoever made it, and that it survives what happens to its files.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mainstay::auth::Role;
use mainstay::store::query;
use serde_json::{Value, json};

use crate::client::{Client, encoded};
use crate::ground::{Ground, Service, within};

/// The index looks at the change log five times a second. On PostgreSQL it waits for older transactions of the whole server, other tests' among them.
const FOLLOWED: Duration = Duration::from_secs(5);

on_both! {
    the_sample_is_found_best_first
    a_writer_finds_its_own_write_at_once_and_nothing_that_it_removed
    a_write_behind_the_services_back_is_found_soon
    filters_and_facets_agree
    pages_show_each_product_once
    no_text_is_an_error
    a_parameter_that_is_not_allowed_is_named
    an_index_survives_a_restart_without_being_built_again
    a_damaged_index_is_built_again
    an_index_of_another_database_is_built_anew
    two_processes_on_one_folder_both_find_everything
}

through_pooler! {
    a_writer_finds_its_own_write_at_once_and_nothing_that_it_removed
    a_write_behind_the_services_back_is_found_soon
    an_index_survives_a_restart_without_being_built_again
    two_processes_on_one_folder_both_find_everything
}

mod only {
    use super::*;
    on_postgres! { a_transaction_that_began_early_and_commits_late_is_not_missed a_restored_database_is_found_again }

    async fn a_transaction_that_began_early_and_commits_late_is_not_missed(ground: Arc<Ground>) {
        let service = ground.start(&[]).await;
        let editor = service.account(Role::Editor).await.client;
        let early = created(&editor, &json!({"name": "Early bird"})).await;
        let database = ground.database().await;
        let mut transaction = database.begin(None).await.unwrap();
        // It takes its number now.
        query("UPDATE products SET name = 'Latecomer', name_folded = 'latecomer'").once().execute(&mut transaction).await.unwrap();
        let other = created(&editor, &json!({"name": "Overtaker"})).await;
        ground.execute("UPDATE products SET name = 'Overtaken', name_folded = 'overtaken' WHERE name = 'Overtaker'").await;
        assert_eq!(found(&editor, "early").await, [early.as_str()], "what is not committed is not seen");
        transaction.commit().await.unwrap();
        within(FOLLOWED, "the late commit", || async { found(&editor, "latecomer").await == [early.clone()] }).await;
        within(FOLLOWED, "the one that overtook it", || async { found(&editor, "overtaken").await == [other.clone()] }).await;
        assert!(found(&editor, "early").await.is_empty());
    }

    async fn a_restored_database_is_found_again(ground: Arc<Ground>) {
        let service = ground.start(&[]).await;
        created(&service.account(Role::Editor).await.client, &json!({"name": "Restored"})).await;
        stopped(service, &ground).await;
        // As after a dump of a server that had counted further.
        ground.execute("UPDATE product_changes SET xact = xact + 1000000000").await;
        ground.execute("UPDATE products SET name = 'Afterwards', name_folded = 'afterwards', updated_at = now()").await;
        ground.execute("UPDATE product_changes SET xact = xact + 1000000000").await;
        let service = ground.start(&[]).await;
        within(FOLLOWED, "the restored product", || async { found(&service.stranger(), "afterwards").await.len() == 1 }).await;
    }
}

/// Ends a service, and waits until its index is free for the next one.
async fn stopped(service: Service, ground: &Ground) {
    service.end().await;
    let lock = ground.data_dir().join("search/0/lock");
    within(FOLLOWED, "the index is released", || async { std::fs::File::open(&lock).unwrap().try_lock().is_ok() }).await;
}

async fn created(editor: &Client, body: &Value) -> String {
    editor.post("/api/products", body).await.expect(201).data()["id"].as_str().unwrap().to_owned()
}

/// The ids that a text finds, best first.
async fn found(client: &Client, text: &str) -> Vec<String> {
    let rows = client.get(&format!("/api/products/search?limit=100&q={}", encoded(text))).await.expect(200).data();
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

async fn the_sample_is_found_best_first(ground: Arc<Ground>) {
    let service = ground.start(&[("SAMPLE", "true")]).await;
    let stranger = service.stranger();
    let body = stranger.get("/api/products/search?q=wireless+headphones").await.expect(200).json();
    let rows = body["data"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    for row in &rows[..5] {
        let text = row.to_string().to_lowercase();
        assert!(row["category"][0] == "headphones" && text.contains("wireless"), "{row}");
    }
    let scores: Vec<_> = rows.iter().map(|row| row["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(rows[0]["highlights"].to_string().to_lowercase().contains("<mark>"), "{}", rows[0]);
    assert!(body["meta"]["total"].as_u64().unwrap() >= 20);
    // The beginning of the last word, and a word mistyped.
    assert_eq!(stranger.get("/api/products/search?q=wireless+headph").await.json()["data"][0]["category"][0], "headphones");
    let mistyped = stranger.get("/api/products/search?q=wireles+headphoness").await.json();
    assert_eq!(mistyped["data"][0]["category"][0], "headphones", "{}", mistyped["meta"]);
    assert!(mistyped["meta"]["corrected"].is_string(), "{}", mistyped["meta"]);
    let total = ground.number("SELECT count(*) AS n FROM products").await;
    assert_eq!(stranger.get("/api/products/search").await.json()["meta"]["total"], total, "no text is everything");
}

async fn a_writer_finds_its_own_write_at_once_and_nothing_that_it_removed(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (editor, admin) = (service.account(Role::Editor).await.client, service.admin().await.client);
    for number in 0..10 {
        let id = created(&editor, &json!({"name": format!("Zyx{number} machine")})).await;
        let path = format!("/api/products/{id}");
        let (text, renamed) = (format!("zyx{number}"), format!("qwv{number}"));
        assert_eq!(found(&editor, &text).await, [id.as_str()]);
        editor.patch(&path, &json!({"name": format!("Qwv{number} engine")})).await.expect(200);
        assert_eq!((found(&editor, &text).await.len(), found(&editor, &renamed).await), (0, vec![id.clone()]));
        editor.delete(&path).await.expect(204);
        assert!(found(&editor, &renamed).await.is_empty());
        admin.ask("POST", &format!("{path}/restore"), &[], b"").await.expect(200);
        assert_eq!(found(&editor, &renamed).await, [id]);
    }
}

async fn a_write_behind_the_services_back_is_found_soon(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let id = created(&editor, &json!({"name": "Ordinary"})).await;
    ground.execute("UPDATE products SET name = 'Extraordinary', name_folded = 'extraordinary'").await;
    within(FOLLOWED, "an update by SQL", || async { found(&editor, "extraordinary").await == [id.clone()] }).await;
    ground.execute("DELETE FROM products").await;
    within(FOLLOWED, "a removal by SQL", || async { service.app.search.standing().documents == 0 }).await;
    assert!(found(&editor, "extraordinary").await.is_empty());
}

/// Products of a few makers, kinds and prices.
async fn catalogue(editor: &Client) {
    for number in 0..24 {
        let mut product = json!({"name": format!("Lamp {number}"), "manufacturer": format!("Maker {}", number % 3), "category": ["home", if number % 2 == 0 { "desk" } else { "floor" }],
            "type": if number % 4 == 0 { "led" } else { "halogen" }});
        if number % 6 != 0 {
            product["price"] = json!(format!("{number}.25"));
        }
        created(editor, &product).await;
    }
}

async fn filters_and_facets_agree(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    catalogue(&editor).await;
    let meta = editor.get("/api/products/search?q=lamp&limit=1").await.expect(200).json()["meta"].clone();
    assert_eq!(meta["total"], 24);
    let parameters = [("manufacturer", 3), ("category", 3), ("type", 2)];
    for (parameter, values) in parameters {
        let facet = meta["facets"][parameter].as_array().unwrap();
        assert_eq!(facet.len(), values, "{facet:?}");
        for entry in facet {
            // A facet's value can be put into the filter of the same name, and leaves as many as it said.
            let filter = format!("{parameter}={}", encoded(entry["value"].as_str().unwrap()));
            let body = editor.get(&format!("/api/products/search?q=lamp&limit=100&{filter}")).await.expect(200).json();
            assert_eq!(
                (&body["meta"]["total"], body["data"].as_array().unwrap().len() as u64),
                (&entry["count"], entry["count"].as_u64().unwrap()),
                "{filter}"
            );
            let listed = editor.get(&format!("/api/products?limit=100&{filter}")).await.expect(200).data();
            assert_eq!(listed.as_array().unwrap().len() as u64, entry["count"].as_u64().unwrap(), "the list agrees: {filter}");
        }
    }
    for (filter, expected) in [("price_min=5&price_max=10.25", 5), ("price_min=23.25", 1), ("price_min=23.2501", 0), ("type=led&price_min=1", 4)] {
        let body = editor.get(&format!("/api/products/search?q=lamp&{filter}")).await.expect(200).json();
        assert_eq!(body["meta"]["total"], expected, "{filter}");
    }
}

async fn pages_show_each_product_once(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    catalogue(&editor).await;
    for (text, limit) in [("lamp", 5), ("lamp", 24), ("", 7), ("maker", 1)] {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let answer = editor.get(&format!("/api/products/search?q={text}&limit={limit}{cursor}")).await.expect(200);
            let body = answer.json();
            assert_eq!(body["meta"]["total"], 24);
            ids.extend(body["data"].as_array().unwrap().iter().map(|row| row["id"].to_string()));
            let Some(next) = body["meta"]["next_cursor"].as_str() else { break };
            assert!(answer.header("link").unwrap().contains(next));
            cursor = format!("&cursor={next}");
        }
        assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (24, 24), "`{text}` by {limit}");
    }
}

async fn no_text_is_an_error(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let id = created(&editor, &json!({"name": "Gaming laptop", "description": "unclosed bracket"})).await;
    assert_eq!(found(&editor, "laptop [unclosed").await, [id.as_str()], "operators are words");
    assert_eq!(found(&editor, "\"gaming laptop\"").await, [id.as_str()]);
    let long = ["\u{1f600}".repeat(1000), "a ".repeat(1500), "x".repeat(2500), "\"".repeat(1000), "(".repeat(1000), "a\u{301}".repeat(500)];
    let short = [
        "",
        " ",
        "\"",
        "\"unclosed",
        "'",
        "\\",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "*",
        "?",
        "~",
        "^",
        "+",
        "-",
        "!",
        "&&",
        "||",
        "AND",
        "OR",
        "NOT",
        "AND OR NOT",
        "name:",
        "name:laptop",
        "*:*",
        "laptop~999",
        "laptop^1e9",
        "[a TO z]",
        "{* TO *}",
        "-laptop",
        "+",
        "a:b:c:d",
        "/regex.*/",
        "(((a+)+)+)+$",
        "^(a|a)*$",
        ".*",
        "%",
        "_",
        "'; DROP TABLE products; --",
        "\u{0}",
        "laptop\u{0}",
        "\u{202e}",
        "\u{feff}",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        "\u{4f60}\u{597d}",
        "\u{130}",
        "\u{ffff}",
        "\n\r\t",
        "<mark>",
        "</mark><script>",
    ];
    for text in short.into_iter().map(str::to_owned).chain(long) {
        let answer = editor.get(&format!("/api/products/search?q={}", encoded(&text))).await;
        // A target over 8 KB is refused before it is a search (RFC 9110, 15.5.15).
        let expected = if encoded(&text).len() > 8000 { 414 } else { 200 };
        assert_eq!(answer.status, expected, "{text:?}: {}", answer.text());
    }
    for bytes in ["%ff", "%c3%28", "%ed%a0%80", "%", "%zz"] {
        let answer = editor.get(&format!("/api/products/search?q={bytes}")).await;
        assert!([200, 400].contains(&answer.status), "{bytes}: {}", answer.text());
    }
}

async fn a_parameter_that_is_not_allowed_is_named(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    for (query, field) in [
        ("colour=red", "colour"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("q=a&q=b", "q"),
        ("price_min=x", "price_min"),
        ("type=%00", "type"),
        ("sort=name", "sort"),
    ] {
        stranger.get(&format!("/api/products/search?{query}")).await.names(field);
    }
    for cursor in ["bent", "MTAwMDAx", "LTE", "e30", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"] {
        assert_eq!(stranger.get(&format!("/api/products/search?cursor={cursor}")).await.expect(404).code(), "cursor_not_found", "{cursor}");
    }
}

async fn an_index_survives_a_restart_without_being_built_again(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let kept = created(&editor, &json!({"name": "Kept"})).await;
    let changed = created(&editor, &json!({"name": "Changeable"})).await;
    // Followed to the end of the log, not only handed over.
    ground.execute("UPDATE products SET name = 'Followed', name_folded = 'followed' WHERE name = 'Changeable'").await;
    within(FOLLOWED, "the update", || async { found(&editor, "followed").await == [changed.clone()] }).await;
    stopped(service, &ground).await;
    // It is no longer in the log: whoever builds again does not find it.
    ground.execute("DELETE FROM product_changes WHERE product_id = (SELECT id FROM products WHERE name = 'Kept')").await;
    ground.execute("UPDATE products SET name = 'Meanwhile', name_folded = 'meanwhile' WHERE name = 'Followed'").await;
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    assert_eq!(found(&stranger, "kept").await, [kept]);
    within(FOLLOWED, "what changed while nobody ran", || async { found(&stranger, "meanwhile").await == [changed.clone()] }).await;
    assert!(found(&stranger, "followed").await.is_empty());
}

async fn a_damaged_index_is_built_again(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    catalogue(&editor).await;
    stopped(service, &ground).await;
    let folder = ground.data_dir().join("search/0/index");
    let mut damaged = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let length = std::fs::metadata(&path).unwrap().len();
        if length > 0 {
            std::fs::write(&path, vec![0xA5; length as usize / 2]).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 2, "there were files to damage in {}", folder.display());
    let service = ground.start(&[]).await;
    within(FOLLOWED, "everything is found again", || async { found(&service.stranger(), "lamp").await.len() == 24 }).await;
}

async fn an_index_of_another_database_is_built_anew(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    created(&service.account(Role::Editor).await.client, &json!({"name": "Of the first database"})).await;
    stopped(service, &ground).await;
    // The folder is kept, the database is another one: deleted and made again, or named by another setting.
    let moved = match ground.url.starts_with("sqlite:") {
        true => "UPDATE schema_migrations SET applied_at = applied_at + 1",
        false => "UPDATE schema_migrations SET applied_at = applied_at + interval '1 second'",
    };
    ground.execute(moved).await;
    ground.execute("DELETE FROM products").await;
    ground.execute("DELETE FROM product_changes").await;
    let service = ground.start(&[]).await;
    let answer = service.stranger().get("/api/products/search?q=database").await.expect(200);
    assert_eq!(answer.json()["meta"]["total"], 0, "nothing is found that is not there: {}", answer.text());
    let admin = service.admin().await.client;
    let second = created(&admin, &json!({"name": "Of the second database"})).await;
    assert_eq!(found(&admin, "database").await, [second]);
}

async fn two_processes_on_one_folder_both_find_everything(ground: Arc<Ground>) {
    let first = ground.start(&[]).await;
    let editor = first.account(Role::Editor).await.client;
    let before = created(&editor, &json!({"name": "Before"})).await;
    let second = ground.start(&[]).await;
    let other = second.admin().await.client;
    within(FOLLOWED, "the second finds what was there", || async { found(&other, "before").await == [before.clone()] }).await;
    let by_second = created(&other, &json!({"name": "Written by the second"})).await;
    within(FOLLOWED, "the first finds what the second wrote", || async { found(&editor, "written").await == [by_second.clone()] }).await;
    first.end().await;
    assert_eq!(found(&other, "before").await, [before], "and the first may go");
}
