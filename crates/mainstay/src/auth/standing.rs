//! What this instance remembers of the standing of sessions, so that a request costs no query, and when it must not be believed.
//!
//! Promises, whatever the order of things:
//! - An answer that the database gave before a change is never given after the change was told here ([`Standings::forget`]), not even when the answer
//!   arrives later than the news: who asks takes a [`Ticket`] first, and a ticket from before the news keeps nothing.
//! - While nobody tells this instance of changes, an answer is 250 ms old at most; else 5 seconds.
//! - The memory is bounded, whatever tokens come.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Role;
use crate::news::{Memory, Told};

/// An answer is asked for again after this time, told or not: the net under everything else, and on SQLite what a command of the command line, which is
/// another process, takes to be seen.
const KEPT: Duration = Duration::from_secs(5);
/// The same while changes may go by unheard. Short enough to be "at once" for a person, long enough that a page's burst of requests costs one query.
pub(super) const KEPT_UNTOLD: Duration = Duration::from_millis(250);
/// Locks that requests share; with 64 of them, 16 cores meet at one about once in five requests even if they did nothing else.
const SHARDS: usize = 64;
/// Accounts in a generation of a shard: 100,000 in all, about 150 bytes each.
const ACCOUNTS_MAX: usize = 800;
/// Sessions and API keys of an account; more than a service should let one have. Beyond it the one asked for first gives way.
const SESSIONS_MAX: usize = 160;

/// What changed in who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something about the account: its role, whether it may sign in, all of its sessions.
    Account(Uuid),
    /// One session of the account ended.
    Session {
        /// The account.
        account: Uuid,
        /// Its session.
        session: Uuid,
    },
}

impl Change {
    pub(super) fn account(self) -> Uuid {
        match self {
            Self::Account(account) | Self::Session { account, .. } => account,
        }
    }
}

/// The memory.
pub(super) struct Standings {
    told: Told,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    /// Changes that were told here. A ticket holds the count at which its owner began to ask.
    changes: u64,
    young: Accounts,
    /// The generation before. It goes when the young one is full: no list of ages has to be kept.
    old: Accounts,
}

type Accounts = HashMap<Uuid, Vec<Known>>;

#[derive(Clone, Copy)]
struct Known {
    session: Uuid,
    /// `None`: it may do nothing.
    role: Option<Role>,
    asked: Instant,
}

/// Taken before the database is asked; with it the answer is kept, if nothing changed in between.
pub(super) struct Ticket {
    changes: u64,
    asked: Instant,
}

impl Standings {
    /// Nothing is known, and all changes are made by this process.
    pub(super) fn new(now: Instant) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { told: Told::new(now), shards }
    }

    fn shard(&self, account: Uuid) -> Option<MutexGuard<'_, Shard>> {
        // The low bits of a UUID of version 4 are random.
        let place = account.as_u128() as usize % SHARDS;
        // Whole after a panic as well: what is removed or put in is one call.
        self.shards.get(place).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known, if it may still be believed.
    pub(super) fn get(&self, account: Uuid, session: Uuid, now: Instant) -> Option<Option<Role>> {
        let kept = if self.told.holds(now) { KEPT } else { KEPT_UNTOLD };
        let shard = self.shard(account)?;
        let known =
            [&shard.young, &shard.old].into_iter().find_map(|accounts| accounts.get(&account)?.iter().find(|known| known.session == session))?;
        (now.saturating_duration_since(known.asked) < kept).then_some(known.role)
    }

    /// The database is about to be asked about this account.
    pub(super) fn ask(&self, account: Uuid, now: Instant) -> Ticket {
        Ticket { changes: self.shard(account).map_or(0, |shard| shard.changes), asked: now }
    }

    /// Keeps what the database said, unless something changed since it was asked.
    pub(super) fn keep(&self, account: Uuid, session: Uuid, role: Option<Role>, ticket: &Ticket) {
        let Some(mut shard) = self.shard(account) else { return };
        if shard.changes != ticket.changes {
            return;
        }
        if shard.young.len() >= ACCOUNTS_MAX && !shard.young.contains_key(&account) {
            shard.old = std::mem::take(&mut shard.young);
        }
        let sessions = shard.young.entry(account).or_default();
        sessions.retain(|known| known.session != session);
        if sessions.len() >= SESSIONS_MAX {
            sessions.remove(0);
        }
        sessions.push(Known { session, role, asked: ticket.asked });
    }

    /// Something changed, and the database knows it already.
    pub(super) fn forget(&self, change: Change) {
        let Some(mut shard) = self.shard(change.account()) else { return };
        shard.changes += 1;
        let Shard { young, old, .. } = &mut *shard;
        for accounts in [young, old] {
            match change {
                Change::Account(account) => drop(accounts.remove(&account)),
                Change::Session { account, session } => {
                    if let Some(sessions) = accounts.get_mut(&account) {
                        sessions.retain(|known| known.session != session);
                    }
                }
            }
        }
    }
}

impl Memory for Standings {
    fn hear(&self, subject: &str) {
        match parse(subject) {
            Some(change) => self.forget(change),
            None => self.forget_all(),
        }
    }

    fn forget_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let changes = shard.changes + 1;
            *shard = Shard { changes, ..Shard::default() };
        }
    }

    fn told_until(&self, until: Instant) {
        self.told.until(until);
    }

    fn alone(&self) {
        self.told.alone();
    }
}

/// What the triggers say: `<account>` or `<account>/<session>`.
fn parse(subject: &str) -> Option<Change> {
    match subject.split_once('/') {
        None => Some(Change::Account(Uuid::try_parse(subject).ok()?)),
        Some((account, session)) => Some(Change::Session { account: Uuid::try_parse(account).ok()?, session: Uuid::try_parse(session).ok()? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(65); // In the same shard as A.
    const S: Uuid = Uuid::from_u128(0x51);
    const T: Uuid = Uuid::from_u128(0x52);

    fn put(standings: &Standings, account: Uuid, session: Uuid, now: Instant) {
        let ticket = standings.ask(account, now);
        standings.keep(account, session, Some(Role::User), &ticket);
    }

    #[test]
    fn a_change_of_a_session_leaves_the_others_and_one_of_an_account_takes_all_of_its() {
        let now = Instant::now();
        let standings = Standings::new(now);
        for (account, session) in [(A, S), (A, T), (B, S)] {
            put(&standings, account, session, now);
        }
        standings.forget(Change::Session { account: A, session: S });
        assert_eq!(
            [standings.get(A, S, now), standings.get(A, T, now), standings.get(B, S, now)],
            [None, Some(Some(Role::User)), Some(Some(Role::User))]
        );
        standings.forget(Change::Account(A));
        assert_eq!([standings.get(A, T, now), standings.get(B, S, now)], [None, Some(Some(Role::User))]);
        standings.forget_all();
        assert_eq!(standings.get(B, S, now), None);
    }

    #[test]
    fn an_answer_from_before_the_news_is_not_kept_after_it() {
        let now = Instant::now();
        let standings = Standings::new(now);
        for news in [Change::Account(A), Change::Session { account: A, session: S }] {
            let ticket = standings.ask(A, now);
            standings.forget(news);
            standings.keep(A, S, Some(Role::Admin), &ticket);
            assert_eq!(standings.get(A, S, now), None, "{news:?}");
        }
        let ticket = standings.ask(A, now);
        standings.forget_all();
        standings.keep(A, S, Some(Role::Admin), &ticket);
        assert_eq!(standings.get(A, S, now), None);
    }

    #[test]
    fn without_news_an_answer_is_believed_for_a_quarter_of_a_second_and_with_them_for_five() {
        let now = Instant::now();
        let standings = Standings::new(now);
        put(&standings, A, S, now);
        let after = |ms| standings.get(A, S, now + Duration::from_millis(ms)).is_some();
        assert!(after(4_999) && !after(5_000));
        standings.told_until(now + Duration::from_secs(1));
        assert!(after(999) && !after(1_000), "the news ended");
        standings.told_until(now);
        assert!(after(249) && !after(250));
    }

    #[test]
    fn the_texts_of_the_triggers_are_understood_and_others_empty_the_memory() {
        assert_eq!(parse(&A.to_string()), Some(Change::Account(A)));
        assert_eq!(parse(&format!("{A}/{S}")), Some(Change::Session { account: A, session: S }));
        let now = Instant::now();
        for other in ["", "x", &format!("{A}/x"), &format!("{A}/"), "something new"] {
            assert_eq!(parse(other), None, "{other}");
            let standings = Standings::new(now);
            put(&standings, A, S, now);
            standings.hear(other);
            assert_eq!(standings.get(A, S, now), None, "{other}");
        }
    }

    #[test]
    fn any_number_of_accounts_and_sessions_takes_bounded_memory() {
        let now = Instant::now();
        let standings = Standings::new(now);
        for number in 0..2 * (SHARDS * ACCOUNTS_MAX) as u128 + 100_000 {
            put(&standings, Uuid::from_u128(number), S, now);
        }
        for number in 0..1_000 {
            put(&standings, A, Uuid::from_u128(number), now);
        }
        let mut accounts = 0;
        for shard in &standings.shards {
            let shard = shard.lock().unwrap();
            accounts += shard.young.len() + shard.old.len();
            assert!(shard.young.values().chain(shard.old.values()).all(|sessions| sessions.len() <= SESSIONS_MAX));
        }
        assert!(accounts <= 2 * SHARDS * ACCOUNTS_MAX, "{accounts}");
        assert!(standings.get(A, Uuid::from_u128(999), now).is_some(), "the newest are kept");
    }

    /// Steps of a world with one account: readers ask and get their answers late, the database changes, the news come late.
    #[derive(Debug, Clone)]
    enum Step {
        Ask(usize),
        Answer(usize),
        Revoke,
        Tell,
    }

    proptest! {
        #[test]
        fn whatever_the_order_no_session_is_believed_alive_after_the_news_of_its_end(
            steps in prop::collection::vec(prop_oneof![(0..4usize).prop_map(Step::Ask), (0..4usize).prop_map(Step::Answer), Just(Step::Revoke), Just(Step::Tell)], 0..40)
        ) {
            let now = Instant::now();
            let standings = Standings::new(now);
            let (mut alive, mut told) = (true, false);
            // A reader's ticket, and what the database said at the moment it was read.
            let mut readers: [Option<(Ticket, Option<Role>)>; 4] = Default::default();
            for step in steps {
                match step {
                    Step::Ask(reader) => readers[reader] = Some((standings.ask(A, now), alive.then_some(Role::User))),
                    Step::Answer(reader) => {
                        if let Some((ticket, role)) = readers[reader].take() {
                            standings.keep(A, S, role, &ticket);
                        }
                    }
                    Step::Revoke => alive = false,
                    Step::Tell if !alive => {
                        standings.forget(Change::Session { account: A, session: S });
                        told = true;
                    }
                    Step::Tell => {}
                }
                prop_assert!(!(told && standings.get(A, S, now) == Some(Some(Role::User))));
            }
        }
    }
}
