//! The table: one job an event, claims that exclude each other, bounds, secrets that go, and what an operator sees and does.

use std::collections::HashSet;
use std::time::Duration;

use mainstay::error::codes;
use mainstay::jobs::queue::{again, begin, bury, claim, done, extend, give_back, next_due};
use mainstay::jobs::{DONE_KEPT, Enqueued, FAILED_KEPT, Job, OPEN_MAX, Retried, SECRET_KEPT, State, enqueue, failed, retry, standing, sweep};
use mainstay::store::{Dialect, query};

use crate::ground::{Ground, on_both};

const LEASE: Duration = Duration::from_secs(60);

on_both! {
    a_job_exists_if_its_cause_committed
    an_event_makes_one_job_even_after_it_is_done
    many_workers_claim_each_job_once
    a_job_is_claimed_from_its_time_on_and_by_who_knows_its_kind
    who_lost_the_claim_changes_nothing
    a_worker_that_was_only_slow_can_still_say_that_it_is_done
    what_is_given_back_is_another_try_or_uncertain
    secrets_go_when_done_or_dead_and_soon_when_uncertain
    an_operator_sees_and_retries_what_failed
    rows_go_when_their_time_is_over
    what_a_clock_that_was_ahead_has_put_off_comes_back
    a_full_queue_refuses
}

fn job() -> Job {
    Job::new("test", &serde_json::json!({"marked": "payload"})).unwrap()
}

async fn a_job_exists_if_its_cause_committed(ground: Ground) {
    let mut transaction = ground.database.begin(None).await.unwrap();
    enqueue(&mut transaction, &job(), ground.now()).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(ground.rows().await, 0);
    let mut transaction = ground.database.begin(None).await.unwrap();
    enqueue(&mut transaction, &job(), ground.now()).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(ground.rows().await, 1);
}

async fn an_event_makes_one_job_even_after_it_is_done(ground: Ground) {
    let event = job().once("event");
    let id = ground.enqueue(&event).await;
    let enqueue_again = async || enqueue(&mut *ground.writer().await, &event, ground.now()).await.unwrap();
    assert_eq!(enqueue_again().await, Enqueued::Already);
    let other_kind = Job::new("other", &1).unwrap().once("event");
    assert!(matches!(enqueue(&mut *ground.writer().await, &other_kind, ground.now()).await.unwrap(), Enqueued::New(_)));
    let claimed = claim(&mut *ground.writer().await, &["test"], ground.now(), LEASE, 9).await.unwrap().pop().unwrap();
    assert_eq!(enqueue_again().await, Enqueued::Already);
    assert!(done(&mut *ground.writer().await, &claimed, ground.now()).await.unwrap());
    assert_eq!(ground.job(id).await, Some(("done".to_owned(), 1, false)), "only the key is left");
    assert_eq!(enqueue_again().await, Enqueued::Already);
    // Jobs without a key are as many as were asked for, and leave nothing.
    let (first, second) = (ground.enqueue(&job()).await, ground.enqueue(&job()).await);
    assert_ne!(first, second);
    let claimed = claim(&mut *ground.writer().await, &["test"], ground.now(), LEASE, 9).await.unwrap();
    for claimed in claimed {
        assert!(done(&mut *ground.writer().await, &claimed, ground.now()).await.unwrap());
    }
    assert_eq!((ground.state(first).await, ground.state(second).await), ("gone".to_owned(), "gone".to_owned()));
}

async fn many_workers_claim_each_job_once(ground: Ground) {
    let mut enqueued = HashSet::new();
    for _ in 0..60 {
        enqueued.insert(ground.enqueue(&job()).await);
    }
    let workers: Vec<_> = (0..6)
        .map(|_| {
            let ground = ground.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let mut transaction = ground.database.begin(None).await.unwrap();
                    let claimed = claim(&mut transaction, &["test"], ground.now(), LEASE, 3).await.unwrap();
                    transaction.commit().await.unwrap();
                    if claimed.is_empty() {
                        return mine;
                    }
                    mine.extend(claimed.iter().map(|job| job.id));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    assert_eq!(all.len(), 60, "none twice");
    assert_eq!(all.into_iter().collect::<HashSet<_>>(), enqueued);
}

async fn a_job_is_claimed_from_its_time_on_and_by_who_knows_its_kind(ground: Ground) {
    let due = ground.now().checked_add(Duration::from_secs(10)).unwrap();
    ground.enqueue(&job().at(due)).await;
    let mut session = ground.writer().await;
    assert_eq!(next_due(&mut session, &["other", "test"]).await.unwrap(), Some(due));
    assert_eq!(next_due(&mut session, &["other"]).await.unwrap(), None);
    assert!(claim(&mut session, &["test"], ground.now(), LEASE, 1).await.unwrap().is_empty());
    ground.pass(Duration::from_secs(10));
    assert!(claim(&mut session, &["other"], ground.now(), LEASE, 1).await.unwrap().is_empty());
    let claimed = claim(&mut session, &["other", "test"], ground.now(), LEASE, 1).await.unwrap();
    assert_eq!((claimed.len(), claimed[0].attempt, &claimed[0].payload["marked"]), (1, 1, &"payload".into()));
    assert!(!format!("{claimed:?}").contains("marked"));
    assert_eq!(next_due(&mut session, &["test"]).await.unwrap(), ground.now().checked_add(LEASE).ok(), "the end of its lease");
}

async fn who_lost_the_claim_changes_nothing(ground: Ground) {
    let id = ground.enqueue(&job()).await;
    let mut session = ground.writer().await;
    let old = claim(&mut session, &["test"], ground.now(), LEASE, 1).await.unwrap().pop().unwrap();
    ground.pass(LEASE);
    let new = claim(&mut session, &["test"], ground.now(), LEASE, 1).await.unwrap().pop().unwrap();
    assert_eq!((new.id, new.attempt), (id, 2));
    let now = ground.now();
    assert!(!extend(&mut session, &old, now).await.unwrap());
    assert!(!begin(&mut session, &old, now).await.unwrap());
    assert!(!again(&mut session, &old, now, "no").await.unwrap());
    assert!(!give_back(&mut session, &old, now, now, "no", true).await.unwrap());
    assert!(!bury(&mut session, &old, State::Dead, now, "no").await.unwrap());
    assert!(!done(&mut session, &old, now).await.unwrap());
    assert_eq!(ground.job(id).await, Some(("running".to_owned(), 2, true)));
    assert!(done(&mut session, &new, now).await.unwrap());
}

async fn a_worker_that_was_only_slow_can_still_say_that_it_is_done(ground: Ground) {
    let id = ground.enqueue(&job().once("event")).await;
    let mut session = ground.writer().await;
    let slow = claim(&mut session, &["test"], ground.now(), LEASE, 1).await.unwrap().pop().unwrap();
    assert!(begin(&mut session, &slow, ground.now().checked_add(LEASE).unwrap()).await.unwrap());
    ground.pass(LEASE);
    assert_eq!(mainstay::jobs::queue::give_up_lost(&mut session, ground.now()).await.unwrap(), 1);
    assert_eq!(ground.state(id).await, "uncertain");
    assert!(claim(&mut session, &["test"], ground.now(), LEASE, 1).await.unwrap().is_empty(), "nobody repeats it");
    assert!(done(&mut session, &slow, ground.now()).await.unwrap());
    assert_eq!(ground.state(id).await, "done");
}

async fn what_is_given_back_is_another_try_or_uncertain(ground: Ground) {
    let (calm, begun) = (ground.enqueue(&job()).await, ground.enqueue(&job()).await);
    let mut session = ground.writer().await;
    let now = ground.now();
    for claimed in claim(&mut session, &["test"], now, LEASE, 2).await.unwrap() {
        if claimed.id == begun {
            assert!(begin(&mut session, &claimed, now.checked_add(LEASE).unwrap()).await.unwrap());
        }
        assert!(give_back(&mut session, &claimed, now, now, "the process ended", true).await.unwrap());
    }
    assert_eq!(ground.job(calm).await, Some(("waiting".to_owned(), 0, true)), "the try was not its fault");
    assert_eq!(ground.job(begun).await, Some(("uncertain".to_owned(), 1, true)));
    let claimed = claim(&mut session, &["test"], now, LEASE, 2).await.unwrap();
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [calm]);
    assert!(give_back(&mut session, &claimed[0], now, now, "the handler panicked", false).await.unwrap());
    assert_eq!(ground.job(calm).await, Some(("waiting".to_owned(), 1, true)));
}

async fn secrets_go_when_done_or_dead_and_soon_when_uncertain(ground: Ground) {
    let now = ground.now();
    let mut session = ground.writer().await;
    let mut buried = Vec::new();
    for (key, job, state) in
        [("a", job(), State::Dead), ("b", job().secret(), State::Dead), ("c", job().secret(), State::Uncertain), ("d", job(), State::Uncertain)]
    {
        buried.push(ground_enqueue(&ground, &mut session, &job.once(key)).await);
        let claimed = claim(&mut session, &["test"], now, LEASE, 1).await.unwrap().pop().unwrap();
        assert!(bury(&mut session, &claimed, state, now, "why").await.unwrap());
    }
    let whole = async || {
        let mut whole = Vec::new();
        for id in &buried {
            whole.push(ground.job(*id).await.unwrap().2);
        }
        whole
    };
    drop(session);
    assert_eq!(whole().await, [true, false, true, true]);
    assert_eq!(sweep(&mut *ground.writer().await, now, LEASE, 10).await.unwrap(), 0);
    ground.pass(SECRET_KEPT);
    assert_eq!(sweep(&mut *ground.writer().await, ground.now(), LEASE, 10).await.unwrap(), 1);
    assert_eq!(whole().await, [true, false, false, true]);
}

/// On the one writer that SQLite has.
async fn ground_enqueue(ground: &Ground, session: &mut mainstay::store::Session, job: &Job) -> uuid::Uuid {
    match enqueue(session, job, ground.now()).await.unwrap() {
        Enqueued::New(id) => id,
        Enqueued::Already => panic!("there already"),
    }
}

async fn an_operator_sees_and_retries_what_failed(ground: Ground) {
    let mut session = ground.writer().await;
    let now = ground.now();
    let mut ids = Vec::new();
    for (job, state) in [(job(), State::Dead), (job().secret(), State::Dead), (job(), State::Uncertain)] {
        ids.push(ground_enqueue(&ground, &mut session, &job).await);
        let claimed = claim(&mut session, &["test"], ground.now(), LEASE, 1).await.unwrap().pop().unwrap();
        assert!(bury(&mut session, &claimed, state, ground.now(), "the server said\r\n550").await.unwrap());
        ground.pass(Duration::from_secs(1));
    }
    let waiting = ground_enqueue(&ground, &mut session, &job().at(now)).await;
    let stands = standing(&mut session, ground.now()).await.unwrap();
    assert_eq!((stands.count(State::Dead), stands.count(State::Uncertain), stands.count(State::Waiting), stands.count(State::Running)), (2, 1, 1, 0));
    assert_eq!(stands.oldest_due, Some(Duration::from_secs(3)));
    let listed = failed(&mut session, 10).await.unwrap();
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [ids[2], ids[1], ids[0]], "the latest first");
    assert_eq!((listed[0].failure.as_deref(), listed[0].whole, listed[1].whole), (Some("the server said550"), true, false));
    assert!(!format!("{listed:?}").contains("marked"));
    assert_eq!(failed(&mut session, 1).await.unwrap().len(), 1);
    assert_eq!(retry(&mut session, ids[0], ground.now()).await.unwrap(), Retried::Yes);
    assert_eq!(retry(&mut session, ids[1], ground.now()).await.unwrap(), Retried::Emptied);
    assert_eq!(retry(&mut session, ids[2], ground.now()).await.unwrap(), Retried::Yes);
    assert_eq!(retry(&mut session, uuid::Uuid::nil(), ground.now()).await.unwrap(), Retried::Unknown);
    let claimed = claim(&mut session, &["test"], ground.now(), LEASE, 9).await.unwrap();
    assert_eq!(claimed.iter().map(|job| job.id).collect::<HashSet<_>>(), HashSet::from([ids[0], ids[2], waiting]));
    assert!(claimed.iter().all(|job| job.attempt == 1), "all tries are before it again");
    assert_eq!(retry(&mut session, ids[0], ground.now()).await.unwrap(), Retried::NotNow(State::Running));
}

async fn rows_go_when_their_time_is_over(ground: Ground) {
    let mut session = ground.writer().await;
    for (key, state) in [("a", None), ("b", Some(State::Dead)), ("c", Some(State::Uncertain))] {
        ground_enqueue(&ground, &mut session, &job().once(key)).await;
        let claimed = claim(&mut session, &["test"], ground.now(), LEASE, 1).await.unwrap().pop().unwrap();
        match state {
            None => assert!(done(&mut session, &claimed, ground.now()).await.unwrap()),
            Some(state) => assert!(bury(&mut session, &claimed, state, ground.now(), "why").await.unwrap()),
        }
    }
    drop(session);
    let sweep_now = async || sweep(&mut *ground.writer().await, ground.now(), LEASE, 10).await.unwrap();
    assert_eq!(sweep_now().await, 0);
    ground.pass(DONE_KEPT);
    assert_eq!((sweep_now().await, ground.rows().await), (1, 2));
    ground.pass(FAILED_KEPT - DONE_KEPT);
    assert_eq!((sweep_now().await, ground.rows().await), (2, 0));
    // The event may make a job again.
    ground.enqueue(&job().once("a")).await;
}

async fn what_a_clock_that_was_ahead_has_put_off_comes_back(ground: Ground) {
    const DAY: Duration = Duration::from_secs(86_400);
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut session = ground.writer().await;
    // PostgreSQL has a clock of its own.
    ground.pass(jiff::Timestamp::now().duration_since(ground.now()).unsigned_abs());
    let (today, tomorrow) = (ground.now(), ground.now() + DAY);
    // Meant for another day, by a clock that is right: it stays there.
    ground_enqueue(&ground, &mut session, &job().at(today + 2 * DAY)).await;
    // While the clock is ahead: one whose worker is lost, one that failed, one that nobody claimed, and one for an hour later, which is a time that somebody named.
    let lost = claimed_at(&ground, &mut session, tomorrow).await;
    let failed = claimed_at(&ground, &mut session, tomorrow).await;
    assert!(again(&mut session, &failed, tomorrow + HOUR, "not today").await.unwrap());
    enqueue(&mut session, &job(), tomorrow).await.unwrap();
    enqueue(&mut session, &job().at(tomorrow + HOUR), tomorrow).await.unwrap();
    if ground.database.dialect() == Dialect::Postgres {
        assert_eq!(sweep(&mut session, today - HOUR, LEASE, 10).await.unwrap(), 0, "by a clock that is behind everything is far away");
    }
    let mut due = async |after: Duration| {
        let jobs = claim(&mut session, &["test"], today + after, LEASE, 10).await.unwrap();
        let ids = jobs.iter().map(|job| job.id).collect::<Vec<_>>();
        let touched = sweep(&mut session, today + after, LEASE, 10).await.unwrap();
        (ids, touched)
    };
    assert_eq!(due(Duration::ZERO).await, (Vec::new(), 3), "nobody would look at them before tomorrow");
    let (now, _) = due(Duration::from_secs(1)).await;
    assert!(now.len() == 2 && now.contains(&failed.id), "{now:?}");
    let (later, touched) = due(LEASE).await;
    assert_eq!((later, touched), (vec![lost.id], 0), "its worker had a lease to say that it lives");
    // Those of before, whose leases have ended by now.
    assert_eq!(due(HOUR + LEASE).await.0.len(), 3);
}

async fn claimed_at(ground: &Ground, session: &mut mainstay::store::Session, at: jiff::Timestamp) -> mainstay::jobs::queue::Claimed {
    ground_enqueue(ground, session, &job()).await;
    claim(session, &["test"], at, LEASE, 1).await.unwrap().pop().unwrap()
}

async fn a_full_queue_refuses(ground: Ground) {
    let text = match ground.database.dialect() {
        Dialect::Postgres => {
            "INSERT INTO jobs (id, kind, payload, secret, state, due_at, begun, attempts, created_at) SELECT gen_random_uuid(), 'test', '1', false, 'waiting', now(), false, 0, now() FROM generate_series(1, 50000)"
        }
        Dialect::Sqlite => {
            "INSERT INTO jobs (id, kind, payload, secret, state, due_at, begun, attempts, created_at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT i, 'test', '1', 0, 'waiting', 0, 0, 0, 0 FROM n"
        }
    };
    let mut session = ground.writer().await;
    assert_eq!(query(text).execute(&mut session).await.unwrap(), u64::try_from(OPEN_MAX).unwrap());
    let refused = enqueue(&mut session, &job(), ground.now()).await.unwrap_err();
    assert_eq!(refused.code(), &codes::OVERLOADED);
    query("UPDATE jobs SET state = 'dead' WHERE state = 'waiting'").execute(&mut session).await.unwrap();
    enqueue(&mut session, &job(), ground.now()).await.unwrap();
    // Of the failed ones a bounded number is kept.
    assert_eq!(sweep(&mut session, ground.now(), LEASE, 100).await.unwrap() % 100, 0);
}
