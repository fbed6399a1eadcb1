//! What was tried, as plain data: keys and times go in, verdicts come out.
//!
//! This is what a store that several instances share takes the place of; what it promises stands in the parent.

use std::time::Duration;

use super::allowance::Strangers;
use super::book::Book;
use super::known::Known;
use super::pace::is_within;
use super::{AccountKey, ThrottleLimits};
use crate::client::ClientKey;

/// Accounts that strangers guessed at within a window: at most 29 tries of 32 bytes each. A core verifies 180,000 passwords an hour.
const ACCOUNTS_MAX: usize = 32_768;
/// Addresses that guessed within a window, and addresses that did so where they are known: at most 114 tries of 16 bytes each.
const CLIENTS_MAX: usize = 16_384;

pub(super) struct State {
    limits: ThrottleLimits,
    known: Known,
    at_home: Book<(AccountKey, ClientKey), ()>,
    accounts: Book<AccountKey, ClientKey>,
    clients: Book<ClientKey, ()>,
    /// Of all of them together, if that is bounded.
    strangers: Option<Strangers>,
    latest: Duration,
}

/// A try that was admitted.
pub(super) struct Try {
    pub(super) account: AccountKey,
    pub(super) client: ClientKey,
    at: Duration,
    /// From where the account is known.
    pub(super) known: bool,
}

impl State {
    pub(super) fn new(limits: ThrottleLimits) -> Self {
        Self {
            limits,
            known: Known::new(limits.known_for),
            at_home: Book::new(limits.window, CLIENTS_MAX),
            accounts: Book::new(limits.window, ACCOUNTS_MAX),
            clients: Book::new(limits.window, CLIENTS_MAX),
            strangers: limits.strangers.map(Strangers::new),
            latest: Duration::ZERO,
        }
    }

    /// Counts a try, or says how long it has to wait.
    pub(super) fn admit(&mut self, account: AccountKey, client: ClientKey, now: Duration) -> Result<Try, Duration> {
        let at = self.moment(now);
        let known = self.known.holds(account, client, at);
        let wait = if known { self.wait_at_home(account, client, at) } else { self.wait_as_stranger(account, client, at) };
        if wait.is_zero() { self.count(account, client, at, known) } else { Err(wait) }
    }

    /// Counts a try that all instances together have admitted, unless strangers have used up what they may here. `told` is how long ago one of them told this
    /// client to come back.
    pub(super) fn note(&mut self, account: AccountKey, client: ClientKey, told: Option<Duration>, now: Duration) -> Result<Try, Duration> {
        let at = self.moment(now);
        if let (Some(strangers), Some(told)) = (&mut self.strangers, told) {
            strangers.hear(account, client, told, at);
        }
        let known = self.known.holds(account, client, at);
        self.count(account, client, at, known)
    }

    fn count(&mut self, account: AccountKey, client: ClientKey, at: Duration, known: bool) -> Result<Try, Duration> {
        if known {
            self.at_home.add((account, client), at, ());
        } else {
            if let Some(strangers) = &mut self.strangers {
                let guessed = self.clients.own_tries(client).any(|tried| is_within(self.limits.window, tried, at));
                strangers.take(account, client, guessed, at)?;
            }
            self.accounts.add(account, at, client);
            self.clients.add(client, at, ());
        }
        Ok(Try { account, client, at, known })
    }

    fn wait_at_home(&self, account: AccountKey, client: ClientKey, now: Duration) -> Duration {
        let tries = self.at_home.tries((account, client)).map(|(at, ())| at);
        self.limits.known.wait(self.limits.window, tries, now)
    }

    /// The longest of three: who waits so long is past all of them.
    fn wait_as_stranger(&self, account: AccountKey, client: ClientKey, now: Duration) -> Duration {
        let ThrottleLimits { window, account: of_account, source, client: of_client, .. } = self.limits;
        let guesses = || self.accounts.tries(account);
        let here = guesses().filter(|(_, by)| *by == client).map(|(at, _)| at);
        let of_account = of_account.wait(window, guesses().map(|(at, _)| at), now);
        let of_client = of_client.wait(window, self.clients.tries(client).map(|(at, ())| at), now);
        of_account.max(source.wait(window, here, now)).max(of_client)
    }

    /// The try was none.
    pub(super) fn take_back(&mut self, made: &Try) {
        if made.known {
            self.at_home.take_back((made.account, made.client), made.at, ());
        } else {
            self.accounts.take_back(made.account, made.at, made.client);
            self.clients.take_back(made.client, made.at, ());
            if let Some(strangers) = &mut self.strangers {
                strangers.give_back();
            }
        }
    }

    pub(super) fn vouch(&mut self, account: AccountKey, client: ClientKey, now: Duration) {
        let now = self.moment(now);
        self.known.add(account, client, now);
    }

    pub(super) fn forget(&mut self, account: AccountKey) {
        self.known.remove(account);
    }

    /// Threads read the clock before they take the lock, so one may come a little late; it counts as the latest.
    fn moment(&mut self, now: Duration) -> Duration {
        self.latest = self.latest.max(now);
        self.latest
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.at_home.entries() + self.accounts.entries() + self.clients.entries()
    }
}
