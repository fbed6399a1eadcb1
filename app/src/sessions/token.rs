//! Refresh tokens: how they are made, written, recognised and sealed. Nothing here knows the database or the time.
//!
//! A token is `mrt_` and 32 random bytes. The first half is the same in all tokens of a session, the family: by its hash a session recognises its
//! tokens, also those whose own row is gone. The second half is new in every token, 128 bits that nobody guesses. Only hashes are stored; a fast hash is
//! right for what cannot be guessed.
//!
//! The successor of a used token is stored sealed under a key that is derived from the used token, so a client that lost the answer gets the same successor
//! again, and nobody who reads the database gets any: there is no key of the server's that could leak.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mainstay::error::{Error, Result, codes};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::SecureRandom;
use ring::{digest, hkdf};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use uuid::Uuid;

/// Tells scanners of leaked secrets, and people, what it is.
const PREFIX: &str = "mrt_";
const HALF: usize = 16;
const BYTES: usize = 2 * HALF;
/// 32 bytes in base64url without padding.
const TEXT_CHARS: usize = 43;

/// A refresh token. It does not print.
pub struct RefreshToken(SecretBox<[u8; BYTES]>);

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

impl RefreshToken {
    /// The first token of a new family.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(super) fn first(random: &dyn SecureRandom) -> Result<Self> {
        let mut bytes = [0; BYTES];
        random.fill(&mut bytes).map_err(|_| no_randomness())?;
        Ok(Self(SecretBox::new(Box::new(bytes))))
    }

    /// Another token of this family.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(super) fn next(&self, random: &dyn SecureRandom) -> Result<Self> {
        let mut bytes = *self.0.expose_secret();
        // 16 of 32 are always there.
        let (_, own) = bytes.split_at_mut(HALF);
        random.fill(own).map_err(|_| no_randomness())?;
        Ok(Self(SecretBox::new(Box::new(bytes))))
    }

    /// The token of a text, if it has the form of one. A token has one spelling only.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(PREFIX).filter(|text| text.len() == TEXT_CHARS)?;
        let bytes: [u8; BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        Some(Self(SecretBox::new(Box::new(bytes))))
    }

    /// As the client gets it.
    pub fn text(&self) -> SecretString {
        let mut text = PREFIX.to_owned();
        URL_SAFE_NO_PAD.encode_string(self.0.expose_secret(), &mut text);
        SecretString::from(text)
    }

    /// By which the token is stored.
    pub(super) fn hash(&self) -> String {
        hex(digest::digest(&digest::SHA256, self.0.expose_secret()).as_ref())
    }

    /// By which the session is found.
    pub(super) fn family(&self) -> String {
        // 16 of 32 are always there.
        let (family, _) = self.0.expose_secret().split_at(HALF);
        hex(digest::digest(&digest::SHA256, family).as_ref())
    }

    /// The successor in a form that only whoever has this token can open, bound to the session.
    ///
    /// # Errors
    /// Never in practice: `ring` fails only for inputs of gigabytes.
    pub(super) fn seal(&self, successor: &Self, session: Uuid) -> Result<String> {
        let mut sealed = successor.0.expose_secret().to_vec();
        self.key(session)?.seal_in_place_append_tag(nonce(), Aad::from(session.as_bytes()), &mut sealed).map_err(|_| broken("sealed"))?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// What [`RefreshToken::seal`] sealed.
    ///
    /// # Errors
    /// When it was sealed under another token, for another session, or altered.
    pub(super) fn open(&self, sealed: &str, session: Uuid) -> Result<Self> {
        let mut sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| broken("opened"))?;
        let opened = self.key(session)?.open_in_place(nonce(), Aad::from(session.as_bytes()), &mut sealed).map_err(|_| broken("opened"))?;
        let bytes: [u8; BYTES] = (&*opened).try_into().map_err(|_| broken("opened"))?;
        Ok(Self(SecretBox::new(Box::new(bytes))))
    }

    /// HKDF (RFC 5869): the token is 256 bits of which at least 128 are known to nobody else.
    fn key(&self, session: Uuid) -> Result<LessSafeKey> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, session.as_bytes()).extract(self.0.expose_secret());
        let key = secret.expand(&[b"mainstay refresh token successor"], &CHACHA20_POLY1305).map_err(|_| broken("derived"))?;
        Ok(LessSafeKey::new(UnboundKey::from(key)))
    }
}

/// A token is used once, so its key seals once, and a nonce that never changes is never repeated (RFC 8439, 2.8). A rotation that was rolled back has sealed
/// too: its successor was random, was given to nobody and opens nothing.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn no_randomness() -> Error {
    Error::new(&codes::INTERNAL).caused_by("the system has no randomness to give")
}

fn broken(what: &str) -> Error {
    Error::new(&codes::INTERNAL).caused_by(format!("the successor of a refresh token cannot be {what}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    fn text(token: &RefreshToken) -> String {
        token.text().expose_secret().to_owned()
    }

    #[test]
    fn a_token_is_recognised_with_its_family_and_never_printed() {
        let first = RefreshToken::first(&SystemRandom::new()).unwrap();
        let second = first.next(&SystemRandom::new()).unwrap();
        assert_eq!((first.family(), text(&first).len()), (second.family(), 47));
        assert_ne!(first.hash(), second.hash());
        assert_ne!(first.family(), RefreshToken::first(&SystemRandom::new()).unwrap().family());
        assert_eq!(RefreshToken::parse(&text(&second)).unwrap().hash(), second.hash());
        assert_eq!(format!("{second:?}"), "RefreshToken(..)");
    }

    #[test]
    fn a_token_has_one_spelling() {
        let token = text(&RefreshToken::first(&SystemRandom::new()).unwrap());
        let last = token.chars().last().unwrap();
        // The last letter holds four bits; another letter with the same four would be a second spelling.
        let twins = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).filter(|letter| *letter != last);
        let same = RefreshToken::parse(&token).unwrap().hash();
        for twin in twins {
            let bent = format!("{}{twin}", &token[..46]);
            assert!(RefreshToken::parse(&bent).is_none_or(|bent| bent.hash() != same), "{twin}");
        }
        for bent in [
            format!("{token}="),
            format!("{token}A"),
            format!(" {token}"),
            token.replacen("mrt", "MRT", 1),
            token[..46].to_owned(),
            token[4..].to_owned(),
        ] {
            assert!(RefreshToken::parse(&bent).is_none(), "{bent}");
        }
    }

    #[test]
    fn only_the_predecessor_opens_the_successor_and_only_for_its_session() {
        let random = SystemRandom::new();
        let (first, session) = (RefreshToken::first(&random).unwrap(), Uuid::new_v4());
        let second = first.next(&random).unwrap();
        let sealed = first.seal(&second, session).unwrap();
        assert_eq!(first.open(&sealed, session).unwrap().hash(), second.hash());
        for other in [first.next(&random).unwrap(), second] {
            assert!(other.open(&sealed, session).is_err(), "a token of the same family is not enough");
        }
        assert!(first.open(&sealed, Uuid::new_v4()).is_err());
        for at in 0..sealed.len() {
            let mut bent = sealed.clone().into_bytes();
            bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
            assert!(first.open(std::str::from_utf8(&bent).unwrap(), session).is_err(), "letter {at}");
            assert!(first.open(&sealed[..at], session).is_err(), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}", tail in "[A-Za-z0-9_-]{40,46}") {
            drop(RefreshToken::parse(&text));
            if let Some(token) = RefreshToken::parse(&format!("mrt_{tail}")) {
                let written = token.text();
                prop_assert_eq!(written.expose_secret(), format!("mrt_{tail}"));
                drop(token.open(&text, Uuid::nil()));
            }
        }
    }
}
