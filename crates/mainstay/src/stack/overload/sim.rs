//! A service in simulated time behind the real gate: a resource with so many servers and a line before it, and requests that come as a Poisson stream.
//!
//! Nothing here waits or measures; with the same seed everything comes out the same.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use super::Micros;
use super::gate::{Arrival, Gate, Held, Look, Ticket, WAIT_BURST_US};
use super::pace::Refusal;
use super::rank::Rank;
use crate::testing::Chance;

pub(super) const SECOND: Micros = 1_000_000;

/// A kind of request: its part of the stream, whose it is, and the time that it needs a server for.
pub(super) struct Kind {
    pub(super) part: f64,
    pub(super) rank: Rank,
    pub(super) needs: fn(&mut Chance) -> f64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    Done { id: u64 },
    Expires { id: u64 },
    Told { id: u64 },
    Cores(usize),
}

struct Job {
    kind: usize,
    came: Micros,
    needs: Micros,
    waits: Option<Ticket>,
    held: Option<Held>,
    /// It is a refusal, which is kept back.
    refused: Option<Refusal>,
}

/// What became of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) kind: usize,
    pub(super) came: Micros,
    pub(super) ended: Micros,
    pub(super) served: bool,
}

struct Woken(u64, Arc<Mutex<Vec<u64>>>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

pub(super) struct Sim {
    pub(super) gate: Gate,
    pub(super) now: Micros,
    pub(super) outcomes: Vec<Outcome>,
    /// How long a request takes beside what it needs a server for, as for a database that became slower but takes as many.
    pub(super) slower: f64,
    /// How long a server is busy with a refusal.
    pub(super) refusal_needs: Micros,
    /// Whoever was answered asks again at once, whatever the answer.
    pub(super) hammering: bool,
    /// Nothing is done in these spans.
    pub(super) stalls: Vec<(Micros, Micros)>,
    /// The limit over time.
    pub(super) places: Vec<(Micros, usize)>,
    kinds: Vec<Kind>,
    cores: usize,
    rate: f64,
    chance: Chance,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    jobs: HashMap<u64, Job>,
    line: VecDeque<u64>,
    busy: usize,
    next: u64,
    woken: Arc<Mutex<Vec<u64>>>,
    arriving: bool,
}

impl Sim {
    pub(super) fn new(gate: Gate, cores: usize, kinds: Vec<Kind>, seed: u64) -> Self {
        Self {
            gate,
            now: 0,
            outcomes: Vec::new(),
            slower: 1.0,
            refusal_needs: 0,
            hammering: false,
            stalls: Vec::new(),
            places: Vec::new(),
            kinds,
            cores,
            rate: 0.0,
            chance: Chance::new(seed),
            events: BinaryHeap::new(),
            jobs: HashMap::new(),
            line: VecDeque::new(),
            busy: 0,
            next: 0,
            woken: Arc::default(),
            arriving: false,
        }
    }

    /// Requests a second that the servers do when they never rest.
    pub(super) fn capacity(&self) -> f64 {
        let mut chance = Chance::new(1);
        let mean: f64 = self.kinds.iter().map(|kind| kind.part * (0..20_000).map(|_| (kind.needs)(&mut chance)).sum::<f64>() / 20_000.0).sum();
        self.cores as f64 * 1e6 / (mean * self.slower)
    }

    fn at(&mut self, time: Micros, event: Event) {
        self.next += 1;
        self.events.push(Reverse((time, self.next, event)));
    }

    pub(super) fn cores_from(&mut self, time: Micros, cores: usize) {
        self.at(time, Event::Cores(cores));
    }

    /// Lets requests come at this rate a second for so long.
    pub(super) fn run(&mut self, rate: f64, seconds: f64) {
        self.rate = rate;
        if !self.arriving && rate > 0.0 {
            self.arriving = true;
            self.at(self.now + 1, Event::Arrives);
        }
        let until = self.now + (seconds * 1e6) as Micros;
        while let Some(Reverse((time, _, _))) = self.events.peek() {
            if *time > until {
                break;
            }
            let Some(Reverse((time, _, event))) = self.events.pop() else { break };
            self.now = time;
            self.handle(event);
            self.places.push((self.now, self.gate.figures().places));
        }
        self.now = until;
    }

    fn handle(&mut self, event: Event) {
        let mut wakers = Vec::new();
        match event {
            Event::Arrives if self.rate == 0.0 => self.arriving = false,
            Event::Arrives => {
                let gap = self.chance.exponential(1e6 / self.rate);
                self.at(self.now + 1 + gap as Micros, Event::Arrives);
                self.arrive(&mut wakers);
            }
            Event::Done { id } => {
                let job = self.jobs.remove(&id).unwrap();
                if let Some(held) = &job.held {
                    self.gate.leave(held, true, self.now, &mut wakers);
                }
                self.busy -= 1;
                self.answered(&job, &mut wakers);
            }
            Event::Told { id } => {
                let job = self.jobs.get_mut(&id).unwrap();
                if job.refused.take().is_some_and(|refusal| refusal.hold > 0) {
                    self.gate.told();
                }
                job.needs = self.refusal_needs;
                if job.needs > 0 {
                    self.line.push_back(id);
                } else if let Some(job) = self.jobs.remove(&id) {
                    self.answered(&job, &mut wakers);
                }
            }
            Event::Expires { id } => {
                if self.jobs.get(&id).is_some_and(|job| job.waits.is_some()) {
                    self.ask(id, &mut wakers);
                }
            }
            Event::Cores(cores) => self.cores = cores,
        }
        loop {
            wakers.drain(..).for_each(Waker::wake);
            let woken = std::mem::take(&mut *self.woken.lock().unwrap());
            if woken.is_empty() {
                break;
            }
            for id in woken {
                if self.jobs.get(&id).is_some_and(|job| job.waits.is_some()) {
                    self.ask(id, &mut wakers);
                }
            }
        }
        self.work();
    }

    /// So many come at once, and go on asking for so long.
    pub(super) fn hammer(&mut self, clients: usize, seconds: f64) {
        self.hammering = true;
        let mut wakers = Vec::new();
        (0..clients).for_each(|_| self.arrive(&mut wakers));
        self.work();
        self.run(0.0, seconds);
        self.hammering = false;
    }

    fn answered(&mut self, job: &Job, wakers: &mut Vec<Waker>) {
        self.outcomes.push(Outcome { kind: job.kind, came: job.came, ended: self.now, served: job.held.is_some() });
        if self.hammering {
            self.arrive(wakers);
        }
    }

    /// One is refused, and told so in its turn.
    fn refuse(&mut self, id: u64, refusal: Refusal) {
        if let Some(job) = self.jobs.get_mut(&id) {
            (job.waits, job.refused) = (None, Some(refusal));
        }
        self.at(self.now + refusal.hold, Event::Told { id });
    }

    fn arrive(&mut self, wakers: &mut Vec<Waker>) {
        let (mut dart, mut kind) = (self.chance.fraction(), 0);
        while kind + 1 < self.kinds.len() && dart >= self.kinds[kind].part {
            dart -= self.kinds[kind].part;
            kind += 1;
        }
        let needs = ((self.kinds[kind].needs)(&mut self.chance) * self.slower) as Micros;
        self.next += 1;
        let (id, rank) = (self.next, self.kinds[kind].rank);
        let mut job = Job { kind, came: self.now, needs, waits: None, held: None, refused: None };
        let arrival = match self.gate.enter_freely(kind, self.now) {
            Some(held) => Arrival::In(held),
            None => self.gate.arrive(kind, rank, &Waker::from(Arc::new(Woken(id, self.woken.clone()))), self.now, wakers),
        };
        match arrival {
            Arrival::In(held) => {
                job.held = Some(held);
                self.line.push_back(id);
            }
            Arrival::Waits(ticket) => {
                job.waits = Some(ticket);
                self.at(self.now + WAIT_BURST_US, Event::Expires { id });
            }
            Arrival::Refused(refusal) => {
                self.jobs.insert(id, job);
                return self.refuse(id, refusal);
            }
        }
        self.jobs.insert(id, job);
    }

    fn ask(&mut self, id: u64, wakers: &mut Vec<Waker>) {
        let job = self.jobs.get_mut(&id).unwrap();
        let waker = Waker::from(Arc::new(Woken(id, self.woken.clone())));
        match self.gate.ask(job.waits.unwrap(), &waker, self.now, wakers) {
            Look::In(held) => {
                (job.waits, job.held) = (None, Some(held));
                self.line.push_back(id);
            }
            Look::Waits => {
                if self.now >= job.came + WAIT_BURST_US {
                    self.at(self.now + 20_000, Event::Expires { id });
                }
            }
            Look::Refused(refusal) => self.refuse(id, refusal),
        }
    }

    fn work(&mut self) {
        while self.busy < self.cores {
            let Some(id) = self.line.pop_front() else { return };
            self.busy += 1;
            let mut end = self.now + self.jobs[&id].needs.max(1);
            for (from, to) in &self.stalls {
                if self.now < *to && end > *from {
                    end += to - self.now.max(*from);
                }
            }
            self.at(end, Event::Done { id });
        }
    }

    /// Served requests a second that ended in this span.
    pub(super) fn goodput(&self, from: f64, to: f64) -> f64 {
        self.of(from, to).filter(|outcome| outcome.served).count() as f64 / (to - from)
    }

    /// The 99th percentile of the time of those served in this span, in ms.
    pub(super) fn p99_ms(&self, from: f64, to: f64) -> f64 {
        let mut times: Vec<_> = self.of(from, to).filter(|outcome| outcome.served).map(|outcome| outcome.ended - outcome.came).collect();
        times.sort_unstable();
        times.get(times.len() * 99 / 100).map_or(0.0, |time| *time as f64 / 1e3)
    }

    /// The part of those who came in this span that was refused.
    pub(super) fn refused_part(&self, from: f64, to: f64) -> f64 {
        let (from, to) = ((from * 1e6) as Micros, (to * 1e6) as Micros);
        let came = || self.outcomes.iter().filter(|outcome| (from..to).contains(&outcome.came));
        came().filter(|outcome| !outcome.served).count() as f64 / (came().count() as f64).max(1.0)
    }

    pub(super) fn of(&self, from: f64, to: f64) -> impl Iterator<Item = &Outcome> {
        let (from, to) = ((from * 1e6) as Micros, (to * 1e6) as Micros);
        self.outcomes.iter().filter(move |outcome| (from..to).contains(&outcome.ended))
    }

    /// The smallest and the largest limit in this span.
    pub(super) fn limits(&self, from: f64, to: f64) -> (usize, usize) {
        let (from, to) = ((from * 1e6) as Micros, (to * 1e6) as Micros);
        let within = || self.places.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, places)| *places);
        (within().min().unwrap_or(0), within().max().unwrap_or(0))
    }
}
