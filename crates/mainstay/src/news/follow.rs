//! The connection of the news: opened, proven, heard and read until it is lost, and then again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use tokio::time::timeout_at;
use uuid::Uuid;

use super::{Follower, LEASE, Memory, PROOF, Reading, Shared, Source};
use crate::store::{Database, Error, Listener, query};

/// Between two proofs of life, and two looks at which server this is.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Between two readings of the logs: two may be late, or one by 60 ms, before a memory notices.
const READING: Duration = Duration::from_millis(40);
/// A log that takes long to read is read less often, so that reading it is about a fifth of one backend's work. A transaction that stays open makes it
/// long: 8 ms when 20,000 things changed meanwhile, against 0.03.
const REST: u32 = 5;
/// Where the piece of news goes around that proves the way.
const PROOF_CHANNEL: &str = "mainstay_proof";
/// Before the first attempt to connect again, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A log that is being read.
struct Log<'a> {
    text: &'static str,
    memory: &'a dyn Memory,
    server: u64,
    snapshot: Option<String>,
}

impl<'a> Log<'a> {
    fn of(follower: &'a Follower, server: u64) -> Option<Self> {
        match follower.source {
            Source::Log(text) => Some(Self { text, memory: &*follower.memory, server, snapshot: None }),
            Source::Channel(_) => None,
        }
    }

    async fn read(&mut self, listener: &mut Listener, asked: Instant) -> Result<(), Error> {
        self.memory.asking();
        let (snapshot, changed, newest) = listener.read(self.text, self.snapshot.as_deref(), asked + PROOF).await?;
        // Of a snapshot that cannot be read nothing is known but that it saw what it says.
        let (server, (ended, begun)) = bounds(&snapshot).map_or((0, (0, 0)), |bounds| (self.server, bounds));
        let first = self.snapshot.replace(snapshot).is_none();
        let newest = newest.and_then(|newest| u64::try_from(newest).ok());
        self.memory.read(&Reading { server, ended, begun, first, changed: changed.as_deref(), newest });
        self.memory.told_until(asked + LEASE);
        Ok(())
    }
}

/// A number for the server that is called so, never 0: 64 bits of a hash tell the servers of one operator apart.
fn number(server: &str) -> u64 {
    let hash = digest(&SHA256, server.as_bytes());
    hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)).max(1)
}

/// The transactions before the first of these had ended in a snapshot, those from the second on had not: `xmin:xmax:xip,xip` (PostgreSQL, 9.26.8).
fn bounds(snapshot: &str) -> Option<(u64, u64)> {
    let mut parts = snapshot.splitn(3, ':').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// Follows as long as the process lives.
pub(super) async fn run(shared: Arc<Shared>, database: Database) {
    let (first, most) = PAUSE;
    let mut pause = first;
    loop {
        let begun = Instant::now();
        let Err(error) = follow(&shared, &database).await;
        shared.lose();
        shared.interruptions.fetch_add(1, Ordering::Relaxed);
        // One line for an outage, however long.
        if !shared.lost.swap(true, Ordering::Relaxed) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(error = %error, cause, "changes are not heard; what is remembered is soon asked for again, until they are");
        }
        pause = if begun.elapsed() > most { first } else { (pause * 2).min(most) };
        // Instances that lost the same server do not come back in step.
        let jitter_us = Uuid::new_v4().as_u128() % (pause.as_micros() / 2).max(1);
        tokio::time::sleep(pause - Duration::from_micros(u64::try_from(jitter_us).unwrap_or(0))).await;
    }
}

async fn follow(shared: &Shared, database: &Database) -> Result<std::convert::Infallible, Error> {
    let channels: Vec<&str> = shared.channels().map(|(channel, _)| channel).chain([PROOF_CHANNEL]).collect();
    let mut listener = database.listen(&channels).await?;
    let turns = database.turns();
    let mut seen = Instant::now();
    let (server, _) = listener.server(seen + PROOF).await?;
    let numbers = server.as_deref().map_or(0, number);
    let mut logs: Vec<Log<'_>> = shared.followers.iter().filter_map(|follower| Log::of(follower, numbers)).collect();
    prove(shared, database, &mut listener).await?;
    // News went by before the connection stood; answers to readers that began before that are not kept either.
    shared.forget_all();
    loop {
        let asked = Instant::now();
        // An answer to any question is a sign of life as well.
        if logs.is_empty() || seen + HEARTBEAT <= asked {
            seen = asked;
            let (found, writable) = listener.server(asked + PROOF).await?;
            // The connection lives, but where it leads the news are made no more: another server took over, or this standby did.
            if found != server || database.turns() != turns {
                return Err(Error::unavailable("the database is another server now"));
            }
            if !writable {
                database.refuse_writes();
            }
        }
        for log in &mut logs {
            log.read(&mut listener, asked).await?;
        }
        let took = asked.elapsed();
        while let Some((channel, text)) = listener.waiting() {
            shared.hear(&channel, &text);
        }
        shared.proven(asked);
        if shared.lost.swap(false, Ordering::Relaxed) {
            tracing::info!("changes are heard again");
        }
        let pause = if logs.is_empty() { HEARTBEAT } else { (took * REST).clamp(READING, PROOF / 2) };
        while let Some((channel, text)) = listener.next(asked + pause).await? {
            shared.hear(&channel, &text);
        }
    }
}

/// Sends a piece of news through the pool and waits for it here.
async fn prove(shared: &Shared, database: &Database, listener: &mut Listener) -> Result<(), Error> {
    let until = Instant::now() + PROOF;
    let sent = Uuid::new_v4().to_string();
    let tell = async {
        let mut connection = database.writer(Some(until)).await?;
        query("SELECT pg_notify($1, $2)::text AS told").bind(PROOF_CHANNEL).bind(sent.as_str()).fetch_one(&mut connection).await
    };
    timeout_at(until.into(), tell).await.map_err(|_| Error::DeadlinePassed)??;
    while let Some((channel, text)) = listener.next(until).await? {
        shared.hear(&channel, &text);
        if channel == PROOF_CHANNEL && text == sent {
            return Ok(());
        }
    }
    Err(Error::Misuse("notifications of PostgreSQL do not arrive; is a pooler in between that shares connections between transactions?"))
}
