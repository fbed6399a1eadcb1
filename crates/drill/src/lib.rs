//! The incidents, as drills: each does to a running API the harm that brought another one down, measures, and says `held` or `fell` with its figures.
//!
//! A drill starts the service itself, or, where that makes sense, is done to one that runs already: so the same harm can be shown to another API beside it.
//! Only services on loopback are drilled. What every drill is about, and what held means, says [`Name`].

mod caller;
mod chance;
mod client;
mod drills;
mod fleet;
mod load;
mod outcome;
mod page;
mod proxy;
mod record;
mod soak;
mod sql;
mod target;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use outcome::{Figure, Line, Outcome, Plot};
pub use page::page;
pub use soak::{Soak, soak};
pub use target::Running;

/// A drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each says what it is in `harm`")]
pub enum Name {
    Surge,
    Payload,
    Deploy,
    Pool,
    SlowQuery,
    Bruteforce,
    Orphans,
    Regex,
    Preflight,
    Sessions,
    Slowloris,
    RedisLoss,
    Soak,
}

impl Name {
    /// All that `mainstay drill` does. A soak is a command of its own: it takes an hour.
    pub const ALL: [Self; 12] = [
        Self::Surge,
        Self::Payload,
        Self::Deploy,
        Self::Pool,
        Self::SlowQuery,
        Self::Bruteforce,
        Self::Orphans,
        Self::Regex,
        Self::Preflight,
        Self::Sessions,
        Self::Slowloris,
        Self::RedisLoss,
    ];

    /// As the command line names it.
    pub fn as_str(self) -> &'static str {
        self.words().0
    }

    /// What is done.
    pub fn harm(self) -> &'static str {
        self.words().1
    }

    /// What `held` means.
    pub fn held(self) -> &'static str {
        self.words().2
    }

    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Surge => (
                "surge",
                "20 times the load that the service sustains",
                "what it serves stays at 95 % of its peak, the 99th percentile of that at most doubles, memory is flat, and all is as before within a second",
            ),
            Self::Payload => (
                "payload",
                "JSON bodies of 50 MB, sent again at once, chunked and not; nesting, and compressed bombs",
                "each is a 413, 415 or 400, memory is flat, and nobody else notices",
            ),
            Self::Deploy => (
                "deploy",
                "new processes take over under full load of kept connections, and some that cannot serve try to",
                "no request fails, what was posted is there once, and one that cannot serve changes nothing",
            ),
            Self::Pool => (
                "pool",
                "a database that is late, then silent, then back",
                "waits end in time with 503, what was read before is read on, all is back within a second, no connection is left behind",
            ),
            Self::SlowQuery => {
                ("slow-query", "a query without an index, over as many rows as it takes", "it ends at its limit, and nobody else notices")
            }
            Self::Bruteforce => (
                "bruteforce",
                "10,000 wrong sign-ins a minute from one address, then from many",
                "honest people sign in, from home and from elsewhere, reads are as fast as in the calm, and neither machine nor database notices",
            ),
            Self::Orphans => (
                "orphans",
                "the process is killed at any step of creating an account, again and again",
                "there is never an account without its profile, and never the same one twice",
            ),
            Self::Regex => ("regex", "hostile strings as searches", "every one is a search: none is a 500"),
            Self::Preflight => (
                "preflight",
                "every combination of origin, method and header that a browser may ask for",
                "allowed ones are told so, the others are not, and no preflight reaches a route",
            ),
            Self::Sessions => (
                "sessions",
                "three instances: sign in on one, use on the others, sign out on one",
                "a session is good everywhere, and then nowhere, for the very next request",
            ),
            Self::Slowloris => (
                "slowloris",
                "thousands of connections that send a byte now and then, or read none",
                "others are served as in the calm, and the connections are shed",
            ),
            Self::RedisLoss => {
                ("redis-loss", "a Redis that is stopped, slow, and back", "nothing fails, limits hold in parts, and all is back by itself")
            }
            Self::Soak => (
                "soak",
                "mixed traffic, with faults of database and Redis and instances that are started anew",
                "memory, descriptors and threads are flat, nothing goes wrong that no fault explains, and what was acknowledged is there, once",
            ),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How drills are done.
#[derive(Debug)]
pub struct Plan {
    /// The program that is started.
    pub binary: PathBuf,
    /// A PostgreSQL on which databases may be made, for the drills that need one.
    pub postgres: Option<String>,
    /// A Redis, for the drills that need one.
    pub redis: Option<String>,
    /// In short: seconds in place of a minute, but for the surge, and less of everything. The figures that are wanted are the same.
    pub short: bool,
}

impl Plan {
    /// A length of the long form, or a part of it in short.
    fn length(&self, long: Duration) -> Duration {
        if self.short { long / 6 } else { long }
    }

    /// A number of the long form, or a part of it in short.
    fn number(&self, long: usize) -> usize {
        if self.short { long.div_ceil(10) } else { long }
    }
}

/// A drill that was done to a service.
#[derive(Clone, Debug)]
pub struct Done {
    /// Which.
    pub name: Name,
    /// To whom.
    pub service: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// Does a drill to a service that is started for it.
///
/// # Errors
/// When it cannot be done: the service does not start, a file cannot be written.
pub async fn on_our_own(name: Name, plan: &Plan) -> Result<Outcome, String> {
    drills::on_our_own(name, plan).await
}

/// Does a drill to a service that runs already. Those that start, stop or starve a service cannot be done to one.
///
/// # Errors
/// When it does not answer at all.
pub async fn on_running(name: Name, plan: &Plan, running: &Running) -> Result<Outcome, String> {
    drills::on_running(name, plan, running).await
}
