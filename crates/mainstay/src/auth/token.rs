//! Access tokens: JWT (RFC 7519) of the profile RFC 9068.
//!
//! The algorithm belongs to the key. Nothing in a token chooses how it is verified: its header is compared, as text, with the headers of our own keys,
//! and one that says anything else, or more, or the same in another spelling, is refused whatever its signature.

mod claims;
mod compact;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use moka::sync::Cache;
use ring::rand::SystemRandom;
use ring::{digest, hmac};
use secrecy::SecretString;
use serde::Serialize;
use uuid::Uuid;

use super::Role;
use super::keys::signature::VerifyingKey;
use super::keys::{JwkSet, Key, Keys, Signs, UNKNOWN_KEY, Verifies, header};
use claims::Said;
use compact::Compact;

/// Tokens whose public-key signature is remembered, about 250 bytes each: those of the callers of the last minutes. One more costs a verification.
const REMEMBERED_MAX: u64 = 20_000;

/// Issues and verifies the access tokens of one issuer.
pub struct Tokens {
    keys: Keys,
    issuer: String,
    audience: String,
    expiry: Duration,
    random: SystemRandom,
    /// What tokens say whose signature was verified, under the SHA-256 of the public key and the whole token.
    ///
    /// Verifying EdDSA or ES256 costs more than everything else that the stack does for a request, and a caller sends the same token until it expires.
    /// Remembering is safe because what is remembered cannot stop to be true: that these bytes are signed by that key, and what they say. Whatever can
    /// change is asked each time: whether the key still verifies, before this is consulted; the times in the token, and the account, after it. Only
    /// what verified is kept, so nobody without a key can push anything out. To take a wrong entry for a token's own is to find a collision of SHA-256.
    remembered: Cache<[u8; digest::SHA256_OUTPUT_LEN], Said>,
}

/// What a verified token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// The account.
    pub subject: Uuid,
    /// The session that the token belongs to.
    pub session: Uuid,
    /// The account's role when the token was issued.
    pub role: Role,
    /// The token's own id.
    pub id: Uuid,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why a token was refused, for the log; the client is told only that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub &'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access token: {}", self.0)
    }
}

impl std::error::Error for Refused {}

#[derive(Serialize)]
struct Wire<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: Uuid,
    sid: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
    role: Role,
}

impl Tokens {
    /// Tokens under these keys.
    pub fn new(keys: Keys, issuer: &str, audience: &str, expiry: Duration) -> Self {
        let remembered = Cache::new(REMEMBERED_MAX);
        Self { keys, issuer: issuer.to_owned(), audience: audience.to_owned(), expiry, random: SystemRandom::new(), remembered }
    }

    /// How long a token lives.
    pub fn expiry(&self) -> Duration {
        self.expiry
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The public keys, for others who verify these tokens.
    pub fn published_keys(&self, now: Timestamp) -> JwkSet {
        self.keys.published(now, self.expiry)
    }

    /// A token for a session of an account.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn issue(&self, subject: Uuid, session: Uuid, role: Role, now: Timestamp) -> SecretString {
        let issued = now.as_second();
        let exp = issued.saturating_add_unsigned(self.expiry.as_secs());
        let (iss, aud) = (&self.issuer, &self.audience);
        let claims = Wire { iss, aud, sub: subject, sid: session, iat: issued, nbf: issued, exp, jti: Uuid::new_v4(), role };
        // Texts and numbers cannot fail to serialise.
        let payload = serde_json::to_vec(&claims).unwrap_or_default();
        let signed = |header: &str| {
            let mut token = String::with_capacity(header.len() + payload.len() * 4 / 3 + 96);
            token.extend([header, "."]);
            URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
            token
        };
        let finished = |mut token: String, signature: &[u8]| {
            token.push('.');
            URL_SAFE_NO_PAD.encode_string(signature, &mut token);
            SecretString::from(token)
        };
        match self.keys.signer(now) {
            Signs::Secret(key) => {
                let token = signed(header::OF_SECRET);
                let signature = hmac::sign(key, token.as_bytes());
                finished(token, signature.as_ref())
            }
            Signs::Key(key) => {
                let token = signed(&key.header);
                let signature = key.sign(token.as_bytes(), &self.random);
                finished(token, signature.as_ref())
            }
        }
    }

    /// The claims of a token that is ours, meant for us and valid now, by the keys that are known. [`Self::verify_with_look`] looks for others.
    ///
    /// # Errors
    /// Everything else.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, Refused> {
        let compact = Compact::split(token)?;
        let said = match self.keys.find(compact.header, now, self.expiry)? {
            Verifies::Secret(key) => self.read(key, &compact)?,
            Verifies::Key(key) => self.remember(&key, token, &compact)?,
        };
        said.judge(now)
    }

    /// The same; but when the token names a key that is not known, the folder of keys is looked at first, unless that was done a moment ago.
    ///
    /// # Errors
    /// Everything else.
    pub async fn verify_with_look(&self, token: &str, now: Timestamp) -> Result<Claims, Refused> {
        let reads = self.keys.reads();
        match self.verify(token, now) {
            Err(UNKNOWN_KEY) if self.keys.look_again(reads, now).await => self.verify(token, now),
            known => known,
        }
    }

    /// The signature first: nothing that we did not write is parsed.
    fn read(&self, key: &VerifyingKey, compact: &Compact<'_>) -> Result<Said, Refused> {
        if !key.verify_signature(compact.signing_input.as_bytes(), compact.signature()?.bytes()) {
            return Err(Refused("wrong signature"));
        }
        Said::read(compact.payload()?.bytes(), &self.issuer, &self.audience)
    }

    fn remember(&self, key: &Key, token: &str, compact: &Compact<'_>) -> Result<Said, Refused> {
        let mut hash = digest::Context::new(&digest::SHA256);
        // The thumbprint has one length, so the two cannot run into each other.
        hash.update(key.thumbprint.as_bytes());
        hash.update(token.as_bytes());
        // SHA-256 has 32 bytes; were it otherwise, nothing would be remembered.
        let Ok(place): Result<[u8; digest::SHA256_OUTPUT_LEN], _> = hash.finish().as_ref().try_into() else {
            return self.read(&key.verifying, compact);
        };
        if let Some(said) = self.remembered.get(&place) {
            return Ok(said);
        }
        let said = self.read(&key.verifying, compact)?;
        self.remembered.insert(place, said);
        Ok(said)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("keys", &self.keys)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof;
