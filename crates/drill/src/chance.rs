//! Numbers that look like chance and are the same each time.

/// A sequence of them (SplitMix64: Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    #[allow(clippy::cast_precision_loss)] // 53 bits.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `end`.
    #[allow(clippy::cast_possible_truncation)] // Below a number of this type.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// A time whose mean is 1, as lies between two who come independently of each other.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.fraction()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_and_the_spread_of_chance() {
        let mut chance = Chance(7);
        let gaps: Vec<f64> = (0..100_000).map(|_| chance.exponential()).collect();
        let mean = gaps.iter().sum::<f64>() / 1e5;
        let spread = gaps.iter().map(|gap| (gap - mean) * (gap - mean)).sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.02 && (spread - 1.0).abs() < 0.05, "{mean} {spread}");
        assert!(gaps.iter().all(|gap| *gap >= 0.0));
    }
}
