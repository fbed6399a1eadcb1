//! Products: what may be written, what comes back, and lists that show each product once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use mainstay::auth::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, encoded};
use crate::ground::Ground;

on_both! {
    a_product_is_created_shown_replaced_changed_removed_and_restored
    absent_and_null_are_two_things_in_a_patch
    a_number_belongs_to_one_product_and_is_free_after_removal
    prices_are_exact
    lists_in_every_order_show_each_product_once
    a_page_is_stable_while_products_are_added_and_removed
    filters_leave_what_they_name
    a_parameter_that_is_not_allowed_is_named
    no_cursor_but_its_own_moves_a_list_and_none_breaks_it
    parallel_changes_of_one_product_lose_none
    every_string_comes_back_unchanged
    nul_is_refused_by_the_name_of_its_field
    members_that_do_not_belong_are_named
    a_body_that_is_no_json_or_too_deep_or_too_large_is_refused
}

through_pooler! {
    a_product_is_created_shown_replaced_changed_removed_and_restored
    a_number_belongs_to_one_product_and_is_free_after_removal
    lists_in_every_order_show_each_product_once
    a_page_is_stable_while_products_are_added_and_removed
    filters_leave_what_they_name
    parallel_changes_of_one_product_lose_none
    every_string_comes_back_unchanged
}

async fn a_product_is_created_shown_replaced_changed_removed_and_restored(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (editor, admin, stranger) = (service.account(Role::Editor).await.client, service.admin().await.client, service.stranger());
    let full = json!({"sku": "hp-1", "name": "Headphones", "description": "Loud.", "manufacturer": "Sony", "category": ["audio", "headphones"], "type": "over-ear",
        "price": "398.00", "currency": "USD", "url": "https://example.com/hp-1", "image": "https://example.com/hp-1.jpg", "tags": ["wireless"], "attributes": {"colour": {"inner": [1, null, 2.5]}}});
    let created = editor.post("/api/products", &full).await.expect(201);
    let product = created.data();
    let path = format!("/api/products/{}", product["id"].as_str().unwrap());
    assert_eq!(created.header("location"), Some(path.as_str()));
    for (name, value) in full.as_object().unwrap() {
        assert_eq!(&product[name], value, "{name}");
    }
    assert_eq!((&product["version"], &product["created_at"]), (&json!(1), &product["updated_at"]));
    assert_eq!(stranger.get(&path).await.expect(200).data(), product);

    let replaced = editor.put(&path, &json!({"name": "Earphones", "sku": "hp-2"})).await.expect(200).data();
    assert_eq!((&replaced["name"], &replaced["version"], &replaced["id"]), (&json!("Earphones"), &json!(2), &product["id"]));
    for gone in ["description", "manufacturer", "type", "price", "currency", "url", "image"] {
        assert!(replaced.get(gone).is_none(), "{gone} stays absent: {replaced}");
    }
    assert_eq!((&replaced["category"], &replaced["tags"], &replaced["attributes"]), (&json!([]), &json!([]), &json!({})));
    assert_eq!(stranger.get(&path).await.data(), replaced);

    editor.delete(&path).await.expect(204);
    assert_eq!(stranger.get(&path).await.expect(404).code(), "product_not_found");
    for refused in [editor.delete(&path).await, editor.patch(&path, &json!({"name": "x"})).await, editor.put(&path, &full).await] {
        assert_eq!(refused.expect(404).code(), "product_not_found");
    }
    let restore = format!("{path}/restore");
    editor.post(&restore, &json!({})).await.expect(403);
    let restored = admin.ask("POST", &restore, &[], b"").await.expect(200).data();
    assert_eq!((&restored["name"], &restored["version"]), (&json!("Earphones"), &json!(4)));
    assert_eq!(admin.ask("POST", &restore, &[], b"").await.expect(200).data(), restored, "asked twice, nothing more happens");
    assert_eq!(stranger.get(&path).await.expect(200).data(), restored);

    let unknown = format!("/api/products/{}", Uuid::new_v4());
    stranger.get(&unknown).await.expect(404);
    assert_eq!(stranger.get("/api/products/nonsense").await.expect(400).json()["message"], "Invalid product ID format");
}

async fn absent_and_null_are_two_things_in_a_patch(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let given = json!({"name": "Lamp", "sku": "l-1", "price": "5.50", "currency": "EUR", "manufacturer": "Lux", "tags": ["a"], "attributes": {"keep": 1, "drop": 2, "deep": {"x": 1, "y": 2}}});
    let path = created(&editor, &given).await;
    let same = editor.patch(&path, &json!({})).await.expect(200).data();
    assert_eq!((&same["price"], &same["sku"], &same["attributes"]), (&json!("5.50"), &json!("l-1"), &given["attributes"]));
    let patch = json!({"price": null, "sku": null, "tags": null, "attributes": {"drop": null, "deep": {"y": null, "z": [1]}, "new": "n"}});
    let changed =
        editor.ask("PATCH", &path, &[("content-type", "application/merge-patch+json")], patch.to_string().as_bytes()).await.expect(200).data();
    assert!(changed.get("price").is_none() && changed.get("sku").is_none(), "{changed}");
    assert_eq!((&changed["name"], &changed["currency"], &changed["manufacturer"]), (&json!("Lamp"), &json!("EUR"), &json!("Lux")));
    assert_eq!((&changed["tags"], &changed["attributes"]), (&json!([]), &json!({"keep": 1, "deep": {"x": 1, "z": [1]}, "new": "n"})));
    let all_gone = editor.patch(&path, &json!({"attributes": null})).await.expect(200).data();
    assert_eq!(all_gone["attributes"], json!({}));
    editor.patch(&path, &json!({"name": null})).await.names("name");
    editor.patch(&path, &json!({"version": 9})).await.names("version");
    editor.patch(&path, &json!({"id": Uuid::new_v4()})).await.names("id");
}

async fn a_number_belongs_to_one_product_and_is_free_after_removal(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let (editor, admin) = (service.account(Role::Editor).await.client, service.admin().await.client);
    let first = created(&editor, &json!({"name": "First", "sku": "same"})).await;
    let second = created(&editor, &json!({"name": "Second", "sku": "other"})).await;
    for refused in [
        editor.post("/api/products", &json!({"name": "Third", "sku": "same"})).await,
        editor.patch(&second, &json!({"sku": "same"})).await,
        editor.put(&second, &json!({"name": "Second", "sku": "same"})).await,
    ] {
        let refused = refused.expect(409);
        assert_eq!((refused.code().as_str(), refused.flaws()[0].0.as_str()), ("sku_taken", "sku"));
    }
    assert_eq!(editor.get(&second).await.data()["version"], 1, "a refused change leaves no trace");
    editor.delete(&first).await.expect(204);
    editor.patch(&second, &json!({"sku": "same"})).await.expect(200);
    let refused = admin.ask("POST", &format!("{first}/restore"), &[], b"").await.expect(409);
    assert_eq!(refused.code(), "sku_taken");
    // Products without a number do not meet.
    created(&editor, &json!({"name": "Fourth"})).await;
    created(&editor, &json!({"name": "Fifth"})).await;
    let asked = (0..20).map(|_| {
        let editor = editor.clone();
        tokio::spawn(async move { editor.post("/api/products", &json!({"name": "Race", "sku": "race"})).await.status })
    });
    let mut statuses = Vec::new();
    for status in asked.collect::<Vec<_>>() {
        statuses.push(status.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (201, &[409; 19][..]));
}

async fn prices_are_exact(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let path = created(&editor, &json!({"name": "Priced"})).await;
    for (given, shown) in [
        ("\"12.65\"", "12.65"),
        ("12.65", "12.65"),
        ("0.1", "0.10"),
        ("19", "19.00"),
        ("\"0\"", "0.00"),
        ("\"0.0001\"", "0.0001"),
        ("\"999999999999.9999\"", "999999999999.9999"),
        ("\"70368744177.6641\"", "70368744177.6641"),
    ] {
        let body = format!(r#"{{"price":{given}}}"#);
        let changed = editor.raw("PATCH", &path, body.as_bytes()).await.expect(200).data();
        assert_eq!(changed["price"], shown, "{given}");
        assert_eq!(editor.get(&path).await.data()["price"], shown, "{given}, read back");
    }
    for refused in ["\"1.23456\"", "-1", "\"-0.01\"", "\"1e3\"", "1e300", "\"1000000000000\"", "\"NaN\"", "\"\"", "true", "[1]", "{}"] {
        editor.raw("PATCH", &path, format!(r#"{{"price":{refused}}}"#).as_bytes()).await.names("price");
    }
}

/// Thirty products with equal names and prices among them, and some without a price.
async fn thirty(editor: &Client) -> BTreeMap<String, Value> {
    let mut products = BTreeMap::new();
    for number in 0..30 {
        let mut given = json!({"name": format!("{}name {}", if number % 2 == 0 { "N" } else { "n" }, number % 7), "category": ["all", if number % 3 == 0 { "third" } else { "rest" }],
            "manufacturer": format!("maker {}", number % 4), "type": if number % 5 == 0 { "fifth" } else { "other" }});
        if number % 4 != 0 {
            given["price"] = json!(format!("{}.50", number % 6));
        }
        let product = editor.post("/api/products", &given).await.expect(201).data();
        products.insert(product["id"].as_str().unwrap().to_owned(), product);
    }
    products
}

/// Every row of a list, page by page.
async fn all(client: &Client, query: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let body = client.get(&format!("/api/products?{query}{cursor}")).await.expect(200).json();
        rows.extend(body["data"].as_array().unwrap().iter().cloned());
        match body["meta"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

async fn lists_in_every_order_show_each_product_once(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let products = thirty(&editor).await;
    let stranger = service.stranger();
    // What a row is ordered by, as text that compares as the row should; a product without a price comes last in both directions.
    let key = |column: &str, product: &Value| match column {
        "price" => product["price"].as_str().map_or("-".to_owned(), |price| format!("{price:0>20}")),
        "name" => product["name"].as_str().unwrap().to_lowercase(),
        _ => product["created_at"].as_str().unwrap().to_owned(),
    };
    for column in ["created_at", "name", "price"] {
        for descending in [false, true] {
            let sort = format!("{}{column}", if descending { "-" } else { "" });
            for limit in [1, 7, 30, 100] {
                let rows = all(&stranger, &format!("sort={sort}&limit={limit}")).await;
                let ids: HashSet<_> = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
                assert_eq!((rows.len(), ids.len()), (30, 30), "{sort} by {limit}");
                assert!(rows.iter().all(|row| &products[row["id"].as_str().unwrap()] == row), "{sort} by {limit}: rows as they were written");
                let keys: Vec<_> = rows.iter().map(|row| key(column, row)).collect();
                let (priced, priceless) = keys.split_at(keys.iter().position(|key| key == "-").unwrap_or(keys.len()));
                let ordered = if descending { priced.is_sorted_by(|a, b| a >= b) } else { priced.is_sorted() };
                assert!(ordered, "{sort} by {limit}: {priced:?}");
                assert!(priceless.iter().all(|key| key == "-") && priceless.len() == if column == "price" { 8 } else { 0 }, "{sort}: {keys:?}");
            }
        }
    }
    let body = stranger.get("/api/products").await.json();
    assert_eq!(body["data"].as_array().unwrap().len(), 20, "the default");
    let answer = stranger.get("/api/products?limit=5&type=other").await;
    let link = answer.header("link").unwrap();
    assert!(link.starts_with("</api/products?limit=5&type=other&cursor=") && link.ends_with(">; rel=\"next\""), "{link}");
}

async fn a_page_is_stable_while_products_are_added_and_removed(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let products = thirty(&editor).await;
    for sort in ["created_at", "-created_at", "name", "-price"] {
        let (mut rows, mut cursor, mut path) = (Vec::new(), String::new(), String::new());
        loop {
            let body = editor.get(&format!("/api/products?limit=4&sort={sort}{cursor}")).await.expect(200).json();
            rows.extend(body["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()));
            // One comes and one goes between every two pages.
            if !path.is_empty() {
                editor.delete(&path).await.expect(204);
            }
            path = created(&editor, &json!({"name": "passing", "price": "2.50"})).await;
            let Some(next) = body["meta"]["next_cursor"].as_str().filter(|_| rows.len() < 60) else { break };
            cursor = format!("&cursor={next}");
        }
        editor.delete(&path).await.expect(204);
        let distinct: HashSet<_> = rows.iter().cloned().collect();
        assert_eq!(distinct.len(), rows.len(), "{sort}: no row twice");
        assert!(products.keys().all(|id| distinct.contains(id)), "{sort}: no row missing");
    }
}

async fn filters_leave_what_they_name(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let products = thirty(&editor).await;
    // A neighbour whose name begins alike is in no category of the others.
    created(&editor, &json!({"name": "neighbour", "category": ["all right", "third"]})).await;
    let price = |product: &Value| product["price"].as_str().map(|price| price.parse::<f64>().unwrap());
    type Holds = Box<dyn Fn(&Value) -> bool + Send + Sync>;
    let cases: Vec<(String, Holds)> = vec![
        ("category=all".to_owned(), Box::new(|_| true)),
        (format!("category={}", encoded("all > third")), Box::new(|product| product["category"][1] == "third")),
        (format!("category={}", encoded("all>third")), Box::new(|product| product["category"][1] == "third")),
        (format!("manufacturer={}", encoded("maker 2")), Box::new(|product| product["manufacturer"] == "maker 2")),
        ("type=fifth".to_owned(), Box::new(|product| product["type"] == "fifth")),
        ("price_min=2.50&price_max=4".to_owned(), Box::new(move |product| price(product).is_some_and(|price| (2.5..=4.0).contains(&price)))),
        (
            "type=other&manufacturer=maker+1&price_min=1".to_owned(),
            Box::new(move |product| {
                product["type"] == "other" && product["manufacturer"] == "maker 1" && price(product).is_some_and(|price| price >= 1.0)
            }),
        ),
        ("type=nothing".to_owned(), Box::new(|_| false)),
    ];
    for (filter, holds) in cases {
        for sort in ["created_at", "-price", "name"] {
            let found: HashSet<_> = all(&editor, &format!("limit=3&sort={sort}&{filter}")).await.iter().map(|row| row["id"].to_string()).collect();
            let expected: HashSet<_> = products.values().filter(|product| holds(product)).map(|product| product["id"].to_string()).collect();
            assert_eq!(found, expected, "{filter} {sort}");
        }
    }
}

async fn a_parameter_that_is_not_allowed_is_named(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    for (query, field) in [
        ("colour=red", "colour"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=5&limit=6", "limit"),
        ("sort=colour", "sort"),
        ("sort=", "sort"),
        ("price_min=cheap", "price_min"),
        ("price_max=-1", "price_max"),
        ("manufacturer=%00", "manufacturer"),
        ("type=a%00b", "type"),
        ("category=%00", "category"),
    ] {
        let answer = stranger.get(&format!("/api/products?{query}")).await.names(field);
        assert_eq!(answer.code(), "invalid_query_parameter", "{query}");
        assert!(answer.json()["message"].as_str().unwrap().contains(field), "{query}: {}", answer.text());
    }
    stranger.get("/api/products?limit=1").await.expect(200);
    stranger.get("/api/products?limit=100").await.expect(200);
}

async fn no_cursor_but_its_own_moves_a_list_and_none_breaks_it(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    thirty(&editor).await;
    let mut cursors = BTreeMap::new();
    for sort in ["created_at", "-created_at", "name", "-name", "price", "-price"] {
        let body = editor.get(&format!("/api/products?limit=2&sort={sort}")).await.json();
        cursors.insert(sort, body["meta"]["next_cursor"].as_str().unwrap().to_owned());
    }
    for (given_by, cursor) in &cursors {
        for sort in cursors.keys().filter(|sort| *sort != given_by) {
            let refused = editor.get(&format!("/api/products?sort={sort}&cursor={cursor}")).await.expect(404);
            assert_eq!(refused.code(), "cursor_not_found", "{given_by} for {sort}");
        }
        for path in ["/api/products/search?q=name", "/api/users"] {
            let client = service.admin().await.client;
            assert_eq!(
                client.get(&format!("{path}{}cursor={cursor}", if path.contains('?') { "&" } else { "?" })).await.expect(404).code(),
                "cursor_not_found"
            );
        }
        // Every single character changed, cut and doubled: refused or taken, never broken.
        for at in (0..cursor.len()).step_by(3) {
            let mut bent = cursor.clone().into_bytes();
            bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
            for bent in [String::from_utf8(bent).unwrap(), cursor[..at].to_owned(), format!("{cursor}{}", &cursor[at..])] {
                let answer = editor.get(&format!("/api/products?sort={given_by}&cursor={bent}")).await;
                assert!([200, 400, 404].contains(&answer.status), "{given_by} {bent}: {}", answer.text());
            }
        }
    }
    let id = Uuid::new_v4();
    for forged in [
        json!({"sort": "created_at", "key": i64::MAX, "id": id}),
        json!({"sort": "created_at", "key": i64::MIN, "id": id}),
        json!({"sort": "created_at", "key": "text", "id": id}),
        json!({"sort": "created_at", "key": null, "id": id}),
        json!({"sort": "created_at", "key": 1.5, "id": id}),
        json!({"sort": "name", "key": 7, "id": id}),
        json!({"sort": "name", "key": "\u{0}", "id": id}),
        json!({"sort": "name", "key": null, "id": id}),
        json!({"sort": "price", "key": "text", "id": id}),
        json!({"sort": "-price", "key": -1, "id": id}),
        json!({"sort": "-price", "key": null, "id": id}),
        json!({"sort": "price"}),
        json!([1, 2, 3]),
        json!(null),
    ] {
        use base64::Engine;
        let cursor = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(forged.to_string());
        let sort = forged["sort"].as_str().unwrap_or("created_at");
        let answer = editor.get(&format!("/api/products?sort={sort}&cursor={cursor}")).await;
        assert!([200, 404].contains(&answer.status), "{forged}: {} {}", answer.status, answer.text());
    }
    editor.get(&format!("/api/products?cursor={}", "A".repeat(7000))).await.names("cursor");
    editor.get("/api/products?cursor=bent!").await.names("cursor");
}

async fn parallel_changes_of_one_product_lose_none(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let path = created(&editor, &json!({"name": "Contended"})).await;
    let asked = (0..40).map(|number| {
        let (editor, path) = (editor.clone(), path.clone());
        tokio::spawn(async move {
            editor.patch(&path, &json!({"attributes": {format!("key{number}"): number}})).await.expect(200).data()["version"].as_i64().unwrap()
        })
    });
    let mut versions = Vec::new();
    for version in asked.collect::<Vec<_>>() {
        versions.push(version.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..=41).collect::<Vec<_>>(), "every change has a version of its own");
    let product = editor.get(&path).await.data();
    assert_eq!((product["version"].as_i64(), product["attributes"].as_object().unwrap().len()), (Some(41), 40));
}

/// Text that has broken somebody's program.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "'; DROP TABLE products; --",
        "\" OR \"\"=\"",
        "Robert\\'); --",
        "$1 $2 {0} %s %n ${7*7} {{7*7}}",
        "<script>alert(1)</script>",
        "\u{202e}evil\u{202c} \u{2066}isolated\u{2069}",
        "\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{645}\u{631}\u{62d}\u{628}\u{627}",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466} \u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
        "e\u{301}\u{302}\u{303} \u{e9} Z\u{351}\u{36b}a\u{343}l\u{36b}g\u{321}o\u{341}",
        "\u{fb01} \u{ff21} \u{2160} \u{212b}",
        "\u{feff}bom \u{200b}zero width\u{ad}",
        "tab\tline\nfeed\r\nreturn \u{1}\u{7f}\u{85}\u{2028}",
        " leading and trailing ",
        "\u{fffd} \u{ffff} \u{10ffff} \u{e000}",
        "null",
        "NaN",
        "\\u0000 \\x00 %00",
        "../../etc/passwd",
        "laptop [unclosed (group \\",
        "\u{130}\u{131}\u{df}\u{1e9e}\u{3c2}",
        "\u{4f60}\u{597d}\u{3000}\u{4e16}\u{754c}",
        "0",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("\u{1f600}".repeat(125));
    texts.push("a".repeat(200));
    texts
}

async fn every_string_comes_back_unchanged(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    for text in hostile() {
        // `>` separates the levels of a category.
        let level = text.replace('>', "");
        let sku: String = text.chars().take(100).collect();
        let given = json!({"name": text, "sku": sku, "description": text.repeat(20), "manufacturer": text, "type": text, "category": [level], "tags": [text],
            "attributes": {(text.clone()): text, "list": [text, {"in": text}]}});
        let created = editor.post("/api/products", &given).await.expect(201).data();
        let path = format!("/api/products/{}", created["id"].as_str().unwrap());
        let shown = editor.get(&path).await.expect(200).data();
        for (name, value) in given.as_object().unwrap() {
            assert_eq!(&shown[name], value, "{name}");
        }
        let listed = all(&editor, &format!("manufacturer={}&type={}", encoded(&text), encoded(&text))).await;
        assert_eq!(listed, [shown], "{text:?} is found by its own text");
    }
    let names: Vec<_> = all(&editor, "sort=name&limit=5").await.into_iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names.len(), hostile().len(), "and pages by hostile names lose none");
}

async fn nul_is_refused_by_the_name_of_its_field(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    let path = created(&editor, &json!({"name": "Plain"})).await;
    for (body, field) in [
        (json!({"name": "a\u{0}b"}), "name"),
        (json!({"name": "x", "sku": "\u{0}"}), "sku"),
        (json!({"name": "x", "description": "\u{0}"}), "description"),
        (json!({"name": "x", "manufacturer": "\u{0}"}), "manufacturer"),
        (json!({"name": "x", "type": "\u{0}"}), "type"),
        (json!({"name": "x", "category": ["a", "\u{0}"]}), "category[1]"),
        (json!({"name": "x", "tags": ["\u{0}"]}), "tags[0]"),
        (json!({"name": "x", "url": "https://example.com/\u{0}"}), "url"),
        (json!({"name": "x", "attributes": {"a": {"b": "\u{0}"}}}), "attributes.a.b"),
    ] {
        editor.post("/api/products", &body).await.names(field);
        editor.put(&path, &body).await.names(field);
        editor.patch(&path, &body).await.names(field);
    }
    editor.post("/api/products", &json!({"name": "x", "attributes": {"a\u{0}": 1}})).await.expect(400);
    assert_eq!(ground.number("SELECT count(*) AS n FROM products").await, 1);
}

async fn members_that_do_not_belong_are_named(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    for (body, field) in [
        (r#"{"name":"a","name":"b"}"#, "name"),
        (r#"{"name":"a","attributes":{"k":1,"k":2}}"#, "attributes.k"),
        (r#"{"name":"a","colour":"red"}"#, "colour"),
        (r#"{"name":"a","version":1}"#, "version"),
        (r#"{"sku":"a"}"#, "name"),
        (r#"{"name":null}"#, "name"),
        (r#"{"name":7}"#, "name"),
        (r#"{"name":["a"]}"#, "name"),
        (r#"{"name":""}"#, "name"),
        (r#"{"name":"a","tags":"b"}"#, "tags"),
        (r#"{"name":"a","tags":["b",7]}"#, "tags[1]"),
        (r#"{"name":"a","category":{"a":1}}"#, "category"),
        (r#"{"name":"a","attributes":[1]}"#, "attributes"),
        (r#"{"name":"a","currency":"euro"}"#, "currency"),
        (r#"{"name":"a","url":"javascript:alert(1)"}"#, "url"),
        (r#"{"name":"a","category":["a > b"]}"#, "category[0]"),
    ] {
        let answer = editor.raw("POST", "/api/products", body.as_bytes()).await.names(field);
        assert_eq!(answer.code(), "validation_failed", "{body}");
    }
    for (name, chars) in [("name", 501), ("sku", 101), ("manufacturer", 201), ("type", 201), ("description", 20_001)] {
        let mut body = json!({"name": "a"});
        body[name] = json!("\u{e4}".repeat(chars));
        editor.post("/api/products", &body).await.names(name);
        body[name] = json!("\u{e4}".repeat(chars - 1));
        editor.post("/api/products", &body).await.expect(201);
    }
}

async fn a_body_that_is_no_json_or_too_deep_or_too_large_is_refused(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let editor = service.account(Role::Editor).await.client;
    for body in ["{", "nonsense", r#"{"name":"\ud800"}"#, r#"{"name":"a"}x"#, r#"{"name":"a","attributes":{"n":1e999}}"#] {
        assert_eq!(editor.raw("POST", "/api/products", body.as_bytes()).await.expect(400).code(), "invalid_json", "{body}");
    }
    assert_eq!(editor.raw("POST", "/api/products", b"{\"name\":\"\xff\"}").await.expect(400).code(), "invalid_json");
    assert_eq!(editor.raw("POST", "/api/products", b"").await.expect(400).code(), "missing_body");
    for deep in [
        "[".repeat(100_000),
        r#"{"attributes":"#.repeat(60_000),
        format!(r#"{{"name":"a","attributes":{{"a":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000)),
    ] {
        assert_eq!(editor.raw("POST", "/api/products", deep.as_bytes()).await.expect(400).flaws()[0].1, "too_deep");
    }
    let large = format!(r#"{{"name":"a","description":"{}"}}"#, "x".repeat(1 << 20));
    for method in ["POST", "PUT"] {
        let path = if method == "POST" { "/api/products".to_owned() } else { format!("/api/products/{}", Uuid::new_v4()) };
        let refused = editor.raw(method, &path, large.as_bytes()).await.expect(413);
        assert_eq!(refused.code(), "payload_too_large");
    }
    let refused = editor.ask("POST", "/api/products", &[("content-type", "text/plain")], b"{\"name\":\"a\"}").await.expect(415);
    assert_eq!(refused.code(), "unsupported_media_type");
}

/// Creates a product, and gives its path.
async fn created(editor: &Client, body: &Value) -> String {
    let answer = editor.post("/api/products", body).await.expect(201);
    answer.header("location").unwrap().to_owned()
}
