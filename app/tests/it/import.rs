//! The import: the same outcome however often and in whatever packing, and every bad line named by its number.

use std::io::Write;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::ground::Ground;
use crate::process;

on_both! {
    a_bad_line_is_reported_with_its_number_and_stops_no_other
    a_repeated_import_leaves_versions_alone_and_a_changed_line_is_an_update
    packed_files_and_standard_input_are_read_like_plain_ones
    of_two_lines_for_one_product_the_later_wins
    what_was_imported_is_served_and_found
}

through_pooler! {
    a_bad_line_is_reported_with_its_number_and_stops_no_other
    a_repeated_import_leaves_versions_alone_and_a_changed_line_is_an_update
    packed_files_and_standard_input_are_read_like_plain_ones
    of_two_lines_for_one_product_the_later_wins
    what_was_imported_is_served_and_found
}

/// Runs `mainstay import` on the ground's database.
async fn import(ground: &Arc<Ground>, arguments: &[&str], input: &[u8]) -> Output {
    let (settings, input) = (ground.pairs(&[]), input.to_vec());
    let arguments: Vec<String> = ["import"].iter().chain(arguments).map(ToString::to_string).collect();
    let run = move || process::run(&settings, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), &input);
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// The report without its times.
fn counts(output: &Output) -> String {
    let report = String::from_utf8_lossy(&output.stdout);
    report.split_once("): ").unwrap_or_else(|| panic!("no report: {output:?}")).1.trim_end().to_owned()
}

fn lines(products: &[Value]) -> Vec<u8> {
    products.iter().flat_map(|product| format!("{product}\n").into_bytes()).collect()
}

fn write(path: &Path, bytes: &[u8]) -> String {
    std::fs::write(path, bytes).unwrap();
    path.display().to_string()
}

async fn a_bad_line_is_reported_with_its_number_and_stops_no_other(ground: Arc<Ground>) {
    let text = concat!(
        r#"{"sku":"a","name":"A"}"#,
        "\n",
        "not json\n",
        "\n",
        r#"{"sku":"b","name":""}"#,
        "\n",
        r#"{"name":"no number"}"#,
        "\n",
        r#"{"sku":"c","name":"C","colour":"red"}"#,
        "\r\n",
        r#"{"sku":"d","name":"D","price":"-1"}"#,
        "\n",
        r#"{"sku":"e","name":"\u0000"}"#,
        "\n",
        r#"{"sku":"f","name":"F"}"#,
    );
    let file = write(&ground.file("bad.ndjson"), text.as_bytes());
    let output = import(&ground, &["--quiet", &file], b"").await;
    assert_eq!(output.status.code(), Some(1), "some lines were not taken: {output:?}");
    assert_eq!(counts(&output), "2 created, 0 updated, 0 unchanged, 6 refused");
    let told = String::from_utf8(output.stderr).unwrap();
    let told: Vec<_> = told.lines().filter(|line| line.starts_with("line ")).collect();
    for (line, number, word) in [(0, 2, "JSON"), (1, 4, "name"), (2, 5, "sku"), (3, 6, "colour"), (4, 7, "price"), (5, 8, "name")] {
        assert!(told[line].starts_with(&format!("line {number}: ")) && told[line].contains(word), "{told:#?}");
    }
    assert_eq!(told.len(), 6, "{told:#?}");
    assert_eq!(ground.number("SELECT count(*) AS n FROM products").await, 2);
    let missing = import(&ground, &["--quiet", &ground.file("missing").display().to_string()], b"").await;
    assert_eq!(missing.status.code(), Some(69), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("missing"), "{missing:?}");
    assert_eq!(import(&ground, &[], b"").await.status.code(), Some(2), "no file was named");
    let damaged = write(&ground.file("damaged.zst"), &zstd::encode_all(&lines(&[json!({"sku": "x", "name": "X"})])[..], 1).unwrap()[..20]);
    assert_eq!(import(&ground, &["--quiet", &damaged], b"").await.status.code(), Some(69));
}

async fn a_repeated_import_leaves_versions_alone_and_a_changed_line_is_an_update(ground: Arc<Ground>) {
    let mut products: Vec<_> =
        (0..450).map(|n| json!({"sku": format!("p-{n}"), "name": format!("Product {n}"), "price": 12.65, "category": ["a", "b"], "tags": ["t"], "attributes": {"n": n, "x": {"y": 1.5}}})).collect();
    let file = write(&ground.file("catalogue.ndjson"), &lines(&products));
    let first = import(&ground, &["--quiet", &file], b"").await;
    assert_eq!((first.status.code(), counts(&first).as_str()), (Some(0), "450 created, 0 updated, 0 unchanged, 0 refused"), "{first:?}");
    let again = import(&ground, &["--quiet", &file], b"").await;
    assert_eq!((again.status.code(), counts(&again).as_str()), (Some(0), "0 created, 0 updated, 450 unchanged, 0 refused"), "{again:?}");
    assert_eq!(ground.number("SELECT CAST(sum(version) AS bigint) AS n FROM products").await, 450);
    assert_eq!(ground.number("SELECT count(*) AS n FROM products WHERE updated_at <> created_at").await, 0);
    products[7]["price"] = json!("12.66");
    products[8]["attributes"]["x"]["y"] = json!(2);
    products[9].as_object_mut().unwrap().remove("price");
    write(&ground.file("catalogue.ndjson"), &lines(&products));
    let changed = import(&ground, &["--quiet", &file], b"").await;
    assert_eq!(counts(&changed), "0 created, 3 updated, 447 unchanged, 0 refused");
    assert_eq!(ground.number("SELECT count(*) AS n FROM products WHERE version = 2 AND updated_at > created_at").await, 3);
    assert_eq!(ground.number("SELECT price_e4 AS n FROM products WHERE sku = 'p-7'").await, 126_600);
    assert_eq!(ground.number("SELECT count(*) AS n FROM products WHERE price_e4 IS NULL").await, 1);
}

async fn packed_files_and_standard_input_are_read_like_plain_ones(ground: Arc<Ground>) {
    let products: Vec<_> = (0..300).map(|n| json!({"sku": format!("p-{n}"), "name": format!("Product {n}")})).collect();
    let plain = lines(&products);
    let zst = write(&ground.file("c.ndjson.zst"), &zstd::encode_all(&plain[..], 3).unwrap());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&plain).unwrap();
    let gz = write(&ground.file("c.ndjson.gz"), &encoder.finish().unwrap());
    let file = write(&ground.file("c.ndjson"), &plain);
    let mut expected = "300 created, 0 updated, 0 unchanged, 0 refused";
    for (argument, input) in [(zst.as_str(), &b""[..]), (&gz, b""), (&file, b""), ("-", &plain)] {
        let output = import(&ground, &["--quiet", argument], input).await;
        assert_eq!((output.status.code(), counts(&output).as_str()), (Some(0), expected), "{argument}: {output:?}");
        expected = "0 created, 0 updated, 300 unchanged, 0 refused";
    }
}

async fn of_two_lines_for_one_product_the_later_wins(ground: Arc<Ground>) {
    let input = lines(&[
        json!({"sku": "same", "name": "First", "price": "1"}),
        json!({"sku": "other", "name": "Other"}),
        json!({"sku": "same", "name": "Second", "price": "2"}),
        json!({"sku": "same", "name": "Third"}),
    ]);
    let output = import(&ground, &["--quiet", "-"], &input).await;
    assert_eq!((output.status.code(), counts(&output).as_str()), (Some(0), "2 created, 2 updated, 0 unchanged, 0 refused"), "{output:?}");
    assert_eq!(
        ground.number("SELECT count(*) AS n FROM products WHERE sku = 'same' AND name = 'Third' AND price_e4 IS NULL AND version = 3").await,
        1
    );
}

async fn what_was_imported_is_served_and_found(ground: Arc<Ground>) {
    let product = json!({"sku": "k-1", "name": "Quixotic kettle", "description": "It's \"hot\"\u{1f525}", "category": ["kitchen", "kettles"], "price": 19.9, "currency": "EUR", "attributes": {"litres": 1.7, "list": [1, null]}});
    let service = ground.start(&[]).await;
    // Into the database of a service that runs: it follows.
    let output = import(&ground, &["--quiet", "-"], &lines(std::slice::from_ref(&product))).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let listed = service.stranger().get("/api/products").await.expect(200).data()[0].clone();
    for (name, value) in product.as_object().unwrap().iter().filter(|(name, _)| *name != "price") {
        assert_eq!(&listed[name], value, "{name}");
    }
    assert_eq!(listed["price"], "19.90");
    let found = || async { service.stranger().get("/api/products/search?q=quixotic").await.data()[0]["id"] == listed["id"] };
    crate::ground::within(std::time::Duration::from_secs(5), "the imported product is found", found).await;
}
