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

/// How long Redis keeps that somebody was told to come back: a person takes less, and an attack of ten thousand a minute leaves ten thousand small keys.
const TOLD_FOR: Duration = Duration::from_secs(60);

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
    /// How long ago this stranger was told to come back, by whichever instance.
    pub(super) told: Option<Duration>,
}

/// What is told of a try, or of an address.
#[derive(Default)]
struct Word {
    none: Option<Admitted>,
    known_for: Duration,
    alone: bool,
    /// How long ago the client was told to come back, if it was.
    told: Option<Duration>,
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
        let (wait_us, known, told_us): (u64, u8, i64) = self.run(&ADMIT, account, client, &arguments).await?;
        let told = u64::try_from(told_us).ok().map(Duration::from_micros);
        Ok(if wait_us == 0 { Ok(Admitted { name, known: known == 1, told }) } else { Err(Duration::from_micros(wait_us)) })
    }

    /// A try was none. In the background: nobody waits for it.
    pub(super) fn take_back(&self, account: AccountKey, client: ClientKey, admitted: Admitted) {
        self.tell(account, client, Word { none: Some(admitted), ..Word::default() });
    }

    /// A try was none: this instance spends nothing on it, and has told the client to come back, whichever instance it meets then.
    pub(super) fn send_away(&self, account: AccountKey, client: ClientKey, admitted: Admitted) {
        let told = admitted.told.or(Some(Duration::ZERO));
        self.tell(account, client, Word { none: Some(admitted), told, ..Word::default() });
    }

    /// The account is known at this address from now on, and the try by which that was proved was none.
    pub(super) fn vouch(&self, account: AccountKey, client: ClientKey, admitted: Option<Admitted>) {
        self.tell(account, client, Word { none: admitted, known_for: self.limits.known_for, ..Word::default() });
    }

    /// The account is known at this address, and nowhere else anymore.
    pub(super) fn vouch_alone(&self, account: AccountKey, client: ClientKey) {
        self.tell(account, client, Word { known_for: self.limits.known_for, alone: true, ..Word::default() });
    }

    fn tell(&self, account: AccountKey, client: ClientKey, word: Word) {
        let this = self.clone();
        let name = word.none.map_or_else(String::new, |admitted| admitted.name);
        let alone = u8::from(word.alone).to_string();
        let told = word.told.map_or_else(|| "-1".to_owned(), micros);
        let arguments = [client.to_string(), name, micros(word.known_for), SOURCES_MAX.to_string(), alone, told, micros(TOLD_FOR)];
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
            self.key("told", &here),
        ];
        let [known, at_home, of_account, source, of_client, told] = &keys;
        self.redis.run(script, &[known, at_home, of_account, source, of_client, told], arguments).await
    }

    /// All keys of a throttle lie on one node of a cluster, so that one script counts them: no instance hashes more passwords than that node counts.
    fn key(&self, what: &str, of: impl std::fmt::Display) -> String {
        format!("{}:{{{}}}:{what}:{of}", self.redis.prefix(), self.name)
    }
}

fn micros(duration: Duration) -> String {
    duration.as_micros().to_string()
}
