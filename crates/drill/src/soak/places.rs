//! Where a soak happens: the instances, their database, and the proxies before what they share.

use std::net::SocketAddr;
use std::time::Duration;

use super::Soak;
use crate::caller::{Caller, until};
use crate::proxy::Proxy;
use crate::sql::{Database, number};
use crate::target::{Program, Service, Settings};
use rustix::process::Signal;

/// Until an instance is as the others.
const START: Duration = Duration::from_secs(30);
/// An end in order takes no longer: a slow client is cut after 10 s (`SHUTDOWN_TIMEOUT` here).
const END: Duration = Duration::from_secs(15);

/// All of it. The instances are killed when this is dropped.
pub(super) struct Places {
    services: Vec<Service>,
    settings: Vec<Settings>,
    program: Program,
    /// The database, past the proxy.
    url: String,
    /// Before the PostgreSQL.
    pub(super) postgres: Option<Proxy>,
    /// Before the Redis.
    pub(super) redis: Option<Proxy>,
}

impl Places {
    /// Starts all of it, over this PostgreSQL if there is one.
    pub(super) async fn start(plan: &Soak, database: Option<&Database>) -> Result<Self, String> {
        let program = Program::new(plan.binary.clone()).map_err(|error| error.to_string())?;
        let url = database.map_or_else(|| format!("sqlite:{}", program.file("soak.db").display()), |database| database.url.clone());
        let (mut own, mut instances) = (vec![("DATABASE_URL", url.clone())], 1);
        let mut places = Self { services: Vec::new(), settings: Vec::new(), program, url, postgres: None, redis: None };
        if let Some(database) = database {
            let (proxy, url) = Proxy::before(&database.url, 5432).await?;
            own = vec![("DATABASE_URL", url), ("REDIS_PREFIX", database.name.clone()), ("INSTANCES", "2".to_owned())];
            (places.postgres, instances) = (Some(proxy), 2);
            if let Some(redis) = &plan.redis {
                let (proxy, url) = Proxy::before(redis, 6379).await?;
                own.push(("REDIS_URL", url));
                places.redis = Some(proxy);
            }
        }
        for (name, value) in [
            ("DB_POOL_MAX", "8"),
            ("DB_POOL_MIN", "2"),
            ("DB_IDLE_TIMEOUT", "5s"),
            ("DB_ACQUIRE_TIMEOUT", "2s"),
            ("REQUEST_TIMEOUT", "5s"),
            ("SHUTDOWN_TIMEOUT", "10s"),
        ] {
            own.push((name, value.to_owned()));
        }
        let own: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for number in 0..instances {
            let settings = places.program.settings(&format!("instance-{number}"), &own);
            // One after the other, so that they do not make the schema together.
            let service = places.program.start(&settings).await?;
            places.services.push(service);
            places.settings.push(settings);
        }
        for number in 0..instances {
            places.well(number).await?;
        }
        Ok(places)
    }

    async fn well(&self, number: usize) -> Result<(), String> {
        let caller = Caller::stranger(self.services[number].public);
        let well = async || caller.get("/health").await.is_ok_and(|answer| answer.status == 200 && answer.json()["status"] == "ok");
        until(START, well).await.map(|_| ()).ok_or_else(|| "an instance does not say that all is well".to_owned())
    }

    /// Where each instance serves.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.services.iter().map(|service| service.public).collect()
    }

    /// How many there are.
    pub(super) fn instances(&self) -> usize {
        self.services.len()
    }

    /// The process of an instance.
    pub(super) fn pid(&self, number: usize) -> u32 {
        self.services[number].pid()
    }

    /// Ends an instance in order and starts it anew, at the same address.
    ///
    /// # Errors
    /// When it does not end by itself, with 0, or does not start.
    pub(super) async fn restart(&mut self, number: usize) -> Result<(), String> {
        self.services[number].signal(Signal::TERM);
        match self.services[number].wait(END).await {
            Some(status) if status.success() => {}
            Some(status) => return Err(format!("an instance that was asked to end did so with {status}: {}", self.services[number].said())),
            None => return Err("an instance that was asked to end did not".to_owned()),
        }
        self.services[number] = self.program.start(&self.settings[number]).await?;
        self.well(number).await
    }

    /// A number of the database, asked past the proxy.
    pub(super) async fn number(&self, sql: &str) -> Result<i64, String> {
        number(&self.url, sql).await
    }
}
