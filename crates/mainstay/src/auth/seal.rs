//! Secrets at rest that must be read again: sealed with AES-256-GCM (NIST SP 800-38D) under keys that HKDF (RFC 5869) makes from a secret of the service.
//!
//! Promises: what was sealed for one account and purpose opens for no other; a changed bit does not open; a text says which key it needs, so that secrets can be exchanged:
//! the first one seals, all of them open. A text looks like `s1.<key>.<nonce, content and tag>`; `s1` is the version of all of this.
//!
//! [`under_token`] is for something else: for what only the bearer of a token may read again, and nobody who holds the database.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, Salt};
use ring::rand::SecureRandom;
use secrecy::{ExposeSecret, SecretSlice};
use uuid::Uuid;

use super::random;
use super::secret::Secret;
use crate::error::{Error, Result, codes};

/// What is sealed here are keys and tokens; this is far more than any of them.
const CONTENT_BYTES_MAX: usize = 4096;
const VERSION: &str = "s1";
/// As for every secret of the service: 256 bits.
const SECRET_BYTES_MIN: usize = 32;

/// Seals and opens.
pub struct Sealer {
    /// The first one seals.
    keys: Vec<Key>,
}

struct Key {
    /// Eight hexadecimal digits, derived as the key is, so nobody has to name it.
    id: String,
    key: LessSafeKey,
}

/// A text that does not open: of another key, account or purpose, changed, or none at all. Which of these is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unopened;

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sealed text does not open with the keys of this service")
    }
}

impl std::error::Error for Unopened {}

impl Sealer {
    /// Seals under the first secret and opens what was sealed under any of them.
    ///
    /// # Errors
    /// When there is none, or one has fewer than 32 bytes.
    pub fn new(secrets: &[SecretSlice<u8>]) -> Result<Self> {
        if secrets.is_empty() || secrets.iter().any(|secret| secret.expose_secret().len() < SECRET_BYTES_MIN) {
            return Err(internal("a secret to seal under has at least 32 bytes"));
        }
        let keys = secrets.iter().map(|secret| Key::derive(secret.expose_secret())).collect::<Result<_>>()?;
        Ok(Self { keys })
    }

    /// Seals a content of at most 4,096 bytes for a purpose (`totp`) and an account.
    ///
    /// # Errors
    /// When the content is longer, or the source has no randomness to give.
    pub fn seal(&self, purpose: &str, account: Uuid, content: &[u8], random: &dyn SecureRandom) -> Result<String> {
        let key = self.keys.first().ok_or_else(|| internal("no key"))?;
        // Random nonces: after 2^32 texts under one key the chance that one came twice is 2^-33 (SP 800-38D, 8.3 stops there); that is a text for every second person alive.
        let nonce: [u8; NONCE_LEN] = random::bytes(random)?;
        let mut sealed = nonce.to_vec();
        sealed.extend(encrypt(&key.key, nonce, &bound_to(purpose, account), content)?);
        Ok(format!("{VERSION}.{}.{}", key.id, URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Opens what was sealed for this purpose and account.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(&self, purpose: &str, account: Uuid, text: &str) -> Result<SecretSlice<u8>, Unopened> {
        let (id, sealed) =
            text.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix('.')).and_then(|rest| rest.split_once('.')).ok_or(Unopened)?;
        let key = self.keys.iter().find(|key| key.id == id).ok_or(Unopened)?;
        let sealed = decode(sealed)?;
        let (nonce, content) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Unopened)?;
        decrypt(&key.key, *nonce, &bound_to(purpose, account), content)
    }

    /// Is there the secret that the text was sealed under? Whether it opens is for [`Sealer::open`] to say.
    pub fn knows(&self, text: &str) -> bool {
        self.keys.iter().any(|key| text.starts_with(&format!("{VERSION}.{}.", key.id)))
    }

    /// Was the text sealed under another secret than the first? Then sealing it anew brings the old one nearer to its end.
    pub fn is_outdated(&self, text: &str) -> bool {
        let current = self.keys.first().map(|key| format!("{VERSION}.{}.", key.id));
        !current.is_some_and(|current| text.starts_with(&current))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Key {
    fn derive(secret: &[u8]) -> Result<Self> {
        let id: [u8; 4] = derive(secret, b"mainstay seal 1: id")?;
        Ok(Self { id: format!("{:08x}", u32::from_be_bytes(id)), key: aead_key(secret, b"mainstay seal 1: key")? })
    }
}

/// Seals a content under a token, for whoever brings the token again; the service keeps of it only a hash.
///
/// The key comes from the token's 256 random bits and seals **one** text: with a key of its own each text has a nonce of its own, also if that is always zero (SP 800-38D, 8.2, asks
/// that no key meets a nonce twice). So a caller that seals a second time under one token, because a transaction was tried again, lets only one of the two texts be stored: both together
/// would tell the difference of their contents. A password is no token: it has no such bits, and the types keep it out.
///
/// # Errors
/// When the content has more than 4,096 bytes.
pub fn under_token(token: &Secret, content: &[u8]) -> Result<String> {
    let sealed = encrypt(&aead_key(token.bytes(), UNDER_TOKEN)?, [0; NONCE_LEN], &[], content)?;
    Ok(format!("t1.{}", URL_SAFE_NO_PAD.encode(sealed)))
}

/// Opens what [`under_token`] sealed.
///
/// # Errors
/// [`Unopened`].
pub fn open_with_token(token: &Secret, text: &str) -> Result<SecretSlice<u8>, Unopened> {
    let sealed = decode(text.strip_prefix("t1.").ok_or(Unopened)?)?;
    let key = aead_key(token.bytes(), UNDER_TOKEN).map_err(|_| Unopened)?;
    decrypt(&key, [0; NONCE_LEN], &[], &sealed)
}

const UNDER_TOKEN: &[u8] = b"mainstay seal 1: under a token";

/// What a text is bound to. The account has a fixed length, so no purpose runs into it.
fn bound_to(purpose: &str, account: Uuid) -> Vec<u8> {
    [account.as_bytes(), purpose.as_bytes()].concat()
}

fn decode(text: &str) -> Result<Vec<u8>, Unopened> {
    // Base64 has four letters for three bytes; the nonce and the tag are 28 bytes.
    if text.len() > (CONTENT_BYTES_MAX + 28).div_ceil(3) * 4 {
        return Err(Unopened);
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Unopened)
}

fn encrypt(key: &LessSafeKey, nonce: [u8; NONCE_LEN], bound_to: &[u8], content: &[u8]) -> Result<Vec<u8>> {
    if content.len() > CONTENT_BYTES_MAX {
        return Err(internal("too much to seal"));
    }
    let mut sealed = content.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound_to), &mut sealed).map_err(|_| internal("sealing failed"))?;
    Ok(sealed)
}

fn decrypt(key: &LessSafeKey, nonce: [u8; NONCE_LEN], bound_to: &[u8], sealed: &[u8]) -> Result<SecretSlice<u8>, Unopened> {
    let mut content = sealed.to_vec();
    let length = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(bound_to), &mut content).map_err(|_| Unopened)?.len();
    content.truncate(length);
    Ok(SecretSlice::from(content))
}

fn aead_key(secret: &[u8], info: &[u8]) -> Result<LessSafeKey> {
    let key: [u8; 32] = derive(secret, info)?;
    UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new).map_err(|_| internal("no key of 32 bytes"))
}

/// HKDF with SHA-256. Without a salt: the secrets are random already, and `info` tells what is made of them apart.
fn derive<const N: usize>(secret: &[u8], info: &[u8]) -> Result<[u8; N]> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut made = [0; N];
    let extracted = Salt::new(HKDF_SHA256, &[]).extract(secret);
    let filled = extracted.expand(&[info], Length(N)).and_then(|expanded| expanded.fill(&mut made));
    filled.map_err(|_| internal("HKDF gives at most 8,160 bytes"))?;
    Ok(made)
}

fn internal(cause: &'static str) -> Error {
    Error::new(&codes::INTERNAL).caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::secret::Kind;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    fn secret(byte: u8) -> SecretSlice<u8> {
        SecretSlice::from(vec![byte; 32])
    }

    fn sealer(bytes: &[u8]) -> Sealer {
        Sealer::new(&bytes.iter().map(|byte| secret(*byte)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_its_account_and_purpose_only() {
        let (sealer, account, random) = (sealer(&[1]), Uuid::new_v4(), SystemRandom::new());
        let text = sealer.seal("totp", account, b"content", &random).unwrap();
        assert_eq!(sealer.open("totp", account, &text).unwrap().expose_secret(), b"content");
        assert!(sealer.open("totp", Uuid::new_v4(), &text).is_err());
        assert!(sealer.open("mail", account, &text).is_err());
        assert_ne!(sealer.seal("totp", account, b"content", &random).unwrap(), text, "no nonce twice");
        assert!(sealer.seal("totp", account, &[0; CONTENT_BYTES_MAX + 1], &random).is_err());
        let long = sealer.seal("totp", account, &[7; CONTENT_BYTES_MAX], &random).unwrap();
        assert_eq!(sealer.open("totp", account, &long).unwrap().expose_secret().len(), CONTENT_BYTES_MAX);
        assert!(sealer.open("totp", account, &format!("{long}AAAA")).is_err());
    }

    #[test]
    fn secrets_are_exchanged_without_losing_what_was_sealed() {
        let (account, random) = (Uuid::new_v4(), SystemRandom::new());
        let old = sealer(&[1]).seal("totp", account, b"content", &random).unwrap();
        let both = sealer(&[2, 1]);
        assert!(both.open("totp", account, &old).is_ok() && both.is_outdated(&old));
        let new = both.seal("totp", account, b"content", &random).unwrap();
        assert!(!both.is_outdated(&new) && sealer(&[2]).open("totp", account, &new).is_ok());
        assert!(sealer(&[2]).open("totp", account, &old).is_err());
        assert!(Sealer::new(&[]).is_err() && Sealer::new(&[SecretSlice::from(vec![1; 31])]).is_err());
        assert!(!format!("{both:?}").contains("key:"), "nothing but ids");
    }

    #[test]
    fn a_text_under_a_token_opens_with_that_token_only() {
        let kind = Kind::new("mrt");
        let (token, other) = (kind.make(&SystemRandom::new()).unwrap(), kind.make(&SystemRandom::new()).unwrap());
        let text = under_token(&token, b"the next token").unwrap();
        assert_eq!(open_with_token(&token, &text).unwrap().expose_secret(), b"the next token");
        assert_eq!(open_with_token(&other, &text).map(drop), Err(Unopened));
        for bad in ["", "t1.", "t1.AAAA", &text[1..], &text[..text.len() - 1], &text.replace("t1", "s1")] {
            assert!(open_with_token(&token, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hkdf_gives_what_rfc_5869_says() {
        // Appendix A.3: test with SHA-256 and zero-length salt and info.
        let made: [u8; 42] = derive(&[0x0b; 22], b"").unwrap();
        let hex: String = made.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    }

    proptest! {
        #[test]
        fn a_changed_text_does_not_open(content in prop::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), bit in 0u8..7) {
            let (sealer, account) = (sealer(&[1]), Uuid::from_u128(7));
            let text = sealer.seal("totp", account, &content, &SystemRandom::new()).unwrap();
            let mut bytes = text.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(bent) = String::from_utf8(bytes) {
                prop_assert!(sealer.open("totp", account, &bent).is_err());
            }
            let opened = sealer.open("totp", account, &text).unwrap();
            prop_assert_eq!(opened.expose_secret(), content.as_slice());
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}", near in r"s1\.[0-9a-f]{8}\.[A-Za-z0-9_-]{0,60}") {
            for text in [text, near] {
                prop_assert!(sealer(&[1]).open("totp", Uuid::nil(), &text).is_err());
            }
        }
    }
}
