//! E-mail addresses and names. What is taken stays the same when it is read again, and two spellings of one address are one account.

use mainstay_app::users::{Email, PersonName};

use crate::input::text;

pub(crate) fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(email) = Email::parse(text) {
        let again = Email::parse(email.given()).unwrap();
        assert!(again == email, "read again it is another address: {text:?}");
        assert!(email.given().len() <= 254, "{text:?}");
        assert!(!email.given().chars().any(|c| c.is_control() || c.is_whitespace() || "<>()[]\\,;:\"".contains(c)), "{text:?}");
        assert_eq!(email.given().matches('@').count(), 1, "{text:?}");
        for other in [text.to_ascii_uppercase(), text.to_ascii_lowercase()] {
            // A letter and a mark may be one character in one case only, and a mark of its own is none of an address.
            let Ok(other) = Email::parse(&other) else { return assert!(!text.is_ascii(), "it is none in the other case: {text:?}") };
            assert_eq!(other.folded(), email.folded(), "the case of a letter makes another account: {text:?}");
        }
    }
    if let Ok(name) = PersonName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!((1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control), "{text:?}");
    }
}
