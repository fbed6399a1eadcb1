//! Recovery codes: what is left to somebody whose authenticator is lost. Ten of them, each good once.
//!
//! Promises: 80 random bits in letters that are read and typed without mistakes; what is stored cannot be turned back.
//!
//! A fast hash is enough: whoever has the database must try 2^80 codes for one, which at 10^12 a second takes 38,000 years; the account goes into the hash, so one try is a
//! try at one account. With 60 bits it would be two weeks. Slow hashes are for what people think up.

use std::fmt;

use ring::rand::SecureRandom;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{random, secret};
use crate::error::Result;

/// As many as fit on a slip of paper and outlast a few lost telephones.
const CODES: usize = 10;
/// Crockford's Base32, in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Five bits each.
const LETTERS: usize = 16;
/// Letters of a group, with hyphens between groups.
const GROUP: usize = 4;

/// A recovery code.
pub struct RecoveryCode(SecretString);

impl RecoveryCode {
    /// Ten new ones.
    ///
    /// # Errors
    /// When the source has no randomness to give.
    pub fn make_all(random: &dyn SecureRandom) -> Result<Vec<Self>> {
        (0..CODES).map(|_| Ok(Self(SecretString::from(random::letters(random, ALPHABET, LETTERS)?)))).collect()
    }

    /// Reads what was typed: letters of any case, with spaces and hyphens anywhere; what Crockford's alphabet leaves out stands for what it looks like. None for what is no code.
    pub fn parse(typed: &str) -> Option<Self> {
        // Twice as many separators as there are letters: more is no slip of the hand.
        if typed.len() > LETTERS * 3 {
            return None;
        }
        let read = |c: char| match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        };
        let code: String = typed.chars().filter(|c| !c.is_whitespace() && *c != '-').map(read).collect();
        let right = code.len() == LETTERS && code.bytes().all(|byte| ALPHABET.contains(&byte));
        right.then(|| Self(SecretString::from(code)))
    }

    /// The code as its owner gets it, once: `7k2m-9xqd-w0re-4c8t`.
    pub fn text(&self) -> SecretString {
        let code = self.0.expose_secret().as_bytes();
        let groups: Vec<_> = code.chunks(GROUP).map(String::from_utf8_lossy).collect();
        SecretString::from(groups.join("-"))
    }

    /// What is stored for an account: SHA-256 in 64 hexadecimal digits.
    pub fn stored(&self, account: Uuid) -> String {
        secret::hashed(&format!("mainstay recovery code 1 {account} {}", self.0.expose_secret()))
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use std::collections::HashSet;

    #[test]
    fn ten_different_ones_are_read_back_as_they_were_shown() {
        let account = Uuid::new_v4();
        let codes = RecoveryCode::make_all(&SystemRandom::new()).unwrap();
        let stored: HashSet<_> = codes.iter().map(|code| code.stored(account)).collect();
        assert_eq!((codes.len(), stored.len()), (10, 10));
        for code in &codes {
            let text = code.text();
            let text = text.expose_secret();
            assert_eq!((text.len(), text.split('-').map(str::len).collect::<Vec<_>>()), (19, vec![4; 4]));
            assert!(stored.contains(&RecoveryCode::parse(text).unwrap().stored(account)));
            assert!(!stored.contains(&RecoveryCode::parse(text).unwrap().stored(Uuid::new_v4())), "another account's hash is another one");
        }
        assert_eq!(format!("{:?}", codes[0]), "RecoveryCode(..)");
    }

    #[test]
    fn case_separators_and_lookalikes_do_not_matter() {
        let account = Uuid::nil();
        let code = RecoveryCode::parse("70km-91qd-w0re-4c8t").unwrap().stored(account);
        for typed in ["70KM91QDW0RE4C8T", " 70km 91qd w0re 4c8t\n", "7OKM-9lqd-wore-4C8T", "7-0-k-m-9-I-q-d-w-0-r-e-4-c-8-t"] {
            assert_eq!(RecoveryCode::parse(typed).unwrap().stored(account), code, "{typed}");
        }
        for bad in [
            "",
            "70km-91qd-w0re-4c8",
            "70km-91qd-w0re-4c8tt",
            "70km-91qd-w0re-4c8u",
            "70km-91qd-w0re-4c8\u{e9}",
            "70km_91qd_w0re_4c8t",
            &"0".repeat(1_000_000),
        ] {
            assert!(RecoveryCode::parse(bad).is_none(), "{bad:.40}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_read_is_shown_in_one_way(typed in any::<String>(), near in "[0-9a-zA-Z -]{10,30}") {
            for typed in [typed, near] {
                if let Some(code) = RecoveryCode::parse(&typed) {
                    let again = RecoveryCode::parse(code.text().expose_secret()).unwrap();
                    prop_assert_eq!(again.stored(Uuid::nil()), code.stored(Uuid::nil()));
                }
            }
        }
    }
}
