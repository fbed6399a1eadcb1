//! Two processes on one SQLite database, while one takes over from the other: nobody tells either of what the other changes.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Memory, News, Told};

impl Told {
    /// All changes are made by this process, again.
    pub(crate) fn alone(&self) {
        self.until_us.store(u64::MAX, Ordering::Release);
    }
}

impl News {
    /// On SQLite: another process works on the same database for a while, the one before this or the one after. What is remembered is believed for as short as
    /// when nothing is told, because nothing is.
    pub fn accompanied(&self) {
        let now = Instant::now();
        self.0.accompanied.store(true, Ordering::Release);
        self.untold(|memory| memory.lost(now));
    }

    /// On SQLite: the other process has ended.
    pub fn alone_again(&self) {
        self.0.accompanied.store(false, Ordering::Release);
        self.untold(|memory| {
            memory.forget_all();
            memory.alone();
        });
    }

    /// Are there memories in another process that nobody tells anything?
    pub(crate) fn leaves_others_untold(&self) -> bool {
        self.0.listening.get().is_none() && self.0.accompanied.load(Ordering::Acquire)
    }

    /// To every memory that nobody tells anything, because there is nobody to listen to.
    fn untold(&self, act: impl Fn(&dyn Memory)) {
        if self.0.listening.get().is_none() {
            self.0.early.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|follower| act(&*follower.memory));
        }
    }
}
