//! Mixed traffic for an hour, with faults now and then: nothing may grow, nothing may fail outside of them, and what was acknowledged is there.
//!
//! With a PostgreSQL two instances run over it (and over a Redis), behind proxies that harm both; the second instance is started anew as well. Without one, a
//! single instance keeps its own SQLite, and only its clients misbehave.

mod judge;
mod ledger;
mod people;
mod places;
mod seen;
mod weather;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::caller::until;
use crate::outcome::Outcome;
use crate::sql::Database;
use crate::watch::{Look, look};
use people::World;
use places::Places;

/// How long the service runs before its traffic begins: its pools are warm then.
const SETTLING: Duration = Duration::from_secs(3);
/// How long what has grown under traffic may take to shrink again afterwards: idle connections to the database end after 5 s (`DB_IDLE_TIMEOUT` here), idle
/// threads after 10 s.
const SHRINKING: Duration = Duration::from_secs(40);
/// Descriptors and threads that may be there at the end and were not at the beginning: a pool is between its least and its most.
const MORE_DESCRIPTORS: u64 = 8;
const MORE_THREADS: u64 = 8;

/// A soak.
#[derive(Debug)]
pub struct Soak {
    /// The program that is started.
    pub binary: PathBuf,
    /// A PostgreSQL on which databases may be made.
    pub postgres: Option<String>,
    /// A Redis; it is used with a PostgreSQL only.
    pub redis: Option<String>,
    /// How long the traffic lasts.
    pub length: Duration,
    /// Requests a second, of all clients together.
    pub rate: f64,
}

/// Soaks the service.
///
/// # Errors
/// When it cannot be done: the service does not start, a database cannot be made.
pub async fn soak(plan: &Soak) -> Result<Outcome, String> {
    let Some(server) = &plan.postgres else { return run(plan, None).await };
    let database = Database::create(server).await?;
    let outcome = run(plan, Some(&database)).await;
    let removed = database.remove().await;
    outcome.and_then(|outcome| removed.map(|()| outcome))
}

async fn run(plan: &Soak, database: Option<&Database>) -> Result<Outcome, String> {
    let mut places = Places::start(plan, database).await?;
    let (world, people) = World::of(&places.addresses(), plan.rate).await?;
    tokio::time::sleep(SETTLING).await;
    let before = looked(&places)?;
    let world = Arc::new(world);
    let clients: Vec<_> = people.into_iter().map(|person| tokio::spawn(person.live(world.clone()))).collect();
    let course = weather::weather(plan.length, &mut places, &world).await;
    world.stop();
    for client in clients {
        client.await.map_err(|error| error.to_string())?;
    }
    let mut outcome = Outcome::default();
    // A service that has ended, or that cannot be started anew, is what the soak is there to find.
    let (course, after) = match (course, shrunk(&places, before).await) {
        (Ok(course), Ok(after)) => (course, after),
        (Err(why), _) | (_, Err(why)) => {
            outcome.want("the service", why, "serves to the end", false);
            return Ok(outcome);
        }
    };
    judge::traffic(&mut outcome, plan, &world, &course);
    judge::memory(&mut outcome, plan.length, &course);
    judge::rest(&mut outcome, (before, after), (MORE_DESCRIPTORS, MORE_THREADS));
    let ledger = world.ledger().clone();
    judge::ledger(&mut outcome, &ledger, &places).await?;
    judge::plots(&mut outcome, &world, &course);
    Ok(outcome)
}

/// The first instance, which is never started anew.
fn looked(places: &Places) -> Result<Look, String> {
    look(places.pid(0)).ok_or_else(|| "the service has ended".to_owned())
}

/// Waits until it holds no more than before, and gives what it holds then, or at last.
async fn shrunk(places: &Places, before: Look) -> Result<Look, String> {
    let is_small = |now: Look| now.descriptors <= before.descriptors + MORE_DESCRIPTORS && now.threads <= before.threads + MORE_THREADS;
    until(SHRINKING, async || look(places.pid(0)).is_some_and(is_small)).await;
    looked(places)
}
