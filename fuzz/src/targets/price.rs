//! Prices and currencies: the same as a model that counts digits, and one spelling each.

use mainstay_app::products::currency::is_currency;
use mainstay_app::products::price::Price;

use crate::input::text;

pub(crate) fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    assert_eq!(Price::parse(text).map(Price::e4), model(text), "{text:?}");
    if let Some(price) = Price::parse(text) {
        let shown = price.to_string();
        assert_eq!(Price::parse(&shown), Some(price), "{text:?} is shown as {shown:?}");
        let json = serde_json::to_string(&price).unwrap();
        assert_eq!(serde_json::from_str::<Price>(&json).unwrap(), price);
        assert!(shown.len() <= 17 && shown.split_once('.').is_some_and(|(_, decimals)| (2..=4).contains(&decimals.len())), "{shown}");
    }
    // As a number in JSON it is what its digits say, or it is refused.
    if let Ok(price) = serde_json::from_str::<Price>(text) {
        assert!((0..10_000_000_000_000_000).contains(&price.e4()), "{text:?}");
        if let Some(written) = model(text.trim()) {
            let digits = text.trim().bytes().filter(u8::is_ascii_digit).count();
            assert!(digits > 15 || price.e4() == written, "{text:?} became {price}");
        }
    }
    if is_currency(text) {
        assert!(text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()), "{text:?}");
    }
}

/// Ten-thousandths, digit by digit.
fn model(text: &str) -> Option<i64> {
    let mut parts = text.split('.');
    let (whole, decimals, None) = (parts.next()?, parts.next(), parts.next()) else { return None };
    let digits = |part: &str, most| {
        (!part.is_empty() && part.chars().count() <= most).then(|| part.chars().map(|c| c.to_digit(10)).collect::<Option<Vec<_>>>())?
    };
    let mut sum = 0;
    for digit in digits(whole, 12)? {
        sum = sum * 10 + i64::from(digit);
    }
    let mut decimals = decimals.map_or(Some(Vec::new()), |decimals| digits(decimals, 4))?;
    decimals.resize(4, 0);
    Some(decimals.into_iter().fold(sum, |sum, digit| sum * 10 + i64::from(digit)))
}
