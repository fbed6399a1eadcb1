//! An amount of money, exact: ten-thousandths in an integer, never a floating-point number.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Twelve digits before the point are more than any price, and leave room in 64 bits for the four behind it.
const WHOLE_DIGITS_MAX: usize = 12;
/// ISO 4217 knows no currency with more (CLF and UYW have four).
const DECIMALS_MAX: usize = 4;

/// A price of zero or more, in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(i64);

impl Price {
    /// Reads `12`, `12.5`, `12.65`, `0.0001`.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole, WHOLE_DIGITS_MAX) || !digits(decimals, DECIMALS_MAX) {
            return None;
        }
        // At most sixteen digits fit in 64 bits.
        format!("{whole}{decimals:0<4}").parse().ok().map(Self)
    }

    /// From ten-thousandths, as the database keeps it.
    pub fn from_e4(e4: i64) -> Self {
        Self(e4)
    }

    /// In ten-thousandths.
    pub fn e4(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Price {
    /// At least two decimals, and no zeros behind them: `5.50`, `12.65`, `0.0001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / 10_000, format!("{:04}", self.0 % 10_000));
        let kept = decimals.trim_end_matches('0');
        write!(f, "{whole}.{kept:0<2}")
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Price {
    /// From a string, or from a JSON number taken by its shortest digits.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(serde_json::Number),
        }
        let wrong =
            || serde::de::Error::custom("must be a decimal such as \"12.65\", not negative, with at most 12 digits before the point and 4 behind it");
        let text = match Written::deserialize(deserializer).map_err(|_: D::Error| wrong())? {
            Written::Text(text) => text,
            Written::Number(number) => number.to_string(),
        };
        Self::parse(&text).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prices_are_exact_and_have_one_form() {
        for (given, shown) in [
            ("12.65", "12.65"),
            ("5.5", "5.50"),
            ("5", "5.00"),
            ("0.0001", "0.0001"),
            ("0012.3450", "12.345"),
            ("999999999999.9999", "999999999999.9999"),
        ] {
            assert_eq!(Price::parse(given).unwrap().to_string(), shown);
        }
        for wrong in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "1.23456", "1000000000000", " 1", "NaN", "0x1", "\u{661}"] {
            assert_eq!(Price::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_is_taken_by_its_digits() {
        let read = |text| serde_json::from_str::<Price>(text).map(|price| price.to_string()).ok();
        assert_eq!(read("12.65").as_deref(), Some("12.65"));
        assert_eq!(read("0.1").as_deref(), Some("0.10"));
        assert_eq!(read("\"1.00\"").as_deref(), Some("1.00"));
        for wrong in ["-1", "1e308", "9223372036854775808", "true", "null", "{}", "[1]"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_price_survives_being_written(e4 in 0i64..10_000_000_000_000_000) {
            let price = Price::from_e4(e4);
            prop_assert_eq!(Price::parse(&price.to_string()), Some(price));
        }
    }
}
