//! Load: clients that ask as fast as they are answered, or at a pace of their own whatever the answers do.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::chance::Chance;
use crate::client::{Answer, Connection};
use crate::record::{End, Record};

/// Nobody waits longer for the end of a load that is stopped.
const ENDLESS: Duration = Duration::from_secs(3_600);

/// Who asks what, how often.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Where.
    pub(crate) address: SocketAddr,
    /// From which local address, if not the usual one.
    pub(crate) from: Option<IpAddr>,
    /// What, in turn, whoever of them asks.
    pub(crate) requests: Arc<[Vec<u8>]>,
    /// The status of an answer that is as it should be.
    pub(crate) served: u16,
    /// Connections.
    pub(crate) clients: usize,
    /// Requests a second of all of them together; without one, each asks again as soon as it is answered.
    pub(crate) rate: Option<f64>,
    /// They come as independent people do (a Poisson stream), and not evenly.
    by_chance: bool,
    /// It ends when this is set, if not before.
    stop: Arc<AtomicBool>,
}

/// A load that goes on until it is stopped, or dropped.
#[derive(Debug)]
pub(crate) struct Going {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Record>,
}

impl Going {
    /// What `task` does until `stop` is set.
    pub(crate) fn new(stop: Arc<AtomicBool>, task: JoinHandle<Record>) -> Self {
        Self { stop, task }
    }

    /// Ends it; what was measured.
    ///
    /// # Errors
    /// When it could not be measured.
    pub(crate) async fn stop(mut self) -> Result<Record, String> {
        self.stop.store(true, Ordering::Release);
        (&mut self.task).await.map_err(|error| error.to_string())
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Load {
    /// Asks for one thing, by so many clients.
    pub(crate) fn of(address: SocketAddr, request: Vec<u8>, clients: usize) -> Self {
        Self { address, from: None, requests: [request].into(), served: 200, clients, rate: None, by_chance: false, stop: Arc::default() }
    }

    /// Asks at this pace. A request is due at its own moment: one that waits for the answer before it is late, and that is measured (no coordinated omission).
    #[must_use]
    pub(crate) fn at_rate(mut self, rate: f64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Asks at this pace in the mean, with the gaps that chance makes.
    #[must_use]
    pub(crate) fn by_chance_at(self, rate: f64) -> Self {
        Self { by_chance: true, ..self.at_rate(rate) }
    }

    /// Asks for these in turn.
    #[must_use]
    pub(crate) fn asking(mut self, requests: Vec<Vec<u8>>) -> Self {
        self.requests = requests.into();
        self
    }

    /// Asks from now on until it is stopped.
    pub(crate) fn go(self, begun: Instant) -> Going {
        let stop = self.stop.clone();
        Going { stop, task: tokio::spawn(async move { self.run(begun, begun + ENDLESS).await }) }
    }

    /// Asks from now on until `until`. What was measured, in slots from `begun` on.
    pub(crate) async fn run(&self, begun: Instant, until: Instant) -> Record {
        let clients = (0..self.clients).map(|number| tokio::spawn(one(self.clone(), number, begun, until)));
        let mut record = Record::new(begun);
        for client in join_all(clients.collect::<Vec<_>>()).await {
            match client {
                Ok(seen) => record.merge(seen),
                Err(panic) => record.failure = Some(panic.to_string()),
            }
        }
        record
    }
}

async fn one(load: Load, number: usize, begun: Instant, until: Instant) -> Record {
    let mut record = Record::new(begun);
    let mut connection: Option<Connection> = None;
    #[allow(clippy::cast_precision_loss)] // Some thousand clients.
    let pace = load.rate.map(|rate| Duration::from_secs_f64(load.clients as f64 / rate));
    let start = Instant::now();
    let mut chance = Chance(number as u64);
    let mut gap = |pace: Duration| if load.by_chance { pace.mul_f64(chance.exponential()) } else { pace };
    // Not all at once.
    let mut next = pace.map_or(start, |pace| start + if load.by_chance { gap(pace) } else { pace.mul_f64(number as f64 / load.clients as f64) });
    for turn in 0_usize.. {
        let due = match pace {
            Some(pace) => {
                let due = next;
                next += gap(pace);
                tokio::time::sleep_until(due.min(until).into()).await;
                due
            }
            None => Instant::now(),
        };
        // One that cannot keep its pace ends in time as well.
        if due >= until || Instant::now() >= until || load.stop.load(Ordering::Acquire) {
            break;
        }
        let request = &load.requests[(number + turn * load.clients) % load.requests.len()];
        let answer = match &mut connection {
            Some(connection) => connection.ask(request).await,
            none => match Connection::open(load.address, load.from).await {
                Ok(opened) => none.insert(opened).ask(request).await,
                Err(error) => Err(error),
            },
        };
        let now = Instant::now();
        let end = match &answer {
            Ok(answer) => end_of(&load, answer),
            Err(_) => End::Failed,
        };
        if end == End::Failed && record.failure.is_none() {
            record.failure = Some(match &answer {
                Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body).chars().take(200).collect::<String>()),
                Err(error) => error.to_string(),
            });
        }
        record.note(due, now, end);
        if answer.is_err() && pace.is_none() {
            // Nobody is there: a client without a pause would only heat the room.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if !answer.is_ok_and(|answer| !answer.closes()) {
            connection = None;
        }
    }
    record
}

fn end_of(load: &Load, answer: &Answer) -> End {
    if answer.status == load.served {
        End::Served
    } else if answer.refuses() {
        End::Refused
    } else {
        End::Failed
    }
}
