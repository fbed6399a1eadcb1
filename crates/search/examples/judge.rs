//! Ranks a judged set of queries and prints how well: `judge PRODUCTS QUERIES QRELS`.
//!
//! PRODUCTS is NDJSON in the product schema (`-` reads it from standard input: `zstd -dc products.ndjson.zst | judge - ...`), QUERIES is
//! `id<TAB>text` a line, QRELS `id 0 sku grade`. `judge PRODUCTS SEARCHES` prints what it finds for
//! each line of SEARCHES instead. Also times a hundred applies of one document each. Figures: nDCG@10 with gain 2^grade - 1, MRR@10, share of searches without hits, latency percentiles.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::time::Instant;

use mainstay_search::{Change, Document, Fields, Index, Query, flatten_json};
use serde_json::Value;
use uuid::Uuid;

fn fields() -> Fields {
    Fields::new()
        .text("name", 5.0)
        .text("manufacturer", 2.0)
        .text("category", 2.0)
        .text("tags", 2.0)
        .text("description", 1.0)
        .text("attributes", 1.0)
        .keyword("manufacturer")
        .path("category")
        .keyword("tags")
        .number("price")
}

fn document(at: usize, row: &Value) -> Document {
    let mut document = Document::new(Uuid::from_u128(at as u128));
    let strings = |name: &str| -> Vec<String> { row[name].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect() };
    for name in ["name", "manufacturer", "description"] {
        if let Some(text) = row[name].as_str() {
            document = document.text(name, text);
        }
    }
    document = document.keywords("manufacturer", row["manufacturer"].as_str());
    for name in ["category", "tags"] {
        let values = strings(name);
        if !values.is_empty() {
            document = document.text(name, values.join(",\n")).keywords(name, values);
        }
    }
    let attributes = flatten_json(&row["attributes"]);
    if !attributes.is_empty() {
        document = document.text("attributes", attributes);
    }
    if let Some(price) = row["price"].as_f64() {
        document = document.number("price", (price * 100.0).round() as i64);
    }
    document
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dir = tempfile_dir();
    let index = Index::open(&dir, &fields()).unwrap();
    let source: Box<dyn Read> = match args[0].as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(std::fs::File::open(path).unwrap()),
    };
    let mut rows: Vec<(String, String)> = Vec::new();
    let started = Instant::now();
    let changes = BufReader::new(source).lines().enumerate().map(|(at, line)| {
        let row: Value = serde_json::from_str(&line.unwrap()).unwrap();
        rows.push((row["sku"].as_str().unwrap().to_owned(), row["name"].as_str().unwrap_or("").to_owned()));
        Change::Put(document(at, &row))
    });
    index.apply(changes, "loaded").unwrap();
    let took = started.elapsed();
    println!(
        "{} documents in {took:.2?} ({:.0}/s), {} segments, {} KiB",
        rows.len(),
        rows.len() as f64 / took.as_secs_f64(),
        index.segments(),
        size(&dir) / 1024
    );
    if args.len() < 3 {
        by_hand(&index, &rows, args.get(1));
    } else {
        judge(&index, &rows, &args);
    }
    single_applies(&index);
    let started = Instant::now();
    drop(index);
    println!("closed in {:.2?}", started.elapsed());
    let started = Instant::now();
    let again = Index::open(&dir, &fields()).unwrap();
    println!("opened again, every checksum read, in {:.2?}: {:?}", started.elapsed(), again.opened());
    drop(again);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn single_applies(index: &Index) {
    let mut times = Vec::new();
    for at in 0..100u128 {
        let row = serde_json::json!({"name": "Lamp of oak", "category": ["home", "light"], "description": "It gives light.", "price": 12.5});
        let started = Instant::now();
        index.apply([Change::Put(document(at as usize, &row))], &at.to_string()).unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    print!("one document applied, {} segments after: ", index.segments());
    report(&mut times);
}

fn tempfile_dir() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("judge-{}", std::process::id()))
}

fn size(dir: &std::path::Path) -> u64 {
    (std::fs::read_dir(dir.join("index")).unwrap()).map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Searches of the file `path`, one a line.
fn by_hand(index: &Index, rows: &[(String, String)], path: Option<&String>) {
    let Some(path) = path else { return };
    let mut times = Vec::new();
    for line in BufReader::new(std::fs::File::open(path).unwrap()).lines() {
        let mut query = Query::new(line.unwrap());
        query.facets = vec!["category".to_owned()];
        let started = Instant::now();
        let hits = index.search(&query).unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e3);
        println!(
            "\n{:?}: {} in {:.2} ms, corrected {:?}, {:?}",
            query.text,
            hits.total,
            times[times.len() - 1],
            hits.corrected,
            hits.facets[0].1.iter().take(3).collect::<Vec<_>>()
        );
        for hit in hits.hits.iter().take(5) {
            let shown: Vec<String> = hit.highlights.iter().map(|h| format!("{}: {}", h.field, h.html)).collect();
            println!("  {:6.2} {} | {}", hit.score, rows[hit.id.as_u128() as usize].1, shown.join(" | "));
        }
    }
    report(&mut times);
}

fn report(times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("latency ms: p50 {:.2} p95 {:.2} p99 {:.2} max {:.2}", at(0.5), at(0.95), at(0.99), at(1.0));
}

fn judge(index: &Index, rows: &[(String, String)], args: &[String]) {
    let read = |path: &String| std::fs::read_to_string(path).unwrap();
    let mut grades: HashMap<String, HashMap<String, i32>> = HashMap::new();
    for line in read(&args[2]).lines() {
        let cells: Vec<&str> = line.split_whitespace().collect();
        grades.entry(cells[0].to_owned()).or_default().insert(cells[2].to_owned(), cells[3].parse().unwrap());
    }
    let (mut ndcg, mut mrr, mut empty, mut corrected, mut times) = (0.0, 0.0, 0, 0, Vec::new());
    for line in read(&args[1]).lines() {
        let (id, text) = line.split_once('\t').unwrap();
        let Some(grades) = grades.get(id) else { continue };
        let mut query = Query::new(text);
        query.limit = 10;
        let started = Instant::now();
        let hits = index.search(&query).unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e3);
        empty += usize::from(hits.hits.is_empty());
        corrected += usize::from(hits.corrected.is_some());
        let found: Vec<i32> =
            (hits.hits.iter()).map(|hit| grades.get(rows[hit.id.as_u128() as usize].0.trim_start_matches("TMDB-")).copied().unwrap_or(0)).collect();
        let mut ideal: Vec<i32> = grades.values().copied().collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        let gain = |list: &[i32]| -> f64 {
            (list.iter().take(10).enumerate()).map(|(at, grade)| (2f64.powi(*grade) - 1.0) / (at as f64 + 2.0).log2()).sum()
        };
        ndcg += gain(&found) / gain(&ideal);
        mrr += found.iter().position(|grade| *grade > 0).map_or(0.0, |at| 1.0 / (at as f64 + 1.0));
    }
    let n = times.len();
    println!("{n} queries: nDCG@10 {:.4} MRR@10 {:.4} without hits {empty} corrected {corrected}", ndcg / n as f64, mrr / n as f64);
    report(&mut times);
}
