//! The drill of deployments: a service hands over to the next release again and again (SIGUSR2) while clients keep their connections and ask without a pause,
//! and between the good releases come some that cannot serve.
//!
//! It is held when no request failed, every POST that was answered is in the database once and no other is, every process before ended with 0, and no release
//! that cannot serve changed anything.

mod http1;
mod http2;
mod releases;
mod tally;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use self::releases::Releases;
use self::tally::Tally;
use crate::ground::{ADMIN, Ground, PASSWORD, within};
use crate::process::Server;

/// A start and a drain, unoptimised, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often, and beside which load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// New releases that serve; after every third comes one that does not.
    pub(crate) deployments: u32,
    /// Requests to be answered between two of them.
    pub(crate) requests_between: u64,
    /// Clients that keep one connection of HTTP/1.1 and ask without a pause.
    pub(crate) clients: u32,
    /// Clients that keep one and rest between two requests, for a time of their own.
    pub(crate) pausing: u32,
    /// Connections of HTTP/2.
    pub(crate) connections: u32,
    /// Requests at once on each of them.
    pub(crate) streams: u32,
    /// GETs for each POST.
    pub(crate) reads_per_write: u64,
}

/// The figures.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) deployments: u32,
    pub(crate) refused: u32,
    pub(crate) answered: u64,
    pub(crate) created: u64,
    /// In the database.
    pub(crate) found: u64,
    /// Among them, under a name of their own.
    pub(crate) distinct: u64,
    /// Over HTTP/2 the server said that it had not begun it, and it was sent again.
    pub(crate) again: u64,
    pub(crate) connections: u64,
    pub(crate) failures: Vec<String>,
    /// Exit codes of processes that handed over, but 0.
    pub(crate) exits: Vec<i32>,
    pub(crate) took: Duration,
    /// From SIGUSR2 to the end of the process before, the longest.
    pub(crate) longest: Duration,
}

impl Report {
    pub(crate) fn held(&self) -> bool {
        self.failures.is_empty() && self.exits.is_empty() && self.created == self.found && self.found == self.distinct
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deployments, refused, answered, created, found, distinct, again, connections, .. } = self;
        writeln!(
            f,
            "{deployments} deployments and {refused} refused ones in {:.0?}, the longest {:.1?} from the signal to the end",
            self.took, self.longest
        )?;
        writeln!(f, "{answered} requests answered on {connections} connections, {} failed, {again} sent again after GOAWAY", self.failures.len())?;
        writeln!(f, "{created} products created, {found} found, {distinct} of them distinct")?;
        self.failures.iter().take(10).try_for_each(|failure| writeln!(f, "  {failure}"))?;
        self.exits.iter().take(10).try_for_each(|code| writeln!(f, "  a process before ended with {code}"))?;
        write!(f, "{}", if self.held() { "held" } else { "fell" })
    }
}

/// Runs it; `progress` is told after each deployment.
pub(crate) async fn run(ground: &Ground, plan: Plan, mut progress: impl FnMut(&str)) -> Report {
    let mut releases = Releases::new(&ground.file("releases"));
    let configuration = releases.configuration().display().to_string();
    let unlimited = [("RATE_LIMIT_MAX", "1000000000"), ("RATE_LIMIT_ACCOUNT_MAX", "1000000000")];
    let settings = [&unlimited[..], &[("MAINSTAY_CONFIG", &configuration), ("LOG_LEVEL", "info,mainstay::access=off")]].concat();
    let mut server = Server::start_as(releases.command(&ground.pairs(&settings)));
    let signed_in = server.client().post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await.expect(200).data();
    let token = signed_in["access_token"].as_str().unwrap().to_owned();
    let tally = Arc::new(Tally::new(plan.reads_per_write));
    let load = load(&server, &token, plan, &tally);
    let (begun, mut longest, mut refused, mut exits) = (Instant::now(), Duration::ZERO, 0, Vec::new());
    for deployment in 1..=plan.deployments {
        settle(&tally, plan.requests_between).await;
        releases.next();
        let signalled = Instant::now();
        match server.hand_over(PATIENCE) {
            Ok(0) => {}
            Ok(code) => exits.push(code),
            Err(line) => tally.fail(format!("a good release was refused: {line}")),
        }
        longest = longest.max(signalled.elapsed());
        if deployment % 3 == 0 {
            settle(&tally, plan.requests_between).await;
            refuse(&mut releases, &mut server, &tally, refused);
            refused += 1;
        }
        progress(&format!("{deployment}: {} requests, {} failed", tally.answered.load(Ordering::Relaxed), tally.failures().len()));
    }
    settle(&tally, plan.requests_between).await;
    tally.stop();
    for client in load {
        client.await.unwrap();
    }
    let took = begun.elapsed();
    match server.end(PATIENCE) {
        0 => {}
        code => exits.push(code),
    }
    let number = |text| async move { ground.number(text).await.unsigned_abs() };
    Report {
        deployments: plan.deployments,
        refused,
        answered: tally.answered.load(Ordering::Relaxed),
        created: tally.created.load(Ordering::Relaxed),
        found: number("SELECT count(*) AS n FROM products").await,
        distinct: number("SELECT count(DISTINCT name) AS n FROM products").await,
        again: tally.again.load(Ordering::Relaxed),
        connections: tally.connections.load(Ordering::Relaxed),
        failures: tally.failures(),
        exits,
        took,
        longest,
    }
}

fn load(server: &Server, token: &str, plan: Plan, tally: &Arc<Tally>) -> Vec<tokio::task::JoinHandle<()>> {
    let asking = (0..plan.clients).map(|number| tokio::spawn(http1::ask(server.public, token.to_owned(), number, Duration::ZERO, tally.clone())));
    let pausing = (0..plan.pausing).map(|number| {
        // From a blink to longer than a drain waits for idle connections where nobody takes them over.
        let pause = Duration::from_millis(20 + u64::from(number) * 1700 / u64::from(plan.pausing));
        tokio::spawn(http1::ask(server.public, token.to_owned(), plan.clients + number, pause, tally.clone()))
    });
    let streaming =
        (0..plan.connections).map(|number| tokio::spawn(http2::ask(server.public, token.to_owned(), number, plan.streams, tally.clone())));
    let connecting = tokio::spawn(http1::connect_each_time(server.public, tally.clone()));
    asking.chain(pausing).chain(streaming).chain([connecting]).collect()
}

/// Waits until so many more requests were answered.
async fn settle(tally: &Tally, requests: u64) {
    let enough = tally.answered.load(Ordering::Relaxed) + requests;
    within(PATIENCE, "the load goes on", || async { tally.answered.load(Ordering::Relaxed) >= enough || !tally.failures().is_empty() }).await;
}

/// Tries a release that cannot serve, and looks that nothing has changed.
fn refuse(releases: &mut Releases, server: &mut Server, tally: &Tally, number: u32) {
    let before = server.pid();
    let expected = releases.unfit(number);
    match server.hand_over(PATIENCE) {
        Err(line) if line.contains(expected) => {}
        Err(line) => tally.fail(format!("`{expected}` is not told: {line}")),
        Ok(_) => tally.fail("a release that cannot serve has taken over".to_owned()),
    }
    if server.pid() != before {
        tally.fail("another process serves after a release that cannot".to_owned());
    }
    releases.fit_again();
}
