//! The promises of the index, kept on disk and in memory: what is found, what a crash leaves, what no input can do.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mainstay_search::{Change, Document, Error, Fields, Filter, FreshReason, Hits, Index, Opened, Query, SNIPPET_CHARS, flatten_json};
use proptest::prelude::*;
use uuid::Uuid;

fn fields() -> Fields {
    Fields::new().text("name", 5.0).text("description", 1.0).text("attributes", 1.0).keyword("manufacturer").path("category").number("price")
}

fn named(id: u128, name: &str) -> Document {
    Document::new(Uuid::from_u128(id)).text("name", name)
}

fn index_of(names: &[&str]) -> Index {
    let index = Index::in_memory(&fields()).unwrap();
    let changes = (1u128..).zip(names).map(|(id, name)| Change::Put(named(id, name)));
    index.apply(changes, "1").unwrap();
    index
}

fn ids(hits: &Hits) -> Vec<u128> {
    hits.hits.iter().map(|hit| hit.id.as_u128()).collect()
}

fn found(index: &Index, text: &str) -> Vec<u128> {
    ids(&index.search(&Query::new(text)).unwrap())
}

fn damaged(index: &Index) -> bool {
    matches!(index.opened(), Opened::Fresh { reason: FreshReason::Damaged { .. } })
}

#[test]
fn an_index_comes_back_with_its_cursor_and_documents() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), &fields()).unwrap();
    assert_eq!(index.opened(), &Opened::Fresh { reason: FreshReason::Missing });
    index.apply([Change::Put(named(1, "lamp")), Change::Put(named(2, "chair"))], "7\nline").unwrap();
    index.apply([Change::Remove(Uuid::from_u128(2))], "8").unwrap();
    drop(index);
    let index = Index::open(dir.path(), &fields()).unwrap();
    assert_eq!(index.opened(), &Opened::Existing { cursor: "8".to_owned() });
    assert_eq!(index.cursor(), "8");
    assert_eq!(found(&index, ""), [1]);
}

#[test]
fn an_index_that_is_emptied_is_filled_anew_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), &fields()).unwrap();
    index.apply([Change::Put(named(1, "lamp")), Change::Put(named(2, "chair"))], "7").unwrap();
    index.apply([Change::RemoveAll], "other").unwrap();
    assert_eq!((index.documents(), index.cursor().as_str()), (0, "other"));
    index.apply([Change::Put(named(3, "lamp"))], "other 1").unwrap();
    assert_eq!(found(&index, "lamp"), [3]);
    drop(index);
    let index = Index::open(dir.path(), &fields()).unwrap();
    assert_eq!((found(&index, ""), index.cursor().as_str()), (vec![3], "other 1"));
}

#[test]
fn a_second_holder_of_a_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = Index::open(dir.path(), &fields()).unwrap();
    first.apply([Change::Put(named(1, "lamp"))], "1").unwrap();
    let refused = Index::open(dir.path(), &fields()).unwrap_err();
    assert!(matches!(refused, Error::Busy { .. }), "{refused}");
    assert_eq!(found(&first, "lamp"), [1], "the holder is not disturbed");
    drop(first);
    assert!(matches!(Index::open(dir.path(), &fields()).unwrap().opened(), Opened::Existing { .. }));
}

#[test]
fn an_index_begins_with_what_another_holds_and_both_go_their_own_ways() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let others = [second.path().join("nothing"), first.path().to_owned()];
    let one = Index::open(first.path(), &fields()).unwrap();
    for (id, name) in [(1, "lamp"), (2, "table"), (3, "chair")] {
        one.apply([Change::Put(named(id, name))], &id.to_string()).unwrap();
    }
    one.apply([Change::Remove(Uuid::from_u128(3))], "4").unwrap();
    let two = Index::open_beside(second.path(), &fields(), &others).unwrap();
    assert_eq!(two.opened(), &Opened::Existing { cursor: "4".to_owned() }, "while the first is in use");
    assert_eq!((found(&two, "lamp"), found(&two, "chair")), (vec![1], vec![]));
    two.apply([Change::Put(named(4, "shelf")), Change::Remove(Uuid::from_u128(1))], "5").unwrap();
    // Enough commits for merges, which throw files away that the other one still reads.
    for id in 10..60 {
        one.apply([Change::Put(named(id, "lamp"))], &id.to_string()).unwrap();
    }
    assert_eq!((found(&one, "shelf"), found(&two, "shelf"), found(&two, "lamp")), (vec![], vec![4], vec![]));
    drop((one, two));
    let two = Index::open_beside(second.path(), &fields(), &others).unwrap();
    assert_eq!(two.opened(), &Opened::Existing { cursor: "5".to_owned() }, "it has its own now");
    assert_eq!(Index::open(first.path(), &fields()).unwrap().cursor(), "59");
}

#[test]
fn other_fields_start_afresh_and_other_boosts_do_not() {
    let dir = tempfile::tempdir().unwrap();
    Index::open(dir.path(), &fields()).unwrap().apply([Change::Put(named(1, "lamp"))], "1").unwrap();
    let boosted =
        Fields::new().text("name", 9.0).text("description", 1.0).text("attributes", 1.0).keyword("manufacturer").path("category").number("price");
    assert!(matches!(Index::open(dir.path(), &boosted).unwrap().opened(), Opened::Existing { .. }));
    let index = Index::open(dir.path(), &fields().text("tags", 2.0)).unwrap();
    assert_eq!(index.opened(), &Opened::Fresh { reason: FreshReason::OtherFields });
    assert_eq!((index.cursor().as_str(), index.documents()), ("", 0));
}

#[test]
fn a_batch_that_fails_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), &fields()).unwrap();
    index.apply([Change::Put(named(1, "lamp"))], "1").unwrap();
    let broken = named(3, "desk").text("no such field", "x");
    let refused = index.apply([Change::Put(named(2, "chair")), Change::Put(broken)], "2").unwrap_err();
    assert!(matches!(refused, Error::UnknownField { .. }));
    assert_eq!((index.cursor().as_str(), found(&index, "")), ("1", vec![1]));
    index.apply([Change::Put(named(4, "sofa"))], "3").unwrap();
    assert_eq!(found(&index, ""), [1, 4]);
    drop(index);
    assert_eq!(found(&Index::open(dir.path(), &fields()).unwrap(), ""), [1, 4]);
}

/// A copy of the files while the index is open is what a killed process leaves.
#[test]
fn files_copied_at_any_commit_open_at_that_commit() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let index = Index::open(dir.path(), &fields()).unwrap();
    for step in 1..=12u128 {
        index.apply([Change::Put(named(step, "lamp")), Change::Remove(Uuid::from_u128(step - 1))], &step.to_string()).unwrap();
    }
    let index_copy = copy.path().join("index");
    // A merge may remove a file between the listing and the copy; the next attempt sees the commit after it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while copy_files(&dir.path().join("index"), &index_copy).is_err() {
        assert!(Instant::now() < deadline, "no consistent copy");
    }
    fs::write(index_copy.join("0123456789abcdef0123456789abcdef.idx"), "left behind").unwrap();
    let opened = Index::open(copy.path(), &fields()).unwrap();
    assert_eq!(opened.opened(), &Opened::Existing { cursor: "12".to_owned() });
    assert_eq!(found(&opened, "lamp"), [12]);
    assert!(!index_copy.join("0123456789abcdef0123456789abcdef.idx").exists(), "what nobody names is swept");
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to)?;
    // meta.json last would name newer segments than those copied; first, it names files that may already be merged away.
    fs::copy(from.join("meta.json"), to.join("meta.json"))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "meta.json" {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[test]
fn any_file_truncated_changed_or_missing_starts_afresh() {
    let whole = tempfile::tempdir().unwrap();
    let index = Index::open(whole.path(), &fields()).unwrap();
    let changes = (1..200u128).map(|id| Change::Put(named(id, &format!("lamp number {id}")).number("price", 5)));
    index.apply(changes, "1").unwrap();
    index.apply([Change::Remove(Uuid::from_u128(3))], "2").unwrap();
    index.close().unwrap();
    let mut damaged_ways = 0;
    for entry in fs::read_dir(whole.path().join("index")).unwrap() {
        let name = entry.unwrap().file_name();
        if name.to_str().unwrap().ends_with("lock") {
            continue;
        }
        for way in ["truncated", "emptied", "changed", "missing"] {
            let dir = tempfile::tempdir().unwrap();
            copy_files(&whole.path().join("index"), &dir.path().join("index")).unwrap();
            let path = dir.path().join("index").join(&name);
            let mut bytes = fs::read(&path).unwrap();
            match way {
                "truncated" => bytes.truncate(bytes.len() / 2),
                "emptied" => bytes.clear(),
                "changed" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x55;
                }
                _ => fs::remove_file(&path).unwrap(),
            }
            if way != "missing" {
                fs::write(&path, &bytes).unwrap();
            }
            let opened = Index::open(dir.path(), &fields()).unwrap();
            // The list of files and a lost meta.json are no data: what they say is known otherwise or means an empty directory.
            match opened.opened() {
                Opened::Existing { cursor } => {
                    assert!(name.to_str().unwrap().contains(".json"), "{name:?} {way}");
                    assert_eq!((cursor.as_str(), opened.documents()), ("2", 198), "{name:?} {way}");
                }
                Opened::Fresh { .. } => {
                    damaged_ways += usize::from(damaged(&opened));
                    assert_eq!(opened.documents(), 0);
                }
            }
            opened.apply([Change::Put(named(9, "desk"))], "3").unwrap();
            assert!(found(&opened, "desk").contains(&9), "{name:?} {way}: it works again");
        }
    }
    assert!(damaged_ways >= 12, "{damaged_ways}");
}

#[test]
fn many_small_applies_leave_few_segments_and_few_files() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), &fields()).unwrap();
    for step in 0..120u128 {
        index.apply([Change::Put(named(step % 30, &format!("lamp {step}")))], &step.to_string()).unwrap();
    }
    index.close().unwrap();
    let index = Index::open(dir.path(), &fields()).unwrap();
    assert_eq!(index.documents(), 30);
    assert!(index.segments() <= 12, "{} segments", index.segments());
    let files = fs::read_dir(dir.path().join("index")).unwrap().count();
    assert!(files <= 12 * 8 + 8, "{files} files");
}

#[test]
fn the_last_word_is_a_beginning_unless_a_space_follows() {
    let index = index_of(&["wireless headphones", "head of a bed", "table"]);
    assert_eq!(found(&index, "headph"), [1]);
    assert_eq!(found(&index, "wirel headph"), [1]);
    assert_eq!(found(&index, "head"), [2, 1], "the word itself first");
    assert_eq!(found(&index, "head "), [2]);
}

#[test]
fn model_numbers_are_found_whole_and_by_part() {
    let index = index_of(&["Asus RTX-3060Ti OC", "MSI RTX 3060 Ti Ventus", "MSI RTX 3070", "Kit DDR4-3200", "Spider-Man", "WALL·E"]);
    for text in ["rtx 3060 ti", "rtx3060ti", "RTX-3060Ti", "rtx-3060 ti"] {
        let mut first: Vec<u128> = found(&index, text).into_iter().take(2).collect();
        first.sort_unstable();
        assert_eq!(first, [1, 2], "{text}");
    }
    for text in ["ddr4", "ddr4-3200", "3200", "ddr4 3200", "DDR43200"] {
        assert_eq!(found(&index, text)[0], 4, "{text}");
    }
    assert_eq!(found(&index, "spiderman "), [5]);
    assert_eq!(found(&index, "spider man "), [5]);
    assert_eq!(found(&index, "walle "), [6]);
}

#[test]
fn accents_apostrophes_width_and_plural_make_no_difference() {
    let index = index_of(&["Café crème", "Assassin's Creed", "ｆｕｌｌｗｉｄｔｈ", "Ålesund Øre", "L’Oréal", "straße"]);
    for (text, id) in [
        ("cafe ", 1),
        ("CAFE\u{301} ", 1),
        ("assassins ", 2),
        ("assassin ", 2),
        ("assassin’s ", 2),
        ("fullwidth ", 3),
        ("alesund ore ", 4),
        ("loreal ", 5),
        ("strasse ", 6),
        ("STRASSE ", 6),
    ] {
        assert_eq!(found(&index, text), [id], "{text}");
    }
}

#[test]
fn scripts_without_spaces_and_emoji_are_found() {
    let index = index_of(&["無線ヘッドホン", "有線マウス", "หูฟังไร้สาย", "무선 헤드폰", "party 🎉 set"]);
    assert_eq!(found(&index, "無線"), [1]);
    assert_eq!(found(&index, "マウス"), [2]);
    assert_eq!(found(&index, "ไร้สาย")[0], 3);
    assert_eq!(found(&index, "헤드폰"), [4]);
    assert_eq!(found(&index, "🎉"), [5]);
}

#[test]
fn a_word_that_does_not_occur_is_corrected_and_the_answer_says_so() {
    let index = index_of(&["wireless headphones", "wireless keyboard", "RTX 3060"]);
    for (text, corrected) in [
        ("wirless headphones ", Some("wireless headphones ")),
        ("hedaphones ", Some("headphones ")),
        ("keybaord", Some("keyboard")),
        ("haedphons ", Some("headphones ")),
        ("wirelessheadphones ", Some("wireless headphones ")),
        ("rtx 3061 ", None), // a number is never corrected
    ] {
        let hits = index.search(&Query::new(text)).unwrap();
        assert_eq!(hits.corrected.as_deref(), corrected, "{text}");
        assert!(hits.total > 0, "{text}");
    }
    assert_eq!(found(&index, "qqqqqqqq"), [0u128; 0]);
}

#[test]
fn all_words_outrank_some_and_a_name_outranks_a_description() {
    let index = Index::in_memory(&fields()).unwrap();
    let documents = [
        named(1, "wireless mouse"),
        named(2, "headphones"),
        named(3, "headphones").text("attributes", flatten_json(&serde_json::json!({"wireless": true}))),
        named(4, "stand").text("description", "holds wireless headphones and more"),
        named(5, "wireless headphones"),
        named(6, "headphones").text("attributes", flatten_json(&serde_json::json!({"wireless": false}))),
    ];
    index.apply(documents.map(Change::Put), "1").unwrap();
    let order = found(&index, "wireless headphones");
    assert_eq!(order[0], 5);
    assert_eq!(order[1], 3);
    assert!(order.iter().position(|id| *id == 3) < order.iter().position(|id| *id == 6));
}

fn shop() -> Index {
    let index = Index::in_memory(&fields()).unwrap();
    let documents = (0..60u128).map(|at| {
        let maker = if at % 3 == 0 { "Acme" } else { "Zeta" };
        let document = named(at, "lamp").keywords("manufacturer", [maker]);
        match at % 2 {
            0 => document.keywords("category", ["home", "light"]).number("price", i64::try_from(at).unwrap()),
            _ => document.keywords("category", ["home", "lights", "desk"]),
        }
    });
    index.apply(documents.map(Change::Put), "1").unwrap();
    index
}

#[test]
fn filters_hold_all_together_and_without_text() {
    let index = shop();
    let any = |values: &[&str]| Filter::AnyOf { field: "manufacturer".into(), values: values.iter().map(|v| (*v).to_owned()).collect() };
    let under = |path: &[&str]| Filter::Under { field: "category".into(), path: path.iter().map(|v| (*v).to_owned()).collect() };
    let between = |from, to| Filter::Between { field: "price".into(), from, to };
    for text in ["", "lamp", "la"] {
        for (filters, total) in [
            (vec![], 60),
            (vec![any(&["Acme"])], 20),
            (vec![any(&["Acme", "Zeta"])], 60),
            (vec![any(&["acme"])], 0),
            (vec![any(&[])], 0),
            (vec![under(&["home"])], 60),
            (vec![under(&["home", "light"])], 30),
            (vec![under(&["light"])], 0),
            (vec![under(&[])], 60),
            (vec![between(Some(10), Some(20))], 6),
            (vec![between(None, Some(3))], 2),
            (vec![between(None, None)], 30),
            (vec![between(Some(20), Some(10))], 0),
            (vec![any(&["Acme"]), under(&["home", "light"]), between(Some(1), None)], 9),
        ] {
            let mut query = Query::new(text);
            query.filters = filters;
            let hits = index.search(&query).unwrap();
            assert_eq!(hits.total, total, "{query:?}");
        }
    }
    let mut query = Query::new("lamp");
    query.filters = vec![Filter::Between { field: "weight".into(), from: None, to: None }];
    assert!(matches!(index.search(&query), Err(Error::UnknownField { .. })));
}

#[test]
fn facets_count_everything_that_matches_at_every_level_of_a_path() {
    let mut query = Query::new("lamp");
    query.limit = 0;
    query.facets = vec!["category".into(), "manufacturer".into()];
    let hits = shop().search(&query).unwrap();
    assert!(hits.hits.is_empty());
    let category = [("home", 60), ("home > light", 30), ("home > lights", 30), ("home > lights > desk", 30)];
    assert_eq!(hits.facets[0].1, category.map(|(value, count)| (value.to_owned(), count)));
    assert_eq!(hits.facets[1].1, [("Zeta".to_owned(), 40), ("Acme".to_owned(), 20)]);
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition() {
    let index = shop();
    for text in ["", "lamp"] {
        let mut all = Vec::new();
        for offset in (0..70).step_by(7) {
            let mut query = Query::new(text);
            (query.limit, query.offset) = (7, offset);
            all.extend(ids(&index.search(&query).unwrap()));
        }
        assert_eq!(all, (0..60).collect::<Vec<u128>>(), "{text:?}");
    }
}

#[test]
fn a_snippet_escapes_everything_but_its_own_marks() {
    let index = Index::in_memory(&fields()).unwrap();
    let text = format!("{} <script>alert('x')</script> & \"lamp\"\u{0} with a lámp. {}", "before ".repeat(50), "after ".repeat(50));
    index.apply([Change::Put(named(1, "<b>lamp</b>").text("description", text))], "1").unwrap();
    let hits = index.search(&Query::new("lamps script")).unwrap();
    let by = |field: &str| hits.hits[0].highlights.iter().find(|h| h.field == field).unwrap().html.clone();
    assert_eq!(by("name"), "&lt;b&gt;<mark>lamp</mark>&lt;/b&gt;");
    let html = by("description");
    assert!(
        html.contains(
            "&lt;<mark>script</mark>&gt;alert(&#39;x&#39;)&lt;/<mark>script</mark>&gt; &amp; &quot;<mark>lamp</mark>&quot; with a <mark>lámp</mark>."
        ),
        "{html}"
    );
    assert!(html.starts_with('…') && html.ends_with('…'));
    let shown = html.replace("<mark>", "").replace("</mark>", "");
    assert!(!shown.contains(['<', '>', '"', '\'', '\0']), "{html}");
    assert!(shown.chars().count() <= SNIPPET_CHARS + 2 + 60, "{html}");
}

#[test]
fn flattened_json_is_bounded_and_says_only_what_is_true() {
    let value =
        serde_json::json!({"wireless": true, "wired": false, "none": null, "size": 27.5, "color": "Black", "deep": {"list": [1, "two", true]}});
    let text = flatten_json(&value);
    for word in ["wireless", "27.5", "Black", "1", "two", "list"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(!text.contains("wired") && !text.contains("none") && !text.contains("color"));
    let mut deep = serde_json::json!("bottom");
    for _ in 0..100 {
        deep = serde_json::json!([deep]);
    }
    assert_eq!(flatten_json(&deep), "");
    assert!(flatten_json(&serde_json::json!(vec!["word"; 100_000])).len() <= 16 * 1024);
}

#[test]
fn hostile_texts_are_searches() {
    let index = index_of(&["laptop stand", "or and not", "title"]);
    let long = "a".repeat(8 * 1024);
    let words: String = (0..2000).map(|at| format!("w{at} ")).collect();
    let hostile = [
        "laptop [unclosed",
        "\"",
        "\"laptop",
        "laptop\"",
        "(laptop",
        "name:laptop",
        "laptop AND",
        "NOT",
        "-laptop",
        "+laptop",
        "lap*",
        "*",
        "?",
        "laptop~2",
        "laptop^9",
        "[a TO z]",
        "/re(/",
        "\\",
        "\0",
        "laptop\0",
        "\u{feff}laptop",
        "';--",
        "%",
        "_",
        "<script>",
        "\u{202e}laptop",
        "\r\n\t",
        "…",
        "'",
        "''''",
        "a-",
        "-.-.-",
        "e\u{301}\u{301}\u{301}",
        "ﷺ",
        "İ",
        "ẞ",
        "\u{10ffff}",
        &long,
        &words,
        &"🎉".repeat(1000),
        &"漢字".repeat(4000),
        &"e\u{301}".repeat(4000),
        &"a1".repeat(4000),
        &"a-".repeat(4000),
        &" ".repeat(8000),
        &"\u{301}".repeat(4000),
        &"laptop ".repeat(1000),
    ];
    for text in hostile {
        let hits = index.search(&Query::new(text)).unwrap();
        assert!(hits.hits.len() <= 20);
        if text.contains("laptop") && !text.starts_with("name:") {
            assert_eq!(ids(&hits)[0], 1, "{text:?}");
        }
    }
    assert_eq!(found(&index, ""), [1, 2, 3]);
    assert_eq!(found(&index, " \t\n"), [1, 2, 3]);
    assert_eq!(found(&index, "!!!"), [0u128; 0], "nothing to look for finds nothing");
    // What is searched may also be stored.
    let changes = (10u128..).zip(hostile).map(|(id, text)| Change::Put(named(id, text)));
    index.apply(changes, "2").unwrap();
    for text in hostile {
        index.search(&Query::new(text)).unwrap();
    }
    let mut far = Query::new("");
    (far.limit, far.offset) = (usize::MAX, usize::MAX);
    assert!(index.search(&far).unwrap().hits.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_text_is_stored_and_searched_in_bounded_time(stored in any::<String>(), text in any::<String>()) {
        thread_local! {
            static INDEX: Index = index_of(&["laptop stand", "Café 3060Ti", "漢字 🎉"]);
        }
        INDEX.with(|index| {
            let id = Uuid::from_u128(77);
            index.apply([Change::Put(named(77, &stored).text("description", text.as_str()))], "p").unwrap();
            let started = Instant::now();
            for text in [&stored, &text] {
                let hits = index.search(&Query::new(text.as_str())).unwrap();
                for hit in &hits.hits {
                    prop_assert!([1, 2, 3, 77].contains(&hit.id.as_u128()));
                    for highlight in &hit.highlights {
                        let plain = highlight.html.replace("<mark>", "").replace("</mark>", "");
                        prop_assert!(!plain.contains(['<', '>']));
                    }
                }
                if stored.chars().any(|c| c.is_ascii_alphanumeric()) && text == &stored {
                    prop_assert!(hits.hits.iter().any(|hit| hit.id == id), "{stored:?} is found by itself");
                }
            }
            // Three orders of magnitude above what it takes: a bound, not a benchmark.
            prop_assert!(started.elapsed() < Duration::from_secs(5));
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn puts_and_removes_equal_a_map(
        batches in prop::collection::vec(prop::collection::vec((0..8u128, prop::option::of(0..4usize)), 0..6), 1..8)
    ) {
        let words = ["lamp", "chair", "desk", "sofa"];
        let index = Index::in_memory(&fields()).unwrap();
        let mut model: BTreeMap<u128, usize> = BTreeMap::new();
        for (step, batch) in batches.iter().enumerate() {
            for (id, word) in batch {
                match word {
                    Some(word) => model.insert(*id, *word),
                    None => model.remove(id),
                };
            }
            let changes = || batch.iter().map(|(id, word)| match word {
                Some(word) => Change::Put(named(*id, words[*word])),
                None => Change::Remove(Uuid::from_u128(*id)),
            });
            index.apply(changes(), &step.to_string()).unwrap();
            index.apply(changes(), &step.to_string()).unwrap();
            prop_assert_eq!(index.cursor(), step.to_string());
            prop_assert_eq!(found(&index, ""), model.keys().copied().collect::<Vec<_>>());
            for (at, word) in words.iter().enumerate() {
                let expected: Vec<u128> = model.iter().filter(|(_, w)| **w == at).map(|(id, _)| *id).collect();
                prop_assert_eq!(found(&index, &format!("{word} ")), expected);
            }
        }
    }
}
