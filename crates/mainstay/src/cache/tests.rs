//! No order of things gives a request what was old before it came; one request makes what many want.

mod lease;
mod orders;

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderValue;
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::sync::{oneshot, watch};

use super::shelf::Kept;
use super::*;
use crate::error::{Error, codes};

const THINGS: Kind = Kind::new("things");
const SHOWN: Policy = Policy::of("show");
const LISTED: Policy = Policy::of("list");
const LIFE: Duration = Duration::from_secs(60);

fn text(text: &str) -> Output {
    Output::new(HeaderValue::from_static("text/plain"), Bytes::copy_from_slice(text.as_bytes()))
}

fn shelf(bytes: u64) -> (Arc<Generations>, Shelf) {
    let generations = Arc::new(Generations::new(Instant::now()));
    (generations.clone(), Shelf::new(bytes, LIFE, generations))
}

fn said(kept: &Kept) -> u64 {
    std::str::from_utf8(&kept.output.as_ref().unwrap().plain).unwrap().parse().unwrap()
}

#[test]
fn threads_that_read_while_others_write_see_no_less_than_what_was_told() {
    let (generations, shelf) = shelf(1 << 20);
    let id = Uuid::new_v4();
    let (key, subject) = (Key::id(&SHOWN, id), Subject::One(THINGS, id));
    let (database, told, hits, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let floor = told.load(Ordering::Acquire);
                    match shelf.find(&key, subject, Instant::now()) {
                        Found::Kept(kept) => {
                            hits.fetch_add(1, Ordering::Relaxed);
                            assert!(said(&kept) >= floor, "{} after {floor}", said(&kept));
                        }
                        Found::Coming(_) => {}
                        Found::Nothing(making) => {
                            let read = database.load(Ordering::Acquire);
                            drop(making.made(&SHOWN, Some(text(&read.to_string()))));
                        }
                    }
                }
            });
        }
        for _ in 0..5_000 {
            let version = database.fetch_add(1, Ordering::AcqRel) + 1;
            generations.forget(subject);
            told.store(version, Ordering::Release);
            std::thread::yield_now();
        }
        over.store(true, Ordering::Release);
    });
    assert!(hits.load(Ordering::Relaxed) > 0);
}

fn cache() -> Cache {
    Cache::new(1 << 20, LIFE)
}

async fn body(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn what_is_there_and_what_is_not_there_are_asked_for_once() {
    let (cache, id, asked) = (cache(), Uuid::new_v4(), AtomicUsize::new(0));
    let (there, nowhere) = (Key::id(&SHOWN, id), Key::query(&SHOWN, Some("nowhere")));
    let subject = Subject::One(THINGS, id);
    let get = async |key: &Key| {
        let make = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok((*key == there).then(|| text("there")))
        };
        match cache.answer(&SHOWN, key.clone(), subject, make).await.unwrap() {
            Some(response) => body(response).await,
            None => "nothing".to_owned(),
        }
    };
    for _ in 0..3 {
        assert_eq!((get(&there).await, get(&nowhere).await), ("there".to_owned(), "nothing".to_owned()));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    cache.forget(subject);
    assert_eq!((get(&there).await, get(&nowhere).await), ("there".to_owned(), "nothing".to_owned()));
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    let counts = cache.counts();
    assert_eq!((counts.hits, counts.misses, counts.waits, counts.entries), (4, 4, 0, 2));
}

#[tokio::test]
async fn one_makes_it_and_the_others_wait_and_one_that_leaves_hands_it_on() {
    let (cache, id, asked) = (cache(), Uuid::new_v4(), Arc::new(AtomicUsize::new(0)));
    let ask = |go: Option<oneshot::Receiver<()>>| {
        let (cache, asked) = (cache.clone(), asked.clone());
        async move {
            let make = async || {
                asked.fetch_add(1, Ordering::Relaxed);
                match go {
                    Some(go) => drop(go.await),
                    None => pending().await,
                }
                Ok(Some(text("made")))
            };
            cache.answer(&SHOWN, Key::id(&SHOWN, id), Subject::One(THINGS, id), make).await
        }
    };
    let mut leaves = Box::pin(ask(None));
    assert!((&mut leaves).now_or_never().is_none());
    let (gos, waiting): (Vec<_>, Vec<_>) = (0..64)
        .map(|_| {
            let (go, wait) = oneshot::channel();
            (go, tokio::spawn(ask(Some(wait))))
        })
        .unzip();
    while cache.counts().waits < 64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    drop(leaves);
    for go in gos {
        let _ = go.send(());
    }
    for waiting in waiting {
        assert_eq!(body(waiting.await.unwrap().unwrap().unwrap()).await, "made");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2, "the one that left, and one more");
}

#[tokio::test]
async fn a_failure_is_for_all_who_waited_and_is_not_kept() {
    let (cache, id) = (cache(), Uuid::new_v4());
    let (go, wait) = oneshot::channel::<()>();
    let ask = |wait: Option<oneshot::Receiver<()>>| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let make = async || match wait {
                Some(wait) => {
                    wait.await.unwrap();
                    Err(Error::new(&codes::DATABASE_UNAVAILABLE).retry_after(Duration::from_secs(3)).caused_by("it is gone"))
                }
                None => Ok(Some(text("back"))),
            };
            cache.answer(&SHOWN, Key::id(&SHOWN, id), Subject::One(THINGS, id), make).await
        })
    };
    let first = ask(Some(wait));
    while cache.counts().misses < 1 {
        tokio::task::yield_now().await;
    }
    let second = ask(None);
    while cache.counts().waits < 1 {
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    for failed in [first, second] {
        let error = failed.await.unwrap().unwrap_err();
        assert_eq!((error.code().name, error.causes()), ("database_unavailable", vec!["it is gone".to_owned()]));
    }
    assert_eq!(body(ask(None).await.unwrap().unwrap().unwrap()).await, "back");
}

#[tokio::test]
async fn a_panic_costs_its_own_answer_and_the_next_one_makes_it() {
    let (cache, id) = (cache(), Uuid::new_v4());
    let panics = {
        let cache = cache.clone();
        tokio::spawn(async move { cache.answer(&SHOWN, Key::id(&SHOWN, id), Subject::One(THINGS, id), async || panic!("no")).await })
    };
    assert!(panics.await.unwrap_err().is_panic());
    let made = cache.answer(&SHOWN, Key::id(&SHOWN, id), Subject::One(THINGS, id), async || Ok(Some(text("made")))).await;
    assert_eq!(body(made.unwrap().unwrap()).await, "made");
}

#[test]
fn an_answer_ends_by_itself_a_little_before_its_time_and_not_with_its_neighbours() {
    let (_, shelf) = shelf(1 << 20);
    let now = Instant::now();
    let mut ends = std::collections::BTreeSet::new();
    for number in 0..100 {
        let id = Uuid::from_u128(number);
        let there = |after: Duration| matches!(shelf.find(&Key::id(&SHOWN, id), Subject::One(THINGS, id), now + after), Found::Kept(_));
        if let Found::Nothing(making) = shelf.find(&Key::id(&SHOWN, id), Subject::One(THINGS, id), now) {
            making.made(&SHOWN, Some(text("x")));
        }
        assert!(there(LIFE * 4 / 5 - Duration::from_millis(1)) && !there(LIFE));
        ends.insert((0..60).find(|second| !there(Duration::from_secs(*second))));
    }
    assert!(ends.len() > 5, "{ends:?}");
}

#[test]
fn any_number_of_answers_in_any_coding_takes_bounded_memory() {
    let (_, shelf) = shelf(1 << 20);
    let now = Instant::now();
    for number in 0..2_000 {
        let (id, long) = (Uuid::new_v4(), format!("{number} ").repeat(2_000));
        if let Found::Nothing(making) = shelf.find(&Key::id(&SHOWN, id), Subject::One(THINGS, id), now) {
            let (key, kept) = making.made(&SHOWN, Some(text(&long)));
            for coding in [compress::Coding::Zstd, compress::Coding::Gzip] {
                shelf.respond(key.clone(), &kept, Some(coding)).unwrap();
            }
        }
        assert!(shelf.counts().bytes <= 1 << 20);
    }
    let counts = shelf.counts();
    assert!(counts.entries > 10 && counts.bytes > 1 << 19, "{counts:?}");
}

#[tokio::test]
async fn every_coding_is_the_same_text_and_says_what_it_depends_on() {
    let long = "as long as it takes to be worth it ".repeat(100);
    let output = text(&long);
    let before = output.bytes();
    for coding in [compress::Coding::Zstd, compress::Coding::Brotli, compress::Coding::Gzip] {
        assert!(output.pack(Some(coding)) && !output.pack(Some(coding)), "it is made once");
        let response = output.respond(Some(coding));
        assert_eq!(response.headers()["content-encoding"], coding.as_str());
        assert_eq!(response.headers()["vary"], "accept-encoding");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let plain = match coding {
            compress::Coding::Zstd => zstd::decode_all(&bytes[..]).unwrap(),
            compress::Coding::Gzip => std::io::read_to_string(flate2::read::GzDecoder::new(&bytes[..])).unwrap().into_bytes(),
            compress::Coding::Brotli => {
                let mut plain = Vec::new();
                brotli::BrotliDecompress(&mut &bytes[..], &mut plain).unwrap();
                plain
            }
        };
        assert_eq!(plain, long.as_bytes());
    }
    assert!(output.bytes() > before, "codings weigh");
    let short = text("short");
    assert!(!short.pack(Some(compress::Coding::Zstd)));
    let response = short.respond(Some(compress::Coding::Zstd));
    assert!(!response.headers().contains_key("content-encoding") && !response.headers().contains_key("vary"));
}
