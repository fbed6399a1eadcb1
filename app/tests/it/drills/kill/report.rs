//! What a drill of `kill -9` has seen.

use std::fmt;
use std::time::Duration;

/// What became of requests.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Fates {
    /// The answer was received.
    pub(crate) answered: u64,
    /// The answer was lost, and it was done.
    pub(crate) lost_done: u64,
    /// The answer was lost, and nothing was done.
    pub(crate) lost_undone: u64,
}

impl Fates {
    /// A request whose answer was lost.
    pub(crate) fn lose(&mut self, done: bool) {
        *(if done { &mut self.lost_done } else { &mut self.lost_undone }) += 1;
    }
}

impl fmt::Display for Fates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered, {} lost though done, {} lost and not done", self.answered, self.lost_done, self.lost_undone)
    }
}

/// The figures. Whatever must never be is a panic, so here are only the figures that may be anything.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) kills: u32,
    /// How long a registration takes when nothing else goes on.
    pub(crate) calm: Duration,
    pub(crate) registrations: Fates,
    pub(crate) refreshes: Fates,
    pub(crate) resets: Fates,
    /// Causes of mails whose transaction was committed, and those whose transaction was not.
    pub(crate) committed: u64,
    pub(crate) rolled_back: u64,
    /// Mails found, each of a job of its own.
    pub(crate) mails: usize,
    pub(crate) restarts: Vec<Duration>,
    pub(crate) took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut restarts = self.restarts.clone();
        restarts.sort_unstable();
        let restart = restarts.get(restarts.len() / 2).copied().unwrap_or_default();
        writeln!(f, "{} kills in {:.0?}; a calm registration took {:.1?}, a restart {restart:.1?}", self.kills, self.took, self.calm)?;
        writeln!(f, "  registrations  {}", self.registrations)?;
        writeln!(f, "  refreshes      {}", self.refreshes)?;
        writeln!(f, "  resets         {}", self.resets)?;
        write!(f, "  mails          {} found; {} causes committed, {} not", self.mails, self.committed, self.rolled_back)
    }
}
