//! What the service has acknowledged, to be compared with the database afterwards.

/// The writes of all writers.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Numbers of products that were created, as the service said.
    pub(super) created: Vec<u64>,
    /// Of those of which no answer said whether they were.
    pub(super) unknown: Vec<u64>,
    /// One product of each writer, which he alone changes.
    pub(super) counters: Vec<Counter>,
}

/// A product whose version counts its changes.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    /// Its path.
    pub(super) path: String,
    /// Changes that were acknowledged.
    pub(super) changed: u64,
    /// Changes without an answer that said whether they were made.
    pub(super) unknown: u64,
}

impl Counter {
    /// Can its version be this one? It was created with the first.
    pub(super) fn allows(&self, version: u64) -> bool {
        (1 + self.changed..=1 + self.changed + self.unknown).contains(&version)
    }
}

/// The number of a product's article.
pub(super) fn sku(number: u64) -> String {
    format!("soak-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_counts_what_was_acknowledged_and_perhaps_what_was_not_answered() {
        let counter = Counter { path: String::new(), changed: 3, unknown: 2 };
        assert_eq!((0..9).filter(|version| counter.allows(*version)).collect::<Vec<_>>(), [4, 5, 6]);
    }
}
