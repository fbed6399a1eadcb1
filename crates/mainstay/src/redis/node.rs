//! One server: whether it is asked, and the way back to it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, ToRedisArgs, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::address::{Address, Place};
use super::line::{Line, words};
use super::script::Script;

/// Late answers in a row before nobody asks anymore: one may be chance, and each costs somebody the whole wait.
const LATE_MAX: u32 = 3;
/// Answers in time before a server is believed.
const PROOFS: usize = 3;
/// Between them.
const PROOF_PAUSE: Duration = Duration::from_millis(20);
/// Connecting takes a handshake or two, and one of TLS.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Before the next attempt to connect, at first and at most: a server that is back is found within a second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// A connection that lasted this long was a good one.
const STEADY: Duration = Duration::from_secs(5);

/// What all nodes of a Redis have in common.
pub(super) struct Shared {
    pub(super) address: Address,
    pub(super) prefix: String,
    pub(super) wait: Duration,
    pub(super) asked: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) spared: AtomicU64,
    pub(super) outages: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    /// Something says that the map of the cluster is old.
    pub(super) stale: Notify,
}

impl Shared {
    pub(super) fn new(address: Address, prefix: &str, wait: Duration) -> Self {
        Self {
            address,
            prefix: prefix.to_owned(),
            wait,
            asked: AtomicU64::new(0),
            late: AtomicU64::new(0),
            spared: AtomicU64::new(0),
            outages: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            stale: Notify::new(),
        }
    }
}

/// What is asked: a script, of whom, and how.
pub(super) struct Question<'a, A> {
    pub(super) script: &'a Script,
    pub(super) keys: &'a [&'a str],
    pub(super) arguments: &'a [A],
}

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) until: Instant,
    /// Less than a server is given: the request has no more time. That it does not answer by then says nothing about it.
    pub(super) cut: bool,
}

impl Patience {
    /// What a server is given from now on, and no more than is left until the deadline of the request; nothing if that has passed.
    pub(super) fn new(now: Instant, wait: Duration, deadline: Option<Instant>) -> Option<Self> {
        let until = now + wait;
        match deadline {
            Some(deadline) if deadline <= now => None,
            Some(deadline) if deadline < until => Some(Self { until: deadline, cut: true }),
            _ => Some(Self { until, cut: false }),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nobody asks at the moment.
    Spared,
    Late,
    /// The server has refused, or the connection broke.
    Failed,
    /// Another node of the cluster counts this key.
    Moved(Place),
    /// Another node counts it already, while the slot is on its way there.
    Ask(Place),
}

/// A server.
pub(super) struct Node {
    pub(super) place: Place,
    shared: Arc<Shared>,
    link: RwLock<Option<Link>>,
    /// Why nobody asks.
    out: RwLock<Option<String>>,
    /// What it is asked to write before it is believed: in a cluster, a name of which it counts.
    proof: RwLock<String>,
    late_in_a_row: AtomicU32,
    left: Notify,
}

/// A connection; the number tells it from the one before.
#[derive(Clone)]
struct Link {
    number: u64,
    line: Line,
}

impl Node {
    pub(super) fn new(place: Place, shared: Arc<Shared>, proof: String) -> Arc<Self> {
        Arc::new(Self {
            place,
            shared,
            link: RwLock::default(),
            out: RwLock::default(),
            proof: RwLock::new(proof),
            late_in_a_row: AtomicU32::new(0),
            left: Notify::new(),
        })
    }

    /// Is it asked?
    pub(super) fn answers(&self) -> bool {
        self.link.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Why it is not asked.
    pub(super) fn cause(&self) -> Option<String> {
        self.out.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn prove_with(&self, name: String) {
        *self.proof.write().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// The connection, for whoever asks something else than a script.
    pub(super) fn line(&self) -> Option<Line> {
        self.link().map(|link| link.line)
    }

    fn link(&self) -> Option<Link> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks, for as long. `sent_here` by another node that says that this one counts the key before the whole cluster knows.
    pub(super) async fn ask<T: FromRedisValue, A: ToRedisArgs>(
        &self,
        question: &Question<'_, A>,
        patience: Patience,
        sent_here: bool,
    ) -> Result<T, Unanswered> {
        let mut link = self.link().ok_or(Unanswered::Spared)?;
        let begun = Instant::now();
        let Question { script, keys, arguments } = question;
        let asking = async {
            match self.send(&mut link.line, script.by_hash(keys, arguments), sent_here).await {
                // A server that was started anew knows no script yet.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.send(&mut link.line, script.by_text(keys, arguments), sent_here).await
                }
                answer => answer,
            }
        };
        let answer = timeout_at(patience.until, asking).await;
        metrics::histogram!("mainstay_redis_question_seconds").record(begun.elapsed().as_secs_f64());
        let Ok(answer) = answer else {
            if !patience.cut {
                self.note_late(link.number);
            }
            return Err(Unanswered::Late);
        };
        // An answer of another form is one to another question, or was changed on its way.
        let error = match answer.and_then(|value| T::from_redis_value(value).map_err(RedisError::from)) {
            Ok(value) => {
                // Read first: a counter that nobody writes to stays in every core's cache.
                if self.late_in_a_row.load(Ordering::Relaxed) != 0 {
                    self.late_in_a_row.store(0, Ordering::Relaxed);
                }
                return Ok(value);
            }
            Err(error) => error,
        };
        if self.shared.address.is_cluster()
            && let Some(elsewhere) = self.elsewhere(&error)
        {
            return Err(elsewhere);
        }
        self.leave(link.number, &words(&error, &self.place.host));
        Err(Unanswered::Failed)
    }

    /// One question.
    async fn send(&self, line: &mut Line, command: Cmd, sent_here: bool) -> Result<Value, RedisError> {
        self.shared.asked.fetch_add(1, Ordering::Relaxed);
        // The library gives a refusal of the server as a value.
        if sent_here {
            let both = redis::pipe().cmd("ASKING").add_command(command).clone();
            let answers = line.connection.req_packed_commands(&both, 1, 1).await?;
            return answers.into_iter().next().unwrap_or(Value::Nil).extract_error();
        }
        line.connection.req_packed_command(&command).await?.extract_error()
    }

    /// What a node of a cluster says about a key that is not, or not wholly, here.
    fn elsewhere(&self, error: &RedisError) -> Option<Unanswered> {
        let place = || {
            let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
            // Without a host it is the one that was asked.
            let host = if host.is_empty() { self.place.host.clone() } else { host.trim_matches(['[', ']']).to_owned() };
            Some(Place { host, port: port.parse().ok()? })
        };
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => place().map(Unanswered::Moved),
            ErrorKind::Server(ServerErrorKind::Ask) => place().map(Unanswered::Ask),
            // Some keys of a question are here and some are there already.
            ErrorKind::Server(ServerErrorKind::TryAgain) => Some(Unanswered::Failed),
            _ => None,
        }
    }

    fn note_late(&self, number: u64) {
        self.shared.late.fetch_add(1, Ordering::Relaxed);
        // What was asked over a connection before says nothing of this one.
        let current = self.link().is_some_and(|link| link.number == number);
        if current && self.late_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= LATE_MAX {
            self.leave(number, "answers come late");
        }
    }

    /// Nobody asks over this connection anymore.
    fn leave(&self, number: u64, cause: &str) {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if link.as_ref().is_some_and(|link| link.number == number) {
            *self.out.write().unwrap_or_else(PoisonError::into_inner) = Some(cause.to_owned());
            *link = None;
            self.shared.outages.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(cause, server = %self.place, "Redis is left alone; every instance counts by itself until it answers again");
            self.left.notify_one();
            self.shared.stale.notify_one();
        }
    }

    /// Connects, and begins to ask if three answers come in time. Says so if what it finds is new.
    pub(super) async fn come(&self, number: u64) {
        let cause = match self.try_to_come().await {
            Ok(line) => {
                self.late_in_a_row.store(0, Ordering::Relaxed);
                *self.link.write().unwrap_or_else(PoisonError::into_inner) = Some(Link { number, line });
                if self.out.write().unwrap_or_else(PoisonError::into_inner).take().is_some() {
                    tracing::info!(server = %self.place, "Redis answers again: all instances count together");
                }
                return;
            }
            Err(cause) => cause,
        };
        let before = self.out.write().unwrap_or_else(PoisonError::into_inner).replace(cause.clone());
        if before.as_ref() != Some(&cause) {
            tracing::warn!(cause, server = %self.place, "Redis does not answer; every instance counts by itself until it does");
        }
    }

    async fn try_to_come(&self) -> Result<Line, String> {
        let connecting = Line::connect(&self.place, &self.shared.address);
        let mut line = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| "no connection in a second")??;
        // What is asked for later, a script that writes: a server that is full, or a replica, answers a PING as well as any.
        let mut proof = redis::cmd("EVAL");
        let name = self.proof.read().unwrap_or_else(PoisonError::into_inner).clone();
        proof.arg("return redis.call('SET', KEYS[1], '1', 'PX', 1000)").arg(1).arg(name);
        for _ in 0..PROOFS {
            let answer = timeout(self.shared.wait, line.connection.req_packed_command(&proof)).await.map_err(|_| "answers come late")?;
            match answer.and_then(Value::extract_error) {
                Ok(_) => {}
                // The slot of this name is on its way to another node, and this one counts others.
                Err(error) if self.shared.address.is_cluster() && error.kind() == ErrorKind::Server(ServerErrorKind::Ask) => {}
                Err(error) if self.shared.address.is_cluster() && error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => {
                    return Err("another node counts its keys now".to_owned());
                }
                Err(error) => return Err(words(&error, &self.place.host)),
            }
            tokio::time::sleep(PROOF_PAUSE).await;
        }
        Ok(line)
    }
}

/// The pauses before attempts to connect: each is twice the one before, until a connection lasted. One that comes and goes is not asked for more often
/// than one that stays away.
struct Pauses {
    next: Duration,
}

impl Pauses {
    /// The pause before the next attempt, after a connection that lasted so long, or none.
    fn after(&mut self, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted > STEADY) {
            self.next = PAUSE.0;
        }
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE.1);
        pause
    }
}

/// Connects anew whenever nobody asks, as long as somebody might. The first attempt has been made.
pub(super) async fn keep(node: Weak<Node>) {
    let (mut number, mut pauses, mut came) = (1, Pauses { next: PAUSE.0 }, Some(Instant::now()));
    loop {
        let Some(this) = node.upgrade() else { return };
        if this.answers() {
            // Wakes now and then, to end with the service.
            let _ = timeout(Duration::from_secs(10), this.left.notified()).await;
            continue;
        }
        drop(this);
        let pause = pauses.after(came.take().map(|came| came.elapsed()));
        // Instances that lost the same server do not come back in step.
        let jitter = Uuid::new_v4().as_u128() % (pause.as_micros() / 2).max(1);
        tokio::time::sleep(pause - Duration::from_micros(u64::try_from(jitter).unwrap_or(0))).await;
        let Some(this) = node.upgrade() else { return };
        number += 1;
        this.come(number).await;
        came = this.answers().then(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_no_longer_than_it_has_time_and_only_a_whole_wait_says_something_about_the_server() {
        let (now, wait) = (Instant::now(), Duration::from_millis(100));
        let patience = |deadline: Option<i64>| {
            let deadline = deadline
                .map(|ms| if ms < 0 { now - Duration::from_millis(ms.unsigned_abs()) } else { now + Duration::from_millis(ms.unsigned_abs()) });
            Patience::new(now, wait, deadline).map(|patience| ((patience.until - now).as_millis(), patience.cut))
        };
        assert_eq!(patience(None), Some((100, false)));
        assert_eq!(patience(Some(30_000)), Some((100, false)));
        assert_eq!(patience(Some(100)), Some((100, false)));
        assert_eq!(patience(Some(99)), Some((99, true)));
        assert_eq!([patience(Some(0)), patience(Some(-5))], [None, None]);
    }

    #[test]
    fn pauses_grow_until_a_connection_lasted() {
        let mut pauses = Pauses { next: PAUSE.0 };
        let away: Vec<u128> = (0..6).map(|_| pauses.after(None).as_millis()).collect();
        assert_eq!(away, [50, 100, 200, 400, 500, 500], "however long it stays away");
        assert_eq!(pauses.after(Some(STEADY)), PAUSE.1, "it came and went");
        assert_eq!([pauses.after(Some(2 * STEADY)), pauses.after(None)], [PAUSE.0, 2 * PAUSE.0]);
    }
}
