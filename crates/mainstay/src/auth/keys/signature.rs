//! The halves of a key, and what one half says about the other's work. The algorithm is the key's type: no argument, setting or token names one.
//!
//! EdDSA is Ed25519 (RFC 8037, RFC 8032), ES256 is ECDSA on P-256 with SHA-256 and a signature of two whole numbers (RFC 7518, 3.4), HS256 is
//! HMAC with SHA-256 (RFC 7518, 3.2). All of them are ring's.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use ring::{hmac, signature};
use secrecy::{ExposeSecret, SecretSlice};

/// An Ed25519 public key (RFC 8032, 5.1.5).
const EDDSA_PUBLIC_BYTES: usize = 32;
/// A point of P-256, not compressed: 4, then two numbers of 32 bytes (SEC 1, 2.3.3).
const ES256_PUBLIC_BYTES: usize = 65;
/// What stands before the key in a `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7): for one algorithm with one curve always these bytes (RFC 8410, 4).
const EDDSA_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The same for P-256 (RFC 5480, 2).
const ES256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03,
    0x42, 0x00,
];

/// What a key in the folder signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// As a token's header has it (RFC 7518, 3.1; RFC 8037, 3.1).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = &'static str;

    /// In any letter case, as people type it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::EdDsa, Self::Es256].into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text)).ok_or("must be `eddsa` or `es256`")
    }
}

/// The half that verifies. That of HS256 signs as well.
#[derive(Clone)]
pub(in crate::auth) enum VerifyingKey {
    /// The shared secret.
    Hs256(hmac::Key),
    /// The public key.
    EdDsa([u8; EDDSA_PUBLIC_BYTES]),
    /// The public key, not compressed.
    Es256([u8; ES256_PUBLIC_BYTES]),
}

impl VerifyingKey {
    pub(in crate::auth) fn from_secret(secret: &SecretSlice<u8>) -> Self {
        Self::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret()))
    }

    /// The key of a `SubjectPublicKeyInfo`, whose algorithm it says itself.
    pub(super) fn from_spki(der: &[u8]) -> Option<Self> {
        let ed_dsa = der.strip_prefix(EDDSA_SPKI).and_then(|key| key.try_into().ok()).map(Self::EdDsa);
        ed_dsa.or_else(|| der.strip_prefix(ES256_SPKI).and_then(|key| key.try_into().ok()).map(Self::Es256))
    }

    /// The `SubjectPublicKeyInfo`; nothing for a secret, which has no public half.
    pub(super) fn spki(&self) -> Option<Vec<u8>> {
        match self {
            Self::Hs256(_) => None,
            Self::EdDsa(key) => Some([EDDSA_SPKI, key].concat()),
            Self::Es256(key) => Some([ES256_SPKI, key].concat()),
        }
    }

    /// Nothing for the shared secret, which is no key of the folder.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::Hs256(_) => None,
            Self::EdDsa(_) => Some(Algorithm::EdDsa),
            Self::Es256(_) => Some(Algorithm::Es256),
        }
    }

    /// Did whoever holds the other half sign these bytes? A secret is compared in constant time; the others hold nothing secret.
    pub(in crate::auth) fn verify_signature(&self, signing_input: &[u8], signature: &[u8]) -> bool {
        let asymmetric = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(signing_input, signature).is_ok()
        };
        match self {
            Self::Hs256(key) => hmac::verify(key, signing_input, signature).is_ok(),
            Self::EdDsa(key) => asymmetric(&ED25519, key),
            Self::Es256(key) => asymmetric(&ECDSA_P256_SHA256_FIXED, key),
        }
    }
}

/// The half that signs.
pub(in crate::auth) enum SigningKey {
    EdDsa(Ed25519KeyPair),
    Es256(Box<EcdsaKeyPair>),
}

impl SigningKey {
    /// A new private key as PKCS#8.
    pub(super) fn generate(algorithm: Algorithm, random: &dyn SecureRandom) -> Option<SecretSlice<u8>> {
        let pkcs8 = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(random),
            Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random),
        };
        pkcs8.ok().map(|pkcs8| SecretSlice::from(pkcs8.as_ref().to_vec()))
    }

    /// The key of a PKCS#8 document, whose algorithm it says itself. What other programs write is read too: Ed25519 without its public half, as
    /// OpenSSL does it.
    pub(super) fn from_pkcs8(pkcs8: &SecretSlice<u8>) -> Option<Self> {
        let pkcs8 = pkcs8.expose_secret();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8) {
            return Some(Self::EdDsa(pair));
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new());
        pair.ok().map(|pair| Self::Es256(Box::new(pair)))
    }

    /// The other half.
    pub(super) fn verifying(&self) -> Option<VerifyingKey> {
        match self {
            Self::EdDsa(pair) => pair.public_key().as_ref().try_into().ok().map(VerifyingKey::EdDsa),
            Self::Es256(pair) => pair.public_key().as_ref().try_into().ok().map(VerifyingKey::Es256),
        }
    }

    /// Signs.
    ///
    /// # Panics
    /// When the system has no randomness to give to ES256; Ed25519 needs none.
    pub(in crate::auth) fn sign(&self, signing_input: &[u8], random: &SystemRandom) -> signature::Signature {
        match self {
            Self::EdDsa(pair) => pair.sign(signing_input),
            // The id of the token was drawn from the same source just before, and would have failed first.
            Self::Es256(pair) => pair.sign(random, signing_input).expect("the system gives randomness"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    fn decoded(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    fn pair(algorithm: Algorithm) -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate(algorithm, &SystemRandom::new()).unwrap()).unwrap()
    }

    fn verifies(key: &VerifyingKey, jws: &str) -> bool {
        let (signed, signature) = jws.rsplit_once('.').unwrap();
        key.verify_signature(signed.as_bytes(), &decoded(signature))
    }

    #[test]
    fn the_examples_of_the_rfcs_verify() {
        // RFC 8037, A.4.
        let key = VerifyingKey::EdDsa(decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").try_into().unwrap());
        let jws = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert!(verifies(&key, jws) && !verifies(&key, &jws.replace("RXhh", "RXhi")));
        // RFC 7515, A.3.
        let (x, y) = (decoded("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"), decoded("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"));
        let key = VerifyingKey::Es256([vec![4], x, y].concat().try_into().unwrap());
        let jws = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert!(verifies(&key, jws) && !verifies(&key, &jws.replace("eyJpc3M", "eyJpc3N")));
        // RFC 7515, A.1.
        let secret = decoded("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
        let key = VerifyingKey::from_secret(&SecretSlice::from(secret));
        let jws = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(verifies(&key, jws) && !verifies(&key, &jws.replace("eyJpc3M", "eyJpc3N")));
    }

    #[test]
    fn a_public_half_survives_being_written_and_says_its_algorithm() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let pair = pair(algorithm);
            let verifying = pair.verifying().unwrap();
            let again = VerifyingKey::from_spki(&verifying.spki().unwrap()).unwrap();
            assert!(again.verify_signature(b"words", pair.sign(b"words", &SystemRandom::new()).as_ref()), "{algorithm}");
            assert_eq!((again.algorithm(), algorithm.as_str().to_lowercase().parse()), (Some(algorithm), Ok(algorithm)));
        }
        assert!(VerifyingKey::from_secret(&SecretSlice::from(vec![7; 32])).spki().is_none());
    }

    #[test]
    fn no_signature_of_one_kind_passes_for_another() {
        let kinds = [pair(Algorithm::EdDsa), pair(Algorithm::Es256)];
        for (one, signing) in kinds.iter().enumerate() {
            for (other, verifying) in kinds.iter().enumerate() {
                let signature = signing.sign(b"words", &SystemRandom::new());
                assert_eq!(verifying.verifying().unwrap().verify_signature(b"words", signature.as_ref()), one == other);
            }
            // The oldest confusion: the public key as the secret of HS256.
            let public = signing.verifying().unwrap().spki().unwrap();
            let forged = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), b"words");
            assert!(!signing.verifying().unwrap().verify_signature(b"words", forged.as_ref()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_key_or_a_signature_by_chance(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(SigningKey::from_pkcs8(&SecretSlice::from(bytes.clone())).is_none());
            prop_assert!(VerifyingKey::from_spki(&bytes).is_none());
            for key in [VerifyingKey::EdDsa([9; 32]), VerifyingKey::Es256([4; 65]), VerifyingKey::from_secret(&SecretSlice::from(vec![7; 32]))] {
                prop_assert!(!key.verify_signature(b"words", &bytes));
            }
        }
    }
}
