//! Three instances over one PostgreSQL, and one Redis if there is one.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::caller::{Caller, text, until};
use crate::sql::Database;
use crate::target::{ADMIN, Program, Service};

/// One more than two: there is always a third that neither did something nor was asked first.
pub(crate) const INSTANCES: usize = 3;
/// `DB_POOL_MAX`: more than the load of any drill holds, and little of what the server has.
pub(crate) const POOL: usize = 4;
/// Until an instance has begun to work together with the others.
const TOGETHER: Duration = Duration::from_secs(30);

/// The instances. They are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    services: Vec<Service>,
    _program: Program,
}

impl Fleet {
    /// Starts them, and waits until each says that all is well.
    ///
    /// # Errors
    /// When one does not start.
    pub(crate) async fn start(program: Program, database: &Database, redis: Option<&str>, own: &[(&str, &str)]) -> Result<Self, String> {
        let settings = |number: usize| {
            let pool = POOL.to_string();
            let mut changed = vec![
                ("DATABASE_URL", database.url.as_str()),
                ("DB_POOL_MAX", &pool),
                ("DB_POOL_MIN", "2"),
                ("INSTANCES", "3"),
                ("REDIS_PREFIX", &database.name),
            ];
            changed.extend(redis.map(|url| ("REDIS_URL", url)));
            changed.retain(|(name, _)| own.iter().all(|(other, _)| other != name));
            program.settings(&format!("instance-{number}"), &[&changed, own].concat())
        };
        // One before the others, so that they do not make the schema together.
        let mut services = vec![program.start(&settings(0)).await?];
        let others: Vec<_> = (1..INSTANCES).map(settings).collect();
        services.extend(try_join_all(others.iter().map(|settings| program.start(settings))).await?);
        let fleet = Self { services, _program: program };
        match fleet.all_say("ok", TOGETHER).await {
            Some(_) => Ok(fleet),
            None => Err("not every instance says that all is well".to_owned()),
        }
    }

    /// Where they serve.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.services.iter().map(|service| service.public).collect()
    }

    /// Where an instance serves; after the last comes the first.
    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        self.services[number % INSTANCES].public
    }

    /// A stranger to an instance.
    pub(crate) fn stranger(&self, number: usize) -> Caller {
        Caller::stranger(self.address(number))
    }

    /// The administrator at each of them.
    ///
    /// # Errors
    /// When he cannot sign in.
    pub(crate) async fn admins(&self) -> Result<Vec<Caller>, String> {
        let token = text(&self.stranger(0).sign_in(ADMIN).await?, "access_token");
        Ok((0..INSTANCES).map(|number| self.stranger(number).with(&token)).collect())
    }

    /// Waits until each says this of its health: a status, or the code of a refusal. How long the last one took.
    pub(crate) async fn all_say(&self, word: &str, deadline: Duration) -> Option<Duration> {
        until(deadline, async || {
            for number in 0..INSTANCES {
                let Ok(answer) = self.stranger(number).get("/health").await else { return false };
                let member = if answer.status == 200 { "status" } else { "code" };
                if answer.json()[member] != word {
                    return false;
                }
            }
            true
        })
        .await
    }

    /// Waits until none has a connection of its pool in use.
    pub(crate) async fn all_idle(&self, deadline: Duration) -> Option<Duration> {
        until(deadline, async || {
            for service in &self.services {
                // This question has one of them in its hands itself, and has let it go when it counts.
                let answer = Caller::stranger(service.management).get("/health").await;
                if !answer.is_ok_and(|answer| answer.json()["database"]["in_use"] == 0) {
                    return false;
                }
            }
            true
        })
        .await
    }
}
