//! What clients saw, by kind of request and by the time at which it happened.

use std::io;
use std::time::{Duration, Instant};

use crate::client::Answer;
use crate::record::Latencies;

/// The width of a window. An hour of them, of all kinds, is 30 MB.
pub(super) const WINDOW: Duration = Duration::from_secs(2);
/// What went wrong is kept up to here; the rest is counted.
const TROUBLES_MAX: usize = 10_000;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    List,
    Search,
    Member,
    SignIn,
    Write,
    Malformed,
    Churn,
    Slow,
}

/// All of them, by their place in a window.
pub(super) const KINDS: [(Kind, &str); 9] = [
    (Kind::Read, "reads of a product"),
    (Kind::List, "pages of the list"),
    (Kind::Search, "searches"),
    (Kind::Member, "reads of somebody signed in"),
    (Kind::SignIn, "sign-ins, refreshes, sign-outs"),
    (Kind::Write, "writes"),
    (Kind::Malformed, "malformed requests"),
    (Kind::Churn, "requests on a connection of their own"),
    (Kind::Slow, "requests of slow clients"),
];

/// Requests of one kind in one window.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) served: Latencies,
    /// Anything else than what the client expects of a service that is well.
    pub(super) troubled: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// When it was seen, after the beginning.
    pub(super) at: Duration,
    pub(super) kind: Kind,
    /// Of which instance.
    pub(super) instance: usize,
    /// The status, if there was an answer.
    pub(super) status: Option<u16>,
    /// Is it an answer that a client can act on?
    pub(super) refuses: bool,
    pub(super) words: String,
}

/// What all clients saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) windows: Vec<[Window; KINDS.len()]>,
    pub(super) troubles: Vec<Trouble>,
    /// Those beyond what is kept.
    pub(super) untold: u64,
}

impl Seen {
    /// Notes a request that was due at one moment and has ended now, as it should or not.
    pub(super) fn note(&mut self, begun: Instant, due: Instant, (kind, instance): (Kind, usize), answer: &io::Result<Answer>, good: bool) {
        let now = Instant::now();
        let at = now.saturating_duration_since(begun);
        let number = usize::try_from(at.as_millis() / WINDOW.as_millis()).unwrap_or(usize::MAX).min(1 << 16);
        if self.windows.len() <= number {
            self.windows.resize_with(number + 1, Default::default);
        }
        let window = &mut self.windows[number][kind as usize];
        if good {
            window.served.add(now.saturating_duration_since(due));
            return;
        }
        window.troubled += 1;
        if self.troubles.len() >= TROUBLES_MAX {
            self.untold += 1;
            return;
        }
        let (status, refuses, words) = match answer {
            Ok(answer) => (Some(answer.status), answer.refuses(), answer.said()),
            Err(error) => (None, false, error.to_string()),
        };
        self.troubles.push(Trouble { at, kind, instance, status, refuses, words });
    }

    /// What was served of a kind between two moments.
    pub(super) fn between(&self, kind: Kind, from: Duration, to: Duration) -> Latencies {
        let number = |at: Duration| usize::try_from(at.as_millis() / WINDOW.as_millis()).unwrap_or(usize::MAX);
        let mut sum = Latencies::default();
        for window in self.windows.iter().take(number(to)).skip(number(from)) {
            sum.merge(&window[kind as usize].served);
        }
        sum
    }
}
