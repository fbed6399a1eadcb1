//! A forger who has the service's own key: signs any text as the service would.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

/// The OID of Ed25519, and of keys of P-256, with what stands before the public key (RFC 8410, 4; RFC 5480, 2).
const SPKI_OF_ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const SPKI_OF_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03,
    0x42, 0x00,
];

enum Key {
    Secret(hmac::Key),
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// A key, and the name of it.
pub(super) struct Forge {
    key: Key,
    kid: Option<String>,
}

pub(super) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn unb64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

impl Forge {
    pub(super) fn of_secret(secret: &[u8]) -> Self {
        Self { key: Key::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)), kid: None }
    }

    /// The key of a file of the folder.
    pub(super) fn of_file(text: &str, algorithm: &str, kid: &str) -> Self {
        let pem: String = text.lines().skip_while(|line| !line.starts_with("-----BEGIN")).filter(|line| !line.starts_with("-----")).collect();
        let pkcs8 = STANDARD.decode(pem).unwrap();
        Self { key: Key::of_pkcs8(&pkcs8, algorithm), kid: Some(kid.to_owned()) }
    }

    /// Somebody else with a key of the same kind, who names it as ours is named.
    pub(super) fn stranger(other: &Self) -> Self {
        let random = SystemRandom::new();
        let key = match other.key {
            Key::Secret(_) => Key::Secret(hmac::Key::generate(hmac::HMAC_SHA256, &random).unwrap()),
            Key::Ed25519(_) => Key::of_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref(), "eddsa"),
            Key::P256(_) => Key::of_pkcs8(EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap().as_ref(), "es256"),
        };
        Self { key, kid: other.kid.clone() }
    }

    /// The header that the service writes.
    pub(super) fn header(&self) -> String {
        self.header_with(&[])
    }

    /// The same with other members, in its order.
    pub(super) fn header_with(&self, changes: &[(&str, Value)]) -> String {
        let alg = match self.key {
            Key::Secret(_) => "HS256",
            Key::Ed25519(_) => "EdDSA",
            Key::P256(_) => "ES256",
        };
        let mut members = vec![("alg", json!(alg)), ("typ", json!("at+jwt"))];
        members.extend(self.kid.iter().map(|kid| ("kid", json!(kid))));
        for (name, value) in changes {
            match members.iter_mut().find(|(known, _)| known == name) {
                Some(member) => member.1 = value.clone(),
                None => members.push((*name, value.clone())),
            }
        }
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    /// A token of this header and these claims, whatever they are.
    pub(super) fn sign(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let signature = match &self.key {
            Key::Secret(key) => b64(hmac::sign(key, input.as_bytes()).as_ref()),
            Key::Ed25519(key) => b64(key.sign(input.as_bytes()).as_ref()),
            Key::P256(key) => b64(key.sign(&SystemRandom::new(), input.as_bytes()).unwrap().as_ref()),
        };
        format!("{input}.{signature}")
    }

    /// The public half as a token would bring it.
    pub(super) fn jwk(&self) -> Value {
        match &self.key {
            Key::Secret(_) => json!({"kty": "oct", "k": b64(b"marked")}),
            Key::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().as_ref())}),
            Key::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)})
            }
        }
    }

    /// The public half as files have it.
    pub(super) fn public_pem(&self) -> Vec<u8> {
        let der = match &self.key {
            Key::Secret(_) => Vec::new(),
            Key::Ed25519(key) => [SPKI_OF_ED25519, key.public_key().as_ref()].concat(),
            Key::P256(key) => [SPKI_OF_P256, key.public_key().as_ref()].concat(),
        };
        let lines: String = STANDARD.encode(der).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n").collect();
        format!("-----BEGIN PUBLIC KEY-----\n{lines}-----END PUBLIC KEY-----\n").into_bytes()
    }
}

impl Key {
    fn of_pkcs8(pkcs8: &[u8], algorithm: &str) -> Self {
        match algorithm {
            "eddsa" => Self::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).unwrap()),
            _ => Self::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new()).unwrap()),
        }
    }
}
