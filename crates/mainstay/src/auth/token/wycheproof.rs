//! The vectors of Wycheproof for JSON Web Signature, run through the code that takes our own tokens apart and verifies them.
//!
//! What is different from production, and why: our keys have exactly one header each, compared as text, and none of the vectors has `typ`; as they are,
//! all of them are refused (the first test). For the second test a header may say `alg` and `kid` in any order and with white space, and must say those
//! of the key. The rest is production's: the splitting, the decoding, [`VerifyingKey::verify_signature`]. Keys are read from the vectors' JWK, which
//! production never does; one without the algorithm of a signature is no key, as in production, where the algorithm is the key's type.
//!
//! The vectors have none for EdDSA; the example of RFC 8037 stands beside the key types.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::SecretSlice;
use serde_json::Value;

use super::*;
use crate::extract::parse_json;

const VECTORS: &str = include_str!("../../../tests/data/wycheproof_json_web_signature_test.json");

/// Labelled invalid, and to the last byte the valid vector 357: no verifier can accept that one and refuse these (C2SP/wycheproof, issue 236).
const COPIES_OF_357: [u64; 2] = [367, 370];
/// Labelled valid, with a character in the header or the payload that base64url does not have and a signature over the text without it (RFC 7515, 5.2
/// wants such a token refused: no character outside of the alphabet may be passed over).
const NOT_BASE64URL: [u64; 2] = [372, 373];

struct Vector {
    id: u64,
    jws: String,
    valid: bool,
    jwk: Value,
}

fn vectors() -> Vec<Vector> {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let mut vectors = Vec::new();
    for group in file["testGroups"].as_array().unwrap() {
        let jwk = group.get("public").unwrap_or(&group["private"]);
        for test in group["tests"].as_array().unwrap() {
            let jws = test["jws"].as_str().unwrap().to_owned();
            vectors.push(Vector { id: test["tcId"].as_u64().unwrap(), jws, valid: test["result"] == "valid", jwk: jwk.clone() });
        }
    }
    assert_eq!(vectors.len() as u64, file["numberOfTests"].as_u64().unwrap());
    vectors
}

/// The key of a JWK, if it is one of a kind that we have, for signatures.
fn key(jwk: &Value) -> Option<VerifyingKey> {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
    match (jwk["alg"].as_str()?, jwk["kty"].as_str()?) {
        ("HS256", "oct") => Some(VerifyingKey::from_secret(&SecretSlice::from(part("k")?))),
        ("ES256", "EC") => Some(VerifyingKey::Es256([vec![4], part("x")?, part("y")?].concat().try_into().ok()?)),
        _ => None,
    }
}

fn verify(vector: &Vector) -> Result<(), Refused> {
    let key = key(&vector.jwk).ok_or(Refused("no key of ours"))?;
    let compact = Compact::split(&vector.jws)?;
    let header = URL_SAFE_NO_PAD.decode(compact.header).map_err(|_| Refused("malformed"))?;
    let header = parse_json(&header).map_err(|_| Refused("malformed header"))?;
    let says = |name: &str| header.get(name).is_some_and(|value| value == &vector.jwk[name]);
    if !says("alg") || !says("kid") || header.as_object().map_or(0, serde_json::Map::len) != 2 {
        return Err(Refused("not the header of this key"));
    }
    if !key.verify_signature(compact.signing_input.as_bytes(), compact.signature()?.bytes()) {
        return Err(Refused("wrong signature"));
    }
    compact.payload().map(drop)
}

#[test]
fn as_they_are_all_vectors_are_refused() {
    for vector in vectors() {
        let keys = Keys::from_secret(&SecretSlice::from(vector.jwk["k"].as_str().map_or(vec![7; 32], |k| URL_SAFE_NO_PAD.decode(k).unwrap())));
        assert!(
            Tokens::new(keys, "mainstay", "mainstay", Duration::from_secs(900)).verify(&vector.jws, Timestamp::UNIX_EPOCH).is_err(),
            "{}",
            vector.id
        );
    }
}

#[test]
fn no_vector_is_accepted_that_must_be_refused() {
    let vectors = vectors();
    let accepted: BTreeSet<u64> = vectors.iter().filter(|vector| !vector.valid && verify(vector).is_ok()).map(|vector| vector.id).collect();
    assert_eq!(accepted, BTreeSet::from(COPIES_OF_357));
    assert_eq!(vectors.iter().filter(|vector| !vector.valid).count(), 355);
    let jws = |id: u64| vectors.iter().find(|vector| vector.id == id).map(|vector| &vector.jws).unwrap();
    assert!(COPIES_OF_357.iter().all(|copy| jws(*copy) == jws(357)), "they are refused for another reason now: take them off the list");
}

#[test]
fn every_valid_vector_of_an_algorithm_that_we_have_is_accepted() {
    let (ours, others): (Vec<Vector>, Vec<Vector>) =
        vectors().into_iter().filter(|vector| vector.valid).partition(|vector| key(&vector.jwk).is_some());
    let refused: BTreeSet<u64> = ours.iter().filter(|vector| verify(vector).is_err()).map(|vector| vector.id).collect();
    assert_eq!(refused, BTreeSet::from(NOT_BASE64URL));
    assert_eq!((ours.len(), others.len()), (12, 34), "HS256 and ES256; RS, PS and ES512, which we do not have");
}
