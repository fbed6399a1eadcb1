//! The shelf under threads that read while others write, and what is not kept on it.

use super::*;

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
                        Found::Coming(_) => std::thread::yield_now(),
                        Found::Early(..) | Found::Stale(_) => unreachable!("neither is asked for here"),
                        Found::Nothing(making) => {
                            let read = database.load(Ordering::Acquire);
                            drop(making.made(&SHOWN, Some(text(&read.to_string())), Duration::ZERO));
                        }
                    }
                }
            });
        }
        // Ends the readers also where this thread panics.
        let _over = Over(&over);
        for round in 0..5_000 {
            let version = database.fetch_add(1, Ordering::AcqRel) + 1;
            generations.forget(subject);
            told.store(version, Ordering::Release);
            std::thread::yield_now();
            // A writer without a pause leaves nothing to be found: now and then somebody has found it before the next.
            let (before, begun) = (hits.load(Ordering::Relaxed), Instant::now());
            while round % 100 == 0 && hits.load(Ordering::Relaxed) == before {
                assert!(begun.elapsed() < Duration::from_secs(30), "nobody finds what was made");
                std::thread::yield_now();
            }
        }
    });
    assert!(hits.load(Ordering::Relaxed) >= 50);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn what_is_given_to_nobody_any_more_is_not_kept() {
    let kept = |life: Duration| {
        let generations = Arc::new(Generations::new(Instant::now()));
        let (shelf, id) = (Shelf::new(1 << 20, life, life, generations), Uuid::new_v4());
        let Found::Nothing(making) = shelf.find(&Key::id(&SHOWN, id), Subject::One(THINGS, id), Instant::now()) else { panic!("it was never made") };
        drop(making.made(&SHOWN, Some(text("1")), Duration::ZERO));
        shelf
    };
    let (long, short, begun) = (kept(LIFE), kept(Duration::from_millis(50)), Instant::now());
    while short.counts().entries > 0 {
        assert!(begun.elapsed() < LIFE / 2, "it is still there");
        std::thread::yield_now();
    }
    assert_eq!(long.counts().entries, 1);
}
