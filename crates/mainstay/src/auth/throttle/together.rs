//! What all instances know of tries, in Redis: the same paces as in [`super::state`], by the clock of the server.

use std::sync::LazyLock;
use std::time::Duration;

use uuid::Uuid;

use super::known::SOURCES_MAX;
use super::{AccountKey, Pace, ThrottleLimits};
use crate::client::ClientKey;
use crate::redis::{Away, Redis, Script};

static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("admit.lua")));
static VOUCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("vouch.lua")));

/// Counts tries together with the other instances.
#[derive(Clone)]
pub(super) struct Together {
    redis: Redis,
    /// The throttle: a service has several.
    name: &'static str,
    limits: ThrottleLimits,
}

/// The name of a try that was admitted.
pub(super) struct Admitted {
    name: String,
    /// Is the account known at this address?
    pub(super) known: bool,
}

impl Together {
    pub(super) fn new(redis: Redis, name: &'static str, limits: ThrottleLimits) -> Self {
        Self { redis, name, limits }
    }

    /// Counts a try, or says how long it has to wait.
    pub(super) async fn admit(&self, account: AccountKey, client: ClientKey) -> Result<Result<Admitted, Duration>, Away> {
        // What strangers cost an instance is its own matter.
        let ThrottleLimits { window, known, account: of_account, source, client: of_client, known_for, strangers: _ } = self.limits;
        let name = Uuid::new_v4().simple().to_string();
        let mut arguments = vec![client.to_string(), name.clone(), micros(window), micros(known_for)];
        for Pace { free, longest } in [known, of_account, source, of_client] {
            arguments.extend([free.to_string(), micros(longest)]);
        }
        let (wait_us, known): (u64, u8) = self.run(&ADMIT, account, client, &arguments).await?;
        Ok(if wait_us == 0 { Ok(Admitted { name, known: known == 1 }) } else { Err(Duration::from_micros(wait_us)) })
    }

    /// A try was none. In the background: nobody waits for it.
    pub(super) fn take_back(&self, account: AccountKey, client: ClientKey, admitted: Admitted) {
        self.tell(account, client, Some(admitted), Duration::ZERO, false);
    }

    /// The account is known at this address from now on, and the try by which that was proved was none.
    pub(super) fn vouch(&self, account: AccountKey, client: ClientKey, admitted: Option<Admitted>) {
        self.tell(account, client, admitted, self.limits.known_for, false);
    }

    /// The account is known at this address, and nowhere else anymore.
    pub(super) fn vouch_alone(&self, account: AccountKey, client: ClientKey) {
        self.tell(account, client, None, self.limits.known_for, true);
    }

    fn tell(&self, account: AccountKey, client: ClientKey, admitted: Option<Admitted>, known_for: Duration, alone: bool) {
        let this = self.clone();
        let name = admitted.map_or_else(String::new, |admitted| admitted.name);
        let arguments = [client.to_string(), name, micros(known_for), SOURCES_MAX.to_string(), u8::from(alone).to_string()];
        // Without Redis nothing of it is told there: the try stays counted for an hour, and the next sign-in from here counts as a stranger's.
        tokio::spawn(async move { this.run::<u8>(&VOUCH, account, client, &arguments).await });
    }

    async fn run<T: redis::FromRedisValue>(&self, script: &Script, account: AccountKey, client: ClientKey, arguments: &[String]) -> Result<T, Away> {
        let here = format!("{account}:{client}");
        let keys = [
            self.key("known", account),
            self.key("at_home", &here),
            self.key("account", account),
            self.key("source", &here),
            self.key("client", client),
        ];
        let [known, at_home, of_account, source, of_client] = &keys;
        self.redis.run(script, &[known, at_home, of_account, source, of_client], arguments).await
    }

    /// All keys of a throttle lie on one node of a cluster, so that one script counts them: no instance hashes more passwords than that node counts.
    fn key(&self, what: &str, of: impl std::fmt::Display) -> String {
        format!("{}:{{{}}}:{what}:{of}", self.redis.prefix(), self.name)
    }
}

fn micros(duration: Duration) -> String {
    duration.as_micros().to_string()
}
