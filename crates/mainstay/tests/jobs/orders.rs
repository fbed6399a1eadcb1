//! Two workers and the end of a lease, their steps in every order, on both databases.
//!
//! A worker claims, marks that its effect begins (or does not, for an effect that may be repeated), has its effect, and says that it is done; or it is gone after
//! any of these steps. Whatever the order: an effect that was marked happens at most once, a job that was done stays done, and none is lost without a trace.

use std::time::Duration;

use mainstay::jobs::queue::{Claimed, begin, claim, done, give_up_lost};
use mainstay::jobs::{Job, Retried, retry};

use crate::ground::{Ground, on_both};

const LEASE: Duration = Duration::from_secs(60);

on_both! {
    an_effect_that_was_marked_happens_at_most_once_in_every_order
    an_effect_that_may_be_repeated_is_done_in_every_order
}

/// Who moves next: the first worker, the second, or the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    First,
    Second,
    LeaseEnds,
}

/// Every order of so many moves of each.
fn orders(first: usize, second: usize, ends: usize) -> Vec<Vec<Move>> {
    let mut all = Vec::new();
    for (who, [first, second, ends]) in [
        (Move::First, [first.wrapping_sub(1), second, ends]),
        (Move::Second, [first, second.wrapping_sub(1), ends]),
        (Move::LeaseEnds, [first, second, ends.wrapping_sub(1)]),
    ] {
        if first != usize::MAX && second != usize::MAX && ends != usize::MAX {
            all.extend(orders(first, second, ends).into_iter().map(|rest| [&[who], &rest[..]].concat()));
        }
    }
    if all.is_empty() { vec![Vec::new()] } else { all }
}

/// A worker between two of its steps. Its own program checks the lease by the claim alone, as a slow one would.
#[derive(Default)]
struct Worker {
    claimed: Option<Claimed>,
    /// It may have its effect.
    allowed: bool,
    step: usize,
}

impl Worker {
    /// Takes its next step; how many effects happened in it, and whether it may call the job done.
    async fn step(&mut self, ground: &Ground, marks: bool) -> (usize, bool) {
        let mut session = ground.writer().await;
        let now = ground.now();
        self.step += 1;
        match (self.step, &self.claimed) {
            (1, _) => {
                give_up_lost(&mut session, now).await.unwrap();
                self.claimed = claim(&mut session, &["test"], now, LEASE, 1).await.unwrap().pop();
                (0, false)
            }
            (2, Some(job)) => {
                self.allowed = !marks || begin(&mut session, job, now.checked_add(LEASE).unwrap()).await.unwrap();
                (usize::from(self.allowed), false)
            }
            (3, Some(job)) if self.allowed => (0, done(&mut session, job, now).await.unwrap()),
            _ => (0, false),
        }
    }
}

/// What one order came to.
struct Outcome {
    effects: usize,
    dones: usize,
    state: String,
}

async fn play(ground: &Ground, order: &[Move], marks: bool) -> (Outcome, uuid::Uuid) {
    let id = ground.enqueue(&Job::new("test", &1).unwrap().once(uuid::Uuid::new_v4().to_string())).await;
    let (mut first, mut second) = (Worker::default(), Worker::default());
    let (mut effects, mut dones) = (0, 0);
    for who in order {
        let (effect, done) = match who {
            Move::First => first.step(ground, marks).await,
            Move::Second => second.step(ground, marks).await,
            Move::LeaseEnds => {
                ground.pass(LEASE);
                (0, false)
            }
        };
        effects += effect;
        dones += usize::from(done);
    }
    (Outcome { effects, dones, state: ground.state(id).await }, id)
}

/// A third worker comes long after, when nobody else is left.
async fn finish(ground: &Ground, marks: bool) -> (usize, bool) {
    ground.pass(LEASE);
    let mut worker = Worker::default();
    let (mut effects, mut finished) = (0, false);
    for _ in 0..3 {
        let (effect, done) = worker.step(ground, marks).await;
        effects += effect;
        finished |= done;
    }
    (effects, finished)
}

async fn an_effect_that_was_marked_happens_at_most_once_in_every_order(ground: Ground) {
    let mut uncertain = 0;
    // A worker with fewer than three steps died after the last of them.
    for (first, second) in [(3, 3), (2, 3), (1, 3), (2, 2)] {
        for order in orders(first, second, 1) {
            let (outcome, id) = play(&ground, &order, true).await;
            let (late, finished) = finish(&ground, true).await;
            let effects = outcome.effects + late;
            let (state, dones) = (ground.state(id).await, outcome.dones + usize::from(finished));
            assert!(effects <= 1, "{order:?}: the effect happened {effects} times");
            assert!(dones <= 1, "{order:?}: done {dones} times");
            match state.as_str() {
                "done" => assert_eq!((effects, dones), (1, 1), "{order:?}"),
                "uncertain" => {
                    uncertain += 1;
                    assert_eq!((effects, dones), (1, 0), "{order:?}: only what began is uncertain");
                    // It is in nobody's way any more, and an operator can decide.
                    assert_eq!(retry(&mut *ground.writer().await, id, ground.now()).await.unwrap(), Retried::Yes);
                    assert_eq!(finish(&ground, true).await, (1, true), "{order:?}");
                }
                state => panic!("{order:?}: {state} after {}", outcome.state),
            }
        }
    }
    assert!(uncertain > 0, "some orders lose a worker in the middle");
}

async fn an_effect_that_may_be_repeated_is_done_in_every_order(ground: Ground) {
    for (first, second) in [(3, 3), (2, 3), (1, 3), (2, 2)] {
        for order in orders(first, second, 1) {
            let (outcome, id) = play(&ground, &order, false).await;
            let (late, finished) = finish(&ground, false).await;
            assert!(outcome.effects + late >= 1, "{order:?}");
            assert_eq!(outcome.dones + usize::from(finished), 1, "{order:?}: one worker calls it done");
            assert_eq!(ground.state(id).await, "done", "{order:?}");
        }
    }
}
