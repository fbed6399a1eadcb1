//! Secrets that a program keeps: refresh tokens, the tokens of mailed links, API keys.
//!
//! Promises: 256 random bits, so a guess is hopeless and a fast hash is all that storing needs (a slow one is for what people think up); what is stored cannot be turned
//! back; comparison takes the same time whatever differs; a text of any kind and length is read or refused in bounded time; nothing prints.
//!
//! Two forms:
//! - [`Kind`]: `mrt_` and 43 letters of base64url. The prefix says what it is, to people, to secret scanners, and to us: one kind never passes for another.
//! - [`KeyKind`]: `msk_4fGh71Lp_` and 49 letters. The first eight are the key's name, by which people tell it from others; the last six are a checksum, so that a scanner that finds
//!   such a text in a repository knows that it is a key of this service, and a mistyped one costs no query.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::random;
use crate::error::Result;

/// Bytes of a token.
const BYTES: usize = 32;
/// Base64url of 32 bytes.
const ENCODED: usize = 43;

/// A kind of token, by its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(&'static str);

/// A token.
pub struct Secret {
    kind: Kind,
    bytes: Zeroizing<[u8; BYTES]>,
}

impl Kind {
    /// Tokens that begin with this prefix and an underscore.
    ///
    /// # Panics
    /// At compile time, when the prefix is not made of one to sixteen lower case letters: others could end elsewhere than at the first underscore.
    pub const fn new(prefix: &'static str) -> Self {
        assert_prefix(prefix);
        Self(prefix)
    }

    /// A new token.
    ///
    /// # Errors
    /// When the source has no randomness to give.
    pub fn make(self, random: &dyn SecureRandom) -> Result<Secret> {
        Ok(Secret { kind: self, bytes: Zeroizing::new(random::bytes(random)?) })
    }

    /// Reads a token of this kind. None for every other text.
    pub fn parse(self, text: &str) -> Option<Secret> {
        let encoded = text.strip_prefix(self.0)?.strip_prefix('_')?;
        if encoded.len() != ENCODED {
            return None;
        }
        let mut bytes = Zeroizing::new([0; BYTES]);
        // Strict: one token has one spelling.
        (URL_SAFE_NO_PAD.decode_slice(encoded, bytes.as_mut_slice()) == Ok(BYTES)).then_some(Secret { kind: self, bytes })
    }
}

impl Secret {
    /// The token as the client gets it.
    pub fn text(&self) -> SecretString {
        let mut text = String::with_capacity(self.kind.0.len() + 1 + ENCODED);
        text.push_str(self.kind.0);
        text.push('_');
        URL_SAFE_NO_PAD.encode_string(self.bytes.as_slice(), &mut text);
        SecretString::from(text)
    }

    /// What is stored, and what it is found by: SHA-256 of the text in 64 hexadecimal digits.
    pub fn stored(&self) -> String {
        hashed(self.text().expose_secret())
    }

    /// Is this what was stored?
    pub fn is(&self, stored: &str) -> bool {
        same(&self.stored(), stored)
    }

    /// The random bytes, to derive a key from.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_..", self.kind.0)
    }
}

/// Letters of API keys: a double click takes all of them.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// A name is for people: two keys with the same one are still two, for what is stored of them differs.
const NAME_LETTERS: usize = 8;
/// 43 letters of 62 are 256 bits.
const SECRET_LETTERS: usize = 43;
/// 62 to the sixth is more than a checksum of 32 bits.
const CHECKSUM_LETTERS: usize = 6;

/// A kind of API key, by its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyKind(&'static str);

/// An API key.
pub struct ApiKey {
    text: SecretString,
    name: String,
}

impl KeyKind {
    /// Keys that begin with this prefix and an underscore.
    ///
    /// # Panics
    /// At compile time, when the prefix is not made of one to sixteen lower case letters.
    pub const fn new(prefix: &'static str) -> Self {
        assert_prefix(prefix);
        Self(prefix)
    }

    /// A new key.
    ///
    /// # Errors
    /// When the source has no randomness to give.
    pub fn make(self, random: &dyn SecureRandom) -> Result<ApiKey> {
        let name = random::letters(random, LETTERS, NAME_LETTERS)?;
        let mut text = format!("{}_{name}_{}", self.0, random::letters(random, LETTERS, SECRET_LETTERS)?);
        text.push_str(&checksum(&text));
        Ok(ApiKey { text: SecretString::from(text), name })
    }

    /// Reads a key of this kind. None for every other text, a mistyped key among them.
    pub fn parse(self, text: &str) -> Option<ApiKey> {
        let (name, rest) = text.strip_prefix(self.0)?.strip_prefix('_')?.split_once('_')?;
        let letters = |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !letters(name, NAME_LETTERS) || !letters(rest, SECRET_LETTERS + CHECKSUM_LETTERS) {
            return None;
        }
        let (checked, sum) = text.split_at_checked(text.len() - CHECKSUM_LETTERS)?;
        (checksum(checked) == sum).then(|| ApiKey { text: SecretString::from(text), name: name.to_owned() })
    }

    /// The regular expression that finds such keys, for secret scanners.
    pub fn pattern(self) -> String {
        format!("{}_[0-9A-Za-z]{{{NAME_LETTERS}}}_[0-9A-Za-z]{{{}}}", self.0, SECRET_LETTERS + CHECKSUM_LETTERS)
    }
}

impl ApiKey {
    /// The key as its owner gets it, once.
    pub fn text(&self) -> &SecretString {
        &self.text
    }

    /// The key's name: no secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is stored: SHA-256 of the text in 64 hexadecimal digits.
    pub fn stored(&self) -> String {
        hashed(self.text.expose_secret())
    }

    /// Is this what was stored?
    pub fn is(&self, stored: &str) -> bool {
        same(&self.stored(), stored)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, ..)", self.name)
    }
}

const fn assert_prefix(prefix: &str) {
    let bytes = prefix.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= 16, "a prefix has one to sixteen letters");
    let mut at = 0;
    while at < bytes.len() {
        assert!(bytes[at].is_ascii_lowercase(), "a prefix is made of lower case letters"); // `at` is below the length.
        at += 1;
    }
}

/// SHA-256 in hexadecimal digits.
pub(super) fn hashed(text: &str) -> String {
    use std::fmt::Write;
    digest(&SHA256, text.as_bytes()).as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a text does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Are two texts the same? In a time that depends on their lengths alone.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// CRC-32 (ISO 3309, as in gzip) in six letters, the most significant first.
fn checksum(text: &str) -> String {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    let sum = !text.bytes().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(byte), step));
    let letter = |place| LETTERS.get((sum / 62u32.pow(place) % 62) as usize).copied().map(char::from);
    (0..CHECKSUM_LETTERS as u32).rev().filter_map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use std::collections::HashSet;

    const REFRESH: Kind = Kind::new("mrt");
    const MAILED: Kind = Kind::new("mml");
    const KEY: KeyKind = KeyKind::new("msk");

    #[test]
    fn a_token_is_read_back_and_only_as_its_own_kind() {
        let token = REFRESH.make(&SystemRandom::new()).unwrap();
        let text = token.text();
        let text = text.expose_secret();
        assert_eq!((text.len(), &text[..4]), (47, "mrt_"));
        let read = REFRESH.parse(text).unwrap();
        assert!(read.is(&token.stored()) && read.text().expose_secret() == text);
        assert!(MAILED.parse(text).is_none());
        let other = MAILED.parse(&text.replace("mrt_", "mml_")).unwrap();
        assert!(!other.is(&token.stored()), "the same bytes as another kind are another secret");
        let stored = token.stored();
        assert!(stored.len() == 64 && stored.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        assert!(!token.is("") && !token.is(&stored[..63]) && !token.is(&stored.to_uppercase().replace(|c: char| c.is_ascii_digit(), "x")));
        assert_eq!(format!("{token:?}"), "mrt_..");
    }

    #[test]
    fn a_token_has_one_spelling() {
        let text = "mrt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(REFRESH.parse(text).is_some());
        for bad in [
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "+AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(REFRESH.parse(&format!("mrt_{bad}")).is_none(), "{bad}");
        }
        for bad in ["", "mrt", "mrt_", "mrtx_AAAA", &text[1..], &format!(" {text}"), &format!("{text}A"), &"mrt_A".repeat(100_000)] {
            assert!(REFRESH.parse(bad).is_none());
        }
    }

    #[test]
    fn a_key_is_read_back_by_name_and_secret_and_a_mistyped_one_is_not() {
        let key = KEY.make(&SystemRandom::new()).unwrap();
        let text = key.text().expose_secret();
        assert_eq!(text.len(), 3 + 1 + 8 + 1 + 49);
        let read = KEY.parse(text).unwrap();
        assert!(read.name() == key.name() && read.is(&key.stored()) && text.starts_with(&format!("msk_{}_", key.name())));
        for at in 0..text.len() {
            let bent = format!("{}{}{}", &text[..at], if &text[at..=at] == "a" { "b" } else { "a" }, &text[at + 1..]);
            assert!(KEY.parse(&bent).is_none(), "{at}");
            assert!(KEY.parse(&text[..at]).is_none(), "{at}");
        }
        assert_eq!(KEY.pattern(), "msk_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}");
        assert_eq!(format!("{key:?}"), format!("ApiKey({}, ..)", key.name()));
    }

    #[test]
    fn the_checksum_is_that_of_gzip_in_letters() {
        // crc32("123456789") is cbf43926 in every list of checksums: 3,421,780,262.
        let value =
            checksum("123456789").bytes().fold(0u64, |value, byte| value * 62 + LETTERS.iter().position(|letter| *letter == byte).unwrap() as u64);
        assert_eq!((value, checksum("")), (0xcbf4_3926, "000000".to_owned()));
    }

    #[test]
    fn no_two_are_the_same() {
        let random = SystemRandom::new();
        let tokens: HashSet<_> = (0..1000).map(|_| REFRESH.make(&random).unwrap().stored()).collect();
        let keys: HashSet<_> = (0..1000).map(|_| KEY.make(&random).unwrap().stored()).collect();
        assert_eq!((tokens.len(), keys.len()), (1000, 1000));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}", near in "m[rs][tk]_[0-9A-Za-z_-]{0,60}") {
            for text in [text, near] {
                if let Some(token) = REFRESH.parse(&text) {
                    let written = token.text();
                    prop_assert_eq!(written.expose_secret(), text.as_str());
                }
                let _ = KEY.parse(&text);
            }
        }
    }
}
