//! Whose turn it is when not everybody's can be.

/// Classes of requests, the first of them the last to be refused.
pub(super) const RANKS: usize = 4;

/// The part of the limit that each class may fill. The rest is for those before it: a class that fills its part leaves others their places, and has it to
/// itself when they are not there, since the limit is learnt from what is really used.
const SHARES_PERCENT: [usize; RANKS] = [100, 90, 80, 60];

/// After so many refusals in a row of its class a request counts as one of the first: nobody is shut out for ever, and one in twenty is no flood.
const PATIENCE: u32 = 20;

/// A class of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u8);

impl Rank {
    /// Before any other.
    pub(super) const FIRST: Self = Self(0);
    /// After all others.
    pub(super) const LAST: Self = Self(RANKS as u8 - 1);

    /// Who is signed in comes before strangers, and among the same people a cheap request before a dear one.
    pub(super) fn new(signed_in: bool, dear: bool) -> Self {
        Self(u8::from(!signed_in) * 2 + u8::from(dear))
    }

    /// All of them, the first first.
    pub(super) fn all() -> [Self; RANKS] {
        [(true, false), (true, true), (false, false), (false, true)].map(|(signed_in, dear)| Self::new(signed_in, dear))
    }

    /// Its number.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// How it is called in the metrics.
    pub(super) fn names() -> [&'static str; RANKS] {
        ["signed_in_cheap", "signed_in_dear", "stranger_cheap", "stranger_dear"]
    }

    /// How many of `places` it may fill: at least one, if there is one.
    pub(super) fn share(self, places: usize) -> usize {
        let share = SHARES_PERCENT.get(self.index()).copied().unwrap_or(100);
        // Places are far below 2^57.
        (places * share).div_ceil(100)
    }
}

/// Refusals in a row, by class.
#[derive(Debug, Default)]
pub(super) struct Patience([u32; RANKS]);

impl Patience {
    /// The class that a request of this one counts as.
    pub(super) fn rank(&self, rank: Rank) -> Rank {
        if self.0[rank.index()] >= PATIENCE { Rank::FIRST } else { rank }
    }

    /// A request of this class found a place, or none.
    pub(super) fn note(&mut self, rank: Rank, admitted: bool) {
        let refused = &mut self.0[rank.index()];
        *refused = if admitted { 0 } else { refused.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_come_before_strangers_and_cheap_before_dear() {
        let ranks = Rank::all();
        assert!(ranks.is_sorted() && ranks[0] == Rank::FIRST && ranks[3] == Rank::LAST);
        assert_eq!(ranks.map(|rank| rank.share(10)), [10, 9, 8, 6]);
        assert_eq!(ranks.map(|rank| rank.share(1)), [1; 4], "a single place is for everybody");
        assert_eq!(ranks.map(|rank| rank.share(0)), [0; 4]);
    }

    #[test]
    fn who_was_refused_twenty_times_in_a_row_counts_as_one_of_the_first_once() {
        let mut patience = Patience::default();
        for _ in 0..20 {
            assert_eq!(patience.rank(Rank::LAST), Rank::LAST);
            patience.note(Rank::LAST, false);
        }
        assert_eq!(patience.rank(Rank::LAST), Rank::FIRST);
        patience.note(Rank::LAST, true);
        assert_eq!(patience.rank(Rank::LAST), Rank::LAST);
    }
}
