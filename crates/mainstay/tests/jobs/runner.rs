//! The runner: it works at once, in bounds, and whatever a handler does the job ends up somewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay::jobs::{Chance, Failure, Job, Jobs, Kinds, Limits, Running, State};
use tokio::sync::Semaphore;

use crate::ground::{Ground, on_both, until};

const LONG: Duration = Duration::from_secs(60);

on_both! {
    a_job_is_done_right_after_its_commit
    a_failure_is_tried_again_after_its_wait_and_at_last_dead
    a_panic_and_an_endless_handler_are_failures
    no_more_run_at_once_than_allowed
    a_runner_that_stops_finishes_what_runs_and_takes_nothing_new
    a_runner_that_is_cut_gives_back_what_it_had
    another_process_takes_over_when_a_lease_ends
    a_lease_is_kept_while_the_handler_runs
    the_standing_is_counted
}

fn jobs(ground: &Ground, kinds: Kinds, concurrency_max: usize, lease: Duration) -> Jobs {
    let jobs = Jobs::new(ground.database.clone(), ground.clock(), Chance::from_fn(|| 1.0), kinds, Limits { concurrency_max, lease });
    jobs.start();
    jobs
}

fn test() -> Job {
    Job::new("test", &7).unwrap()
}

async fn a_job_is_done_right_after_its_commit(ground: Ground) {
    let (done, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let kinds = Kinds::new().on("test", 3, LONG, move |running: Running| {
        let done = done.clone();
        async move {
            done.send((running.id(), running.attempt(), running.payload::<i64>()?)).unwrap();
            Ok(())
        }
    });
    let jobs = jobs(&ground, kinds, 2, LONG);
    let id = ground.enqueue(&test()).await;
    let heard = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await.unwrap().unwrap();
    assert_eq!(heard, (id, 1, 7));
    until("the row is gone", || async { ground.state(id).await == "gone" }).await;
    assert!(jobs.stop(LONG).await);
    assert!(jobs.stop(LONG).await, "a second time is no harm");
}

async fn a_failure_is_tried_again_after_its_wait_and_at_last_dead(ground: Ground) {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let kinds = Kinds::new()
        .on("test", 3, LONG, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Err(Failure::again("not yet")) }
        })
        .on("hopeless", 3, LONG, async |_| Err(Failure::never("no such address")))
        .on("foreign", 3, LONG, async |running: Running| running.payload::<String>().map(drop));
    let jobs = jobs(&ground, kinds, 4, LONG);
    let id = ground.enqueue(&test()).await;
    let hopeless = ground.enqueue(&Job::new("hopeless", &1).unwrap()).await;
    let foreign = ground.enqueue(&Job::new("foreign", &1).unwrap()).await;
    for (number, wait) in [(1, 20), (2, 40)] {
        until("it failed and waits", || async { ground.job(id).await == Some(("waiting".to_owned(), number, true)) }).await;
        ground.pass(Duration::from_secs(wait));
    }
    until("it is dead", || async { ground.state(id).await == "dead" }).await;
    until("so is what never works", || async { ground.state(hopeless).await == "dead" && ground.state(foreign).await == "dead" }).await;
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    let failed = mainstay::jobs::failed(&mut *ground.writer().await, 10).await.unwrap();
    assert!(failed.iter().any(|job| job.id == id && job.failure.as_deref() == Some("not yet") && job.attempts == 3), "{failed:?}");
    assert!(jobs.stop(LONG).await);
}

async fn a_panic_and_an_endless_handler_are_failures(ground: Ground) {
    let kinds = Kinds::new()
        .on("panics", 3, LONG, async |_| panic!("no"))
        .on("endless", 3, Duration::from_millis(50), async |_| std::future::pending().await)
        .on("begun", 3, Duration::from_millis(200), async |running: Running| {
            running.begin().await?;
            std::future::pending().await
        })
        .on("unknown", 3, LONG, async |running: Running| {
            running.begin().await?;
            Err(Failure::unknown("no answer"))
        })
        .on("known", 3, LONG, async |running: Running| {
            running.begin().await?;
            Err(Failure::again("refused"))
        });
    let jobs = jobs(&ground, kinds, 8, LONG);
    for (kind, state) in [("panics", "waiting"), ("endless", "waiting"), ("begun", "uncertain"), ("unknown", "uncertain"), ("known", "waiting")] {
        let id = ground.enqueue(&Job::new(Box::leak(kind.to_owned().into_boxed_str()), &1).unwrap()).await;
        until(kind, || async { ground.job(id).await.is_some_and(|(now, tries, _)| now == state && tries == 1) }).await;
    }
    assert!(jobs.stop(LONG).await);
}

async fn no_more_run_at_once_than_allowed(ground: Ground) {
    let (at_once, most, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, highest, wait) = (at_once.clone(), most.clone(), gate.clone());
    let kinds = Kinds::new().on("test", 3, LONG, move |_| {
        let (counted, highest, wait) = (counted.clone(), highest.clone(), wait.clone());
        async move {
            highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            wait.acquire().await.unwrap().forget();
            counted.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let jobs = jobs(&ground, kinds, 3, LONG);
    for _ in 0..10 {
        ground.enqueue(&test()).await;
    }
    until("three run", || async { at_once.load(Ordering::SeqCst) == 3 }).await;
    gate.add_permits(10);
    until("all are done", || async { ground.rows().await == 0 }).await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!(jobs.stop(LONG).await);
}

/// A handler that says that it has begun, and waits to be let go.
fn held(kinds: Kinds) -> (Kinds, Arc<Semaphore>, Arc<Semaphore>) {
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (says, waits) = (begun.clone(), go.clone());
    let kinds = kinds.on("test", 3, LONG, move |_| {
        let (says, waits) = (says.clone(), waits.clone());
        async move {
            says.add_permits(1);
            waits.acquire().await.unwrap().forget();
            Ok(())
        }
    });
    (kinds, begun, go)
}

async fn a_runner_that_stops_finishes_what_runs_and_takes_nothing_new(ground: Ground) {
    let (kinds, begun, go) = held(Kinds::new());
    let jobs = jobs(&ground, kinds, 1, LONG);
    let (first, second) = (ground.enqueue(&test()).await, ground.enqueue(&test()).await);
    begun.acquire().await.unwrap().forget();
    let stopping = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.stop(LONG).await }
    });
    go.add_permits(2);
    assert!(stopping.await.unwrap());
    let mut left = [ground.state(first).await, ground.state(second).await];
    left.sort();
    // Which of the two came first only their ids say.
    assert!(left == ["gone", "waiting"] || left == ["gone", "gone"], "{left:?}");
    assert_eq!(jobs.running(), 0);
    let third = ground.enqueue(&test()).await;
    assert_eq!(ground.state(third).await, "waiting");
}

async fn a_runner_that_is_cut_gives_back_what_it_had(ground: Ground) {
    let (kinds, begun, _go) = held(Kinds::new());
    let jobs = jobs(&ground, kinds, 1, LONG);
    let id = ground.enqueue(&test()).await;
    begun.acquire().await.unwrap().forget();
    assert!(!jobs.stop(Duration::from_millis(20)).await, "something was cut");
    assert_eq!(ground.job(id).await, Some(("waiting".to_owned(), 0, true)), "at once, not when its lease ends");
}

async fn another_process_takes_over_when_a_lease_ends(ground: Ground) {
    // The first process claims and is never heard of again.
    let id = ground.enqueue(&test()).await;
    let lost = mainstay::jobs::queue::claim(&mut *ground.writer().await, &["test"], ground.now(), LONG, 1).await.unwrap().pop().unwrap();
    let (kinds, begun, go) = held(Kinds::new());
    let jobs = jobs(&ground, kinds, 1, LONG);
    ground.pass(LONG);
    begun.acquire().await.unwrap().forget();
    assert_eq!(ground.job(id).await, Some(("running".to_owned(), 2, true)));
    assert!(!mainstay::jobs::queue::done(&mut *ground.writer().await, &lost, ground.now()).await.unwrap());
    go.add_permits(1);
    until("it is done", || async { ground.state(id).await == "gone" }).await;
    assert!(jobs.stop(LONG).await);
}

async fn a_lease_is_kept_while_the_handler_runs(ground: Ground) {
    let lease = Duration::from_millis(300);
    let (kinds, begun, go) = held(Kinds::new());
    let jobs = jobs(&ground, kinds, 1, lease);
    let id = ground.enqueue(&test()).await;
    begun.acquire().await.unwrap().forget();
    let due = async || mainstay::jobs::queue::next_due(&mut *ground.writer().await, &["test"]).await.unwrap().unwrap();
    let first = due().await;
    // Less than a lease by the clock of the queue, so that nobody may take it, and an extension shows.
    ground.pass(lease / 2);
    until("the lease is extended", || async { due().await > first }).await;
    assert_eq!(ground.job(id).await, Some(("running".to_owned(), 1, true)));
    // Somebody else's claim ends the handler, and its outcome counts no more.
    ground.pass(lease * 2);
    let stolen = mainstay::jobs::queue::claim(&mut *ground.writer().await, &["test"], ground.now(), LONG, 1).await.unwrap();
    if let Some(stolen) = stolen.first() {
        until("the handler is ended", || async { jobs.running() == 0 }).await;
        assert_eq!(ground.state(id).await, "running");
        assert!(mainstay::jobs::queue::done(&mut *ground.writer().await, stolen, ground.now()).await.unwrap());
    }
    go.add_permits(1);
    assert!(jobs.stop(LONG).await);
}

async fn the_standing_is_counted(ground: Ground) {
    ground.enqueue(&Job::new("foreign", &1).unwrap()).await;
    let jobs = jobs(&ground, Kinds::new(), 1, LONG);
    until("it is counted", || async { jobs.standing().count(State::Waiting) == 1 }).await;
    assert!(jobs.stop(LONG).await);
}
