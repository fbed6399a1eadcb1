//! Where passwords wait for a core: a bounded room with a line for each client, worked off in turns by threads of their own.
//!
//! Promises: on a side, no client waits for more than one job of every other client that waits there; a crowd of one client never keeps another one out; strangers, however many
//! they are, take no place of who is known, and at most every fourth turn.
//!
//! A full room does not simply refuse who comes last, because then the one who asks most often has it all. Who comes from the longest line is refused, or the last
//! one of that line gives way. So a flood from one address competes with itself, and a sign-in from elsewhere is next but one.
//!
//! A flood from everywhere has no longest line. So the room has two sides, with places of their own: one for who comes from where the account is known, and for what
//! was proven otherwise, and one for everybody else. While both wait, three of the known side are served and then a stranger, so that neither waits for the other's end.
//!
//! The threads are our own and a little less urgent than those that serve: a password may take 30 ms instead of 20, an answer from memory not 20 instead of one. They are
//! not *much* less urgent, or whoever keeps all cores busy with cheap requests would keep everybody from signing in.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::memory::Memory;
use crate::client::ClientKey;

/// Those who wait for a core on either side, per core that hashes: at 20 ms each they wait about half a second at most, strangers beside a crowd of known ones two. One
/// more is told to come back.
const WAITING_PER_CORE: usize = 24;
/// So many of the known side are served before a stranger, while both wait.
const KNOWN_IN_A_ROW: u32 = 3;
/// Each step is a factor of 1.25 (sched(7)): five leave a hashing thread a third of what one that serves gets, where both want the same core.
#[cfg(target_os = "linux")]
const NICER_BY: i32 = 5;

/// Who wants a core: a client, or the service itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// From where the account is known, or with another proof than the password: a link that was mailed, a session.
    Known(Option<ClientKey>),
    /// Anybody.
    Stranger(Option<ClientKey>),
}

/// Whose turn it is within a side.
type Line = Option<ClientKey>;
/// What is to be done, with the memory of the thread that does it. One that gives way is dropped without having been called.
pub(super) type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// The room and its threads, which end with it.
pub(super) struct Room(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

struct Queue {
    known: Side,
    strangers: Side,
    /// So many known ones were served since the last stranger.
    known_in_a_row: u32,
    closed: bool,
}

struct Side {
    lines: HashMap<Line, VecDeque<Job>>,
    /// Every line that is not empty, once.
    turns: VecDeque<Line>,
    waiting: usize,
    waiting_max: usize,
}

impl Room {
    /// A room before this many threads.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn new(threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let room = Self(Arc::new(Shared { queue: Mutex::new(Queue::new(threads * WAITING_PER_CORE)), arrived: Condvar::new() }));
        for _ in 0..threads {
            let shared = room.0.clone();
            std::thread::Builder::new().name("password".to_owned()).spawn(move || shared.work())?;
        }
        Ok(room)
    }

    /// Takes a job into the room, or says that there is no place for it.
    pub(super) fn enter(&self, asker: Asker, job: Job) -> bool {
        // Whoever gives way is told of it after the lock is gone.
        let entered = self.0.queue().enter(asker, job);
        if entered.is_ok() {
            self.0.arrived.notify_one();
        }
        entered.is_ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.0.queue();
            queue.closed = true;
            (std::mem::take(&mut queue.known.lines), std::mem::take(&mut queue.strangers.lines))
        };
        drop(left);
        self.0.arrived.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No job runs under the lock, and nothing else there panics.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        give_way();
        let mut memory = Memory::default();
        while let Some(job) = self.next() {
            job(&mut memory);
        }
    }

    /// The next job, or none after the room has closed.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        while !queue.closed {
            if let Some(job) = queue.next() {
                return Some(job);
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }
}

impl Queue {
    fn new(waiting_max: usize) -> Self {
        Self { known: Side::new(waiting_max), strangers: Side::new(waiting_max), known_in_a_row: 0, closed: false }
    }

    /// Takes a job in. `Ok` holds the one that gave way for it, `Err` the one that there is no place for.
    fn enter(&mut self, asker: Asker, job: Job) -> Result<Option<Job>, Job> {
        match asker {
            Asker::Known(line) => self.known.enter(line, job),
            Asker::Stranger(line) => self.strangers.enter(line, job),
        }
    }

    /// The next one: a known one, unless it is a stranger's turn.
    fn next(&mut self) -> Option<Job> {
        if self.known.waiting > 0 && (self.known_in_a_row < KNOWN_IN_A_ROW || self.strangers.waiting == 0) {
            self.known_in_a_row = self.known_in_a_row.saturating_add(1);
            return self.known.next();
        }
        self.known_in_a_row = 0;
        self.strangers.next()
    }
}

impl Side {
    fn new(waiting_max: usize) -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new(), waiting: 0, waiting_max }
    }

    /// Takes a job in. `Ok` holds the one that gave way for it, `Err` the one that there is no place for.
    fn enter(&mut self, line: Line, job: Job) -> Result<Option<Job>, Job> {
        let gave_way = if self.waiting < self.waiting_max {
            None
        } else {
            let own = self.lines.get(&line).map_or(0, VecDeque::len);
            match self.longest() {
                Some((longest, length)) if length > own + 1 => self.send_away_the_last(longest),
                _ => return Err(job),
            }
        };
        let waiting = self.lines.entry(line).or_default();
        if waiting.is_empty() {
            self.turns.push_back(line);
        }
        waiting.push_back(job);
        self.waiting += 1;
        Ok(gave_way)
    }

    fn longest(&self) -> Option<(Line, usize)> {
        self.lines.iter().map(|(line, waiting)| (*line, waiting.len())).max_by_key(|(_, length)| *length)
    }

    /// The line has at least two, so it keeps its turn.
    fn send_away_the_last(&mut self, line: Line) -> Option<Job> {
        let job = self.lines.get_mut(&line)?.pop_back()?;
        self.waiting -= 1;
        Some(job)
    }

    /// The first of the line whose turn it is; the line stands at the end again.
    fn next(&mut self) -> Option<Job> {
        let line = self.turns.pop_front()?;
        let waiting = self.lines.get_mut(&line)?;
        let job = waiting.pop_front()?;
        self.waiting -= 1;
        if waiting.is_empty() {
            self.lines.remove(&line);
        } else {
            self.turns.push_back(line);
        }
        Some(job)
    }
}

/// Makes the calling thread less urgent than those that serve, however urgent these are.
#[cfg(target_os = "linux")]
fn give_way() {
    // For Linux the calling process is the calling thread (setpriority(2), "C library/kernel differences"). What it forbids is to be more urgent, so this
    // does not fail; if it did, the thread would be as urgent as the others.
    let _ = rustix::process::getpriority_process(None).and_then(|own| rustix::process::setpriority_process(None, own + NICER_BY));
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn line(number: u8) -> Line {
        Some(ClientKey::from(IpAddr::from([203, 0, 113, number])))
    }

    fn stranger(number: u8) -> Asker {
        Asker::Stranger(line(number))
    }

    /// A job that leaves a mark when it is done.
    fn marking(done: &Arc<Mutex<Vec<u32>>>, mark: u32) -> Job {
        let done = done.clone();
        Box::new(move |_| done.lock().unwrap().push(mark))
    }

    fn finish(queue: &mut Queue) {
        while let Some(job) = queue.next() {
            job(&mut Memory::default());
        }
    }

    #[test]
    fn one_client_in_a_crowd_of_another_is_next_but_one() {
        let done = Arc::default();
        let mut queue = Queue::new(24);
        for mark in 0..24 {
            assert!(queue.enter(stranger(1), marking(&done, mark)).is_ok_and(|gave_way| gave_way.is_none()));
        }
        assert!(queue.enter(stranger(1), marking(&done, 24)).is_err(), "the crowd is full");
        assert!(queue.enter(stranger(2), marking(&done, 100)).is_ok_and(|gave_way| gave_way.is_some()), "and gives way");
        finish(&mut queue);
        let done = done.lock().unwrap();
        assert_eq!(done[..3], [0, 100, 1]);
        assert_eq!((done.len(), queue.strangers.waiting), (24, 0));
    }

    #[test]
    fn a_room_of_many_clients_with_one_job_each_refuses_the_next_one() {
        let done = Arc::default();
        let mut queue = Queue::new(8);
        for number in 0..8 {
            assert!(queue.enter(stranger(number), marking(&done, number.into())).is_ok());
        }
        assert!(queue.enter(stranger(9), marking(&done, 9)).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn its_threads_are_less_urgent_and_the_others_stay_as_they_are() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let (told, hears) = std::sync::mpsc::channel();
        let room = Room::new(1).unwrap();
        assert!(room.enter(Asker::Known(None), Box::new(move |_| told.send(niceness()).unwrap())));
        // 19 is as far as it goes.
        assert_eq!(hears.recv().unwrap(), (before + NICER_BY).min(19));
        assert_eq!(niceness(), before);
    }

    #[test]
    fn a_room_that_is_gone_leaves_no_thread_and_no_job() {
        let (told, hears) = std::sync::mpsc::channel::<()>();
        let (begins, begun) = std::sync::mpsc::channel::<()>();
        let (open, opened) = std::sync::mpsc::channel::<()>();
        let room = Room::new(1).unwrap();
        let first = move |_: &mut Memory| {
            begins.send(()).unwrap();
            opened.recv().unwrap();
        };
        assert!(room.enter(Asker::Known(None), Box::new(first)));
        assert!(room.enter(Asker::Known(None), Box::new(move |_| told.send(()).unwrap())));
        begun.recv().unwrap();
        drop(room);
        open.send(()).unwrap();
        assert!(hears.recv().is_err(), "the one that waited was dropped");
    }

    /// What happens in a room: somebody comes, or a core is free.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Comes(Asker),
        IsServed,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0u8..4).prop_map(|number| Step::Comes(Asker::Known(line(number)))),
            // A flood from everywhere, and one from somewhere.
            3 => any::<u8>().prop_map(|number| Step::Comes(stranger(number))),
            1 => Just(Step::Comes(stranger(0))),
            3 => Just(Step::IsServed),
        ];
        prop::collection::vec(step, 0..300)
    }

    fn is_known(steps: &[Step], mark: u32) -> bool {
        matches!(steps[mark as usize], Step::Comes(Asker::Known(_)))
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nobody_overtakes_in_a_line(steps in steps(), waiting_max in 1usize..20) {
            let done: Arc<Mutex<Vec<u32>>> = Arc::default();
            let mut queue = Queue::new(waiting_max);
            let (mut entered, mut gave_way) = (0, 0);
            for (mark, step) in (0..).zip(&steps) {
                match step {
                    Step::Comes(asker) => {
                        if let Ok(other) = queue.enter(*asker, marking(&done, mark)) {
                            entered += 1;
                            gave_way += usize::from(other.is_some());
                        }
                    }
                    Step::IsServed => {
                        if let Some(job) = queue.next() {
                            job(&mut Memory::default());
                        }
                    }
                }
                for side in [&queue.known, &queue.strangers] {
                    prop_assert!(side.waiting <= waiting_max);
                    prop_assert_eq!(side.waiting, side.lines.values().map(VecDeque::len).sum::<usize>());
                    prop_assert_eq!(side.turns.len(), side.lines.len());
                }
            }
            finish(&mut queue);
            let done = done.lock().unwrap();
            prop_assert_eq!(done.len(), entered - gave_way);
            for first in &steps {
                let Step::Comes(asker) = first else { continue };
                let of_line = |mark: &&u32| matches!(steps[**mark as usize], Step::Comes(other) if other == *asker);
                prop_assert!(done.iter().filter(of_line).is_sorted());
            }
        }

        #[test]
        fn strangers_take_no_place_of_who_is_known_and_no_more_than_every_fourth_turn(steps in steps(), waiting_max in 1usize..20) {
            let done: Arc<Mutex<Vec<u32>>> = Arc::default();
            let mut queue = Queue::new(waiting_max);
            let (mut known_waits_since, mut strangers_wait_since) = (None, None);
            for (mark, step) in (0..).zip(&steps) {
                match step {
                    Step::Comes(asker) => {
                        let known_before = queue.known.waiting;
                        let entered = queue.enter(*asker, marking(&done, mark)).is_ok();
                        if matches!(asker, Asker::Known(_)) {
                            prop_assert!(entered || known_before == waiting_max, "only known ones are in each other's way");
                        } else {
                            prop_assert_eq!(queue.known.waiting, known_before);
                        }
                    }
                    Step::IsServed => {
                        if let Some(job) = queue.next() {
                            job(&mut Memory::default());
                        }
                    }
                }
                let served = done.lock().unwrap().len();
                known_waits_since = (queue.known.waiting > 0).then(|| known_waits_since.unwrap_or(served));
                strangers_wait_since = (queue.strangers.waiting > 0).then(|| strangers_wait_since.unwrap_or(served));
                let done = done.lock().unwrap();
                if let Some(since) = known_waits_since {
                    let strangers = done[since..].iter().filter(|mark| !is_known(&steps, **mark)).count();
                    prop_assert!(strangers <= (served - since).div_ceil(KNOWN_IN_A_ROW as usize + 1), "{strangers} of {}", served - since);
                }
                if let (Some(_), Some(since)) = (known_waits_since, strangers_wait_since) {
                    let strangers = done[since..].iter().filter(|mark| !is_known(&steps, **mark)).count();
                    prop_assert!(strangers >= (served - since) / (KNOWN_IN_A_ROW as usize + 1), "{strangers} of {}", served - since);
                }
            }
        }
    }
}
