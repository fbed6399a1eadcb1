//! No order of things gives a request what was old before it came; one request makes what many want.

mod lease;
mod orders;
mod shared;
mod threads;

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
use crate::news::LEASE;

const THINGS: Kind = Kind::new("things");
const SHOWN: Policy = Policy::of("show");
const LISTED: Policy = Policy::of("list");
const LIFE: Duration = Duration::from_secs(60);

fn text(text: &str) -> Output {
    Output::new(HeaderValue::from_static("text/plain"), Bytes::copy_from_slice(text.as_bytes()))
}

fn shelf(bytes: u64) -> (Arc<Generations>, Shelf) {
    let generations = Arc::new(Generations::new(Instant::now()));
    (generations.clone(), Shelf::new(bytes, LIFE, Duration::ZERO, generations))
}

fn said(kept: &Kept) -> u64 {
    std::str::from_utf8(&kept.output.as_ref().unwrap().plain).unwrap().parse().unwrap()
}

fn cache() -> Cache {
    Cache::new(1 << 20, LIFE, Duration::ZERO)
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
            making.made(&SHOWN, Some(text("x")), Duration::ZERO);
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
            let (key, kept) = making.made(&SHOWN, Some(text(&long)), Duration::ZERO);
            for coding in [compress::Coding::Zstd, compress::Coding::Gzip] {
                shelf.respond(key.clone(), &kept, Some(coding), None).unwrap();
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
        let response = output.respond(Some(coding), None);
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
    let response = short.respond(Some(compress::Coding::Zstd), None);
    assert!(!response.headers().contains_key("content-encoding") && !response.headers().contains_key("vary"));
}

/// Follows the news of others, and is told for so long.
fn told(cache: &Cache, until: Instant) {
    cache.0.generations.told_until(until);
}

async fn ask(cache: &Cache, id: Uuid, says: Result<&'static str>) -> Result<Response> {
    let make = async || says.map(|says| Some(text(says)));
    cache.answer(&SHOWN, Key::id(&SHOWN, id), Subject::One(THINGS, id), make).await.map(Option::unwrap)
}

fn away() -> Error {
    Error::new(&codes::DATABASE_UNAVAILABLE)
}

#[tokio::test]
async fn when_nobody_can_be_asked_what_was_good_is_given_and_says_so() {
    let (cache, id) = (Cache::new(1 << 20, LIFE, Duration::from_secs(300)), Uuid::new_v4());
    told(&cache, Instant::now() + Duration::from_secs(60));
    assert_eq!(body(ask(&cache, id, Ok("first")).await.unwrap()).await, "first");
    let first = Instant::now();
    cache.0.generations.lost(first);
    // What was asked for just now is believed for a moment by itself.
    while first.elapsed() < LEASE {
        tokio::task::yield_now().await;
    }
    let stale = ask(&cache, id, Err(away())).await.unwrap();
    assert_eq!(stale.headers()["cache-status"], "mainstay; hit; ttl=-0; detail=unavailable");
    assert_eq!(body(stale).await, "first");
    // Nobody is asked for a while; not even for what would be there.
    assert_eq!(body(ask(&cache, id, Ok("second")).await.unwrap()).await, "first");
    assert_eq!(ask(&cache, Uuid::new_v4(), Err(away())).await.unwrap_err().code().name, "database_unavailable");
    assert_eq!(cache.counts().stale, 1, "of two, one was found without asking");
    // What is known to have changed is given no more, and news end it.
    cache.forget(Subject::One(THINGS, id));
    assert_eq!(ask(&cache, id, Err(away())).await.unwrap_err().code().name, "database_unavailable");
    told(&cache, Instant::now() + Duration::from_secs(60));
    let fresh = ask(&cache, id, Ok("third")).await.unwrap();
    assert!(!fresh.headers().contains_key("cache-status"));
    assert_eq!(body(fresh).await, "third");
}

#[tokio::test]
async fn only_a_database_that_is_away_is_stood_in_for_and_only_if_that_is_wanted() {
    for (stale, error, given) in [
        (Duration::from_secs(300), away as fn() -> Error, true),
        (Duration::from_secs(300), || Error::new(&codes::INTERNAL), false),
        (Duration::ZERO, away, false),
    ] {
        let (cache, id) = (Cache::new(1 << 20, LIFE, stale), Uuid::new_v4());
        told(&cache, Instant::now() + Duration::from_secs(60));
        ask(&cache, id, Ok("first")).await.unwrap();
        let lost = Instant::now();
        cache.0.generations.lost(lost);
        while lost.elapsed() < LEASE {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&cache, id, Err(error())).await.is_ok(), given, "{stale:?}");
    }
}

#[tokio::test]
async fn nobody_waits_long_for_a_silent_database_if_there_is_something_to_give() {
    let (cache, id) = (Cache::new(1 << 20, LIFE, Duration::from_secs(300)), Uuid::new_v4());
    told(&cache, Instant::now() + Duration::from_secs(60));
    ask(&cache, id, Ok("first")).await.unwrap();
    let lost = Instant::now();
    cache.0.generations.lost(lost);
    while lost.elapsed() < LEASE {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    let silent = cache.answer(&SHOWN, Key::id(&SHOWN, id), Subject::One(THINGS, id), pending::<Result<Option<Output>>>).await;
    assert_eq!(body(silent.unwrap().unwrap()).await, "first");
    assert!(begun.elapsed() >= PATIENCE);
    // And nobody else does: it would be for ever.
    for _ in 0..100 {
        let silent = cache.answer(&SHOWN, Key::id(&SHOWN, id), Subject::One(THINGS, id), pending::<Result<Option<Output>>>);
        assert_eq!(body(silent.now_or_never().expect("at once").unwrap().unwrap()).await, "first");
    }
}

#[test]
fn of_those_who_ask_while_the_database_is_away_one_tries_now_and_then() {
    let generations = Arc::new(Generations::new(Instant::now()));
    let shelf = Shelf::new(1 << 20, LIFE, Duration::from_secs(300), generations.clone());
    let (id, now) = (Uuid::new_v4(), Instant::now());
    let (key, subject) = (Key::id(&SHOWN, id), Subject::One(THINGS, id));
    generations.told_until(now);
    let Found::Nothing(making) = shelf.find(&key, subject, now) else { panic!("it was there") };
    making.made(&SHOWN, Some(text("1")), Duration::ZERO);
    let begun = now + LEASE;
    shelf.note_away(begun);
    let tries = |from: u64, to: u64| {
        let at = (from..to).map(|ms| begun + Duration::from_millis(ms));
        at.filter(|at| matches!(shelf.find(&key, subject, *at), Found::Nothing(_))).count()
    };
    assert_eq!((tries(0, 500), tries(500, 1_000), tries(1_000, 3_000)), (0, 1, 4));
    shelf.note_there();
    assert_eq!(tries(3_000, 3_010), 10);
    assert!(matches!(shelf.find(&key, subject, begun + Duration::from_secs(301)), Found::Nothing(_)), "it is too old by then");
}

#[test]
fn what_is_read_often_is_made_anew_by_one_before_it_ends() {
    let (generations, shelf) = shelf(1 << 20);
    let (id, now, took) = (Uuid::new_v4(), Instant::now(), Duration::from_millis(100));
    let (key, subject) = (Key::id(&SHOWN, id), Subject::One(THINGS, id));
    let Found::Nothing(making) = shelf.find(&key, subject, now) else { panic!("it was there") };
    let (_, kept) = making.made(&SHOWN, Some(text("1")), took);
    let end = now + kept.left(now);
    // Long before its end nobody makes it, shortly before it somebody does.
    let first = (0..4_000_u32).map(|ms| end - Duration::from_millis(4_000) + Duration::from_millis(ms.into()));
    let mut early =
        first.filter_map(|at| if let Found::Early(kept, making) = shelf.find(&key, subject, at) { Some((at, kept, making)) } else { None });
    let (at, kept, making) = early.next().expect("one of 4,000");
    assert!(end - at < took * 37, "{:?} before its end", end - at);
    assert_eq!(said(&kept), 1);
    // The others get what is there.
    for ms in 0..(end - at).as_millis() {
        assert!(matches!(shelf.find(&key, subject, at + Duration::from_millis(u64::try_from(ms).unwrap())), Found::Kept(_)));
    }
    drop(making);
    drop(early);
    generations.forget(subject);
    assert!(matches!(shelf.find(&key, subject, at), Found::Nothing(_)), "what has changed is not given early or late");
}

#[tokio::test]
async fn an_early_answer_that_fails_costs_nobody_anything() {
    let (cache, id) = (cache(), Uuid::new_v4());
    let key = || Key::id(&SHOWN, id);
    let shelf = cache.0.shelf.as_ref().unwrap();
    let Found::Nothing(making) = shelf.find(&key(), Subject::One(THINGS, id), Instant::now()) else { panic!("it was there") };
    // Everybody is early for what takes a year.
    making.made(&SHOWN, Some(text("first")), Duration::from_secs(31_536_000));
    assert_eq!(body(ask(&cache, id, Err(Error::new(&codes::INTERNAL))).await.unwrap()).await, "first");
    assert_eq!(body(ask(&cache, id, Ok("second")).await.unwrap()).await, "second");
    let counts = cache.counts();
    assert_eq!((counts.early, counts.hits, counts.misses), (2, 2, 1));
}
