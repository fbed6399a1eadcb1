//! No order of things gives a request what was old before it came; one request makes what many want.

mod lease;

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

/// Steps of a world with two instances over one database of three things. A reader asks, reads the database, and answers, each when it pleases; news come
/// late, in their order.
#[derive(Debug, Clone)]
enum Step {
    /// For thing 3 read: for all of them.
    Ask(usize, usize),
    Read(usize),
    Answer(usize),
    Leave(usize),
    /// By an instance, which forgets before it answers.
    Write(usize, usize),
    /// By hand: nobody forgets before the news.
    Change(usize),
    Tell(usize),
    /// Its connection was lost and is back.
    Return(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (reader, instance, thing) = (0..8usize, 0..2usize, 0..3usize);
    prop_oneof![
        4 => (reader.clone(), 0..4usize).prop_map(|(reader, thing)| Step::Ask(reader, thing)),
        3 => reader.clone().prop_map(Step::Read),
        3 => reader.clone().prop_map(Step::Answer),
        1 => reader.prop_map(Step::Leave),
        2 => (instance.clone(), thing.clone()).prop_map(|(instance, thing)| Step::Write(instance, thing)),
        1 => thing.prop_map(Step::Change),
        3 => instance.clone().prop_map(Step::Tell),
        1 => instance.prop_map(Step::Return),
    ]
}

enum Reader<'a> {
    Idle,
    Making { making: Making<'a>, thing: usize, read: Option<u64>, floor: u64 },
    Waiting { coming: watch::Receiver<Option<Outcome>>, floor: u64 },
}

/// Versions of the things. An answer for thing 3 says how many changes there were in all.
#[derive(Clone, Copy, Default)]
struct Versions([u64; 3]);

impl Versions {
    fn of(&self, thing: usize) -> u64 {
        self.0.get(thing).copied().unwrap_or_else(|| self.0.iter().sum())
    }
}

struct Instance {
    generations: Arc<Generations>,
    shelf: Shelf,
}

/// Half of the readers ask each instance.
fn place(reader: usize) -> usize {
    reader % 2
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_the_order_nothing_is_given_that_was_told_to_be_old_before_it_was_asked_for(steps in prop::collection::vec(step(), 0..80)) {
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];
        let instances = [shelf(1 << 20), shelf(1 << 20)].map(|(generations, shelf)| Instance { generations, shelf });
        let now = Instant::now();
        let mut database = Versions::default();
        // What each instance was told, and what is on its way there: the thing and its version.
        let mut told = [Versions::default(); 2];
        let mut news: [std::collections::VecDeque<(usize, u64)>; 2] = Default::default();
        let mut readers: [Reader<'_>; 8] = std::array::from_fn(|_| Reader::Idle);
        let hear = |told: &mut Versions, instance: usize, thing: usize, version: u64| {
            told.0[thing] = told.0[thing].max(version);
            instances[instance].generations.hear(&format!("things/{}", ids[thing]));
        };
        for step in steps {
            match step {
                Step::Ask(reader, thing) => {
                    let floor = told[place(reader)].of(thing);
                    let (key, subject) = match ids.get(thing) {
                        Some(id) => (Key::id(&SHOWN, *id), Subject::One(THINGS, *id)),
                        None => (Key::query(&LISTED, None), Subject::All(THINGS)),
                    };
                    readers[reader] = match instances[place(reader)].shelf.find(&key, subject, now) {
                        Found::Kept(kept) => {
                            prop_assert!(said(&kept) >= floor, "kept {} after {floor}", said(&kept));
                            Reader::Idle
                        }
                        Found::Coming(coming) => Reader::Waiting { coming, floor },
                        Found::Nothing(making) => Reader::Making { making, thing, read: None, floor },
                    };
                }
                Step::Read(reader) => {
                    if let Reader::Making { thing, read, .. } = &mut readers[reader] {
                        *read = Some(database.of(*thing));
                    }
                }
                Step::Answer(reader) => {
                    if let Reader::Making { read: Some(read), floor, .. } = &readers[reader] {
                        prop_assert!(read >= floor);
                        let (read, making) = (*read, std::mem::replace(&mut readers[reader], Reader::Idle));
                        if let Reader::Making { making, .. } = making {
                            making.made(&SHOWN, Some(text(&read.to_string())));
                        }
                    }
                }
                Step::Leave(reader) => readers[reader] = Reader::Idle,
                Step::Write(_, thing) | Step::Change(thing) => {
                    database.0[thing] += 1;
                    let version = database.0[thing];
                    news.iter_mut().for_each(|news| news.push_back((thing, version)));
                    if let Step::Write(instance, _) = step {
                        hear(&mut told[instance], instance, thing, version);
                    }
                }
                Step::Tell(instance) => {
                    if let Some((thing, version)) = news[instance].pop_front() {
                        hear(&mut told[instance], instance, thing, version);
                    }
                }
                Step::Return(instance) => {
                    news[instance].clear();
                    told[instance] = database;
                    instances[instance].generations.forget_all();
                }
            }
            for reader in &mut readers {
                let Reader::Waiting { coming, floor } = reader else { continue };
                let outcome = coming.borrow().clone();
                match outcome {
                    Some(Outcome::Made(kept)) => prop_assert!(said(&kept) >= *floor, "waited for {} after {floor}", said(&kept)),
                    None if coming.has_changed().is_ok() => continue,
                    _ => {}
                }
                *reader = Reader::Idle;
            }
        }
        drop(readers);
        // Nothing that was begun is left over, and everybody can be answered.
        for instance in &instances {
            for id in ids {
                prop_assert!(!matches!(instance.shelf.find(&Key::id(&SHOWN, id), Subject::One(THINGS, id), now), Found::Coming(_)));
            }
        }
    }
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
