//! The drill of `kill -9`: a process that registers accounts, rotates refresh tokens, resets a password and sends mails is killed at a random moment, started again on the same
//! database, and must have left nothing that is half there. Again and again.
//!
//! What must hold after each kill:
//! - no account without its profile, no profile, session or token without what it belongs to, no two accounts of one address;
//! - every account whose 201 was received exists; an address whose answer was lost is free or taken, once;
//! - a refresh whose answer was lost gives the same successor when it is repeated, and nobody was signed out;
//! - a reset whose answer was lost is done with all that belongs to it (the password, the end of the sessions, the link, the audit trail, the letter), or not at all;
//!
//! and whenever the queue of mails is empty: of every cause that was committed there is one mail, of one that was not there is none.

mod causes;
mod clients;
mod forgetful;
mod invariants;
mod report;

use std::time::{Duration, Instant};

use mainstay::store::Database;
use mainstay::testing::Chance;
use rustix::process::Signal;
use uuid::Uuid;

use self::causes::Causes;
use self::clients::{Family, Registered, Registrar};
use self::forgetful::Forgetful;
pub(crate) use self::report::Report;
use crate::ground::Ground;
use crate::process::Server;

/// Two register at once: half of the cores of a small machine hash, and a longer line would only put more registrations before their hash.
const REGISTRARS: u32 = 2;
/// Sessions that are refreshed at once.
const FAMILIES: u32 = 3;
/// In calm registrations: three who share a thread that hashes have all their first answers before this, and not much before.
const LATEST: f64 = 5.0;
/// A killed process is gone at once.
const GONE: Duration = Duration::from_secs(10);
/// The folder keeps the last 1,000 mails, and each round may cause a few: they are counted long before.
const SETTLE_EVERY: u32 = 50;

/// How often, and with which chance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) kills: u32,
    pub(crate) seed: u64,
}

/// A seed that nobody chose. Whoever sees a drill fail starts it again with the one that it printed.
pub(crate) fn fresh_seed() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

/// Kills a service on this ground as planned; `tell` sees how far it is. A broken promise panics, with the round and its delay.
pub(crate) async fn run(ground: &Ground, plan: Plan, mut tell: impl FnMut(&Report)) -> Report {
    // The longest window, so that a busy machine is not what ends a session; the shortest lease, so that mails of the dead are taken over soon.
    let settings = ground.pairs(&[("REFRESH_REUSE_WINDOW", "60s"), ("JOBS_LEASE", "1s")]);
    let (mut chance, mut report, begun) = (Chance::new(plan.seed), Report::default(), Instant::now());
    let mut server = Server::start(&settings);
    let mut families = Vec::new();
    for number in 0..FAMILIES {
        families.push(Family::begin(&server.client(), number).await);
    }
    let mut forgetful = Forgetful::begin(&server.client()).await;
    report.calm = clients::calm_registration(&server.client()).await;
    let mut drill = Drill { ground, causes: Causes::default(), accounts: i64::from(FAMILIES + clients::CALM) + 2 };
    for kill in 1..=plan.kills {
        let delay = report.calm.mul_f64(LATEST * chance.fraction());
        let place = format!("kill {kill} of seed {}, after {delay:?}", plan.seed);
        // Refreshes that never pause leave so little of a core to hashes that no registration would ever come to its write: every other time they rest.
        let refreshing = if chance.once_in(2) { families.as_mut_slice() } else { &mut [] };
        forgetful.have_a_link(ground, &server.client()).await;
        let registered = at_work(&mut server, refreshing, &mut forgetful, kill, delay).await;
        // Half of the causes wait for the process when it starts, the others are seen by it while it serves.
        let early = chance.once_in(2);
        if early {
            drill.cause(&mut chance).await;
        }
        let started = Instant::now();
        server = Server::start(&settings);
        report.restarts.push(started.elapsed());
        let database = ground.database().await;
        drill.check(&database, &server, &registered, &mut families, &mut report, &place).await;
        forgetful.check(&database, &server.client(), &mut report.resets, &place).await;
        database.close(GONE).await;
        if !early {
            drill.cause(&mut chance).await;
        }
        if kill % SETTLE_EVERY == 0 || kill == plan.kills {
            report.mails = drill.causes.settle(ground, &place).await;
            (report.kills, report.took) = (kill, begun.elapsed());
            (report.committed, report.rolled_back) = drill.causes.counts();
            tell(&report);
        }
    }
    report
}

/// Lets everybody ask, kills the process, and gives what the registrars have heard.
async fn at_work(server: &mut Server, families: &mut [Family], forgetful: &mut Forgetful, kill: u32, delay: Duration) -> Vec<Registered> {
    let registrars: Vec<_> = (0..REGISTRARS).map(|number| tokio::spawn(Registrar::new(server.client(), kill, number).run())).collect();
    let client = server.client();
    let refreshing = families.iter_mut().map(|family| family.refresh_until_the_end(&client));
    let killing = async {
        tokio::time::sleep(delay).await;
        server.signal(Signal::KILL);
    };
    tokio::join!(futures_util::future::join_all(refreshing), forgetful.reset(&client), killing);
    let mut registered = Vec::new();
    for registrar in registrars {
        registered.push(registrar.await.unwrap());
    }
    server.wait(GONE);
    registered
}

/// What the drill knows about the database.
struct Drill<'a> {
    ground: &'a Ground,
    causes: Causes,
    accounts: i64,
}

impl Drill<'_> {
    async fn cause(&mut self, chance: &mut Chance) {
        let database = self.ground.database().await;
        // One of four does not happen.
        self.causes.add(&database, chance.fraction() < 0.75).await;
        database.close(GONE).await;
    }

    async fn check(&mut self, database: &Database, server: &Server, heard: &[Registered], families: &mut [Family], report: &mut Report, place: &str) {
        invariants::nothing_is_half_there(database, place).await;
        let client = server.client();
        for heard in heard {
            heard.check(database, &client, &mut report.registrations, place).await;
            self.accounts += heard.accounts();
        }
        let accounts = invariants::count(database, "SELECT count(*) AS n FROM users").await;
        assert_eq!(accounts, self.accounts, "{place}: accounts that nobody asked for, or that are gone");
        for family in families {
            family.check(database, &client, &mut report.refreshes, place).await;
        }
    }
}
