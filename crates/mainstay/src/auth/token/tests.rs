//! Tokens that are ours, and every way not to be one.

use proptest::prelude::*;
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::{Value, json};

use super::*;
use crate::auth::keys::{Algorithm, Directory};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: i64 = 1_800_000_000;
const EXPIRY: Duration = Duration::from_secs(900);

fn tokens() -> Tokens {
    Tokens::new(Keys::from_secret(&SecretSlice::from(SECRET.to_vec())), "mainstay", "mainstay", EXPIRY)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn signed(algorithm: hmac::Algorithm, header: &str, claims: &str) -> String {
    let signing = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(algorithm, SECRET), signing.as_bytes());
    format!("{signing}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn claims() -> Value {
    json!({"iss": "mainstay", "aud": "mainstay", "sub": "3f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e", "iat": NOW, "nbf": NOW, "exp": NOW + 900,
           "jti": "7f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e", "sid": "8f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e", "role": "user"})
}

const HEADER: &str = r#"{"alg":"HS256","typ":"at+jwt"}"#;

#[test]
fn what_was_issued_is_verified_until_it_expires() {
    let (subject, session) = (Uuid::new_v4(), Uuid::new_v4());
    let token = tokens().issue(subject, session, Role::Editor, at(NOW));
    let verify = |second| tokens().verify(token.expose_secret(), at(second));
    let claims = verify(NOW).unwrap();
    assert_eq!((claims.subject, claims.session, claims.role, claims.expires), (subject, session, Role::Editor, at(NOW + 900)));
    assert!(verify(NOW + 899).is_ok());
    assert_eq!(verify(NOW + 900), Err(Refused("expired")));
    assert_eq!(verify(NOW - 6), Err(Refused("not yet valid")));
}

#[test]
fn a_correctly_signed_token_with_bent_claims_is_refused() {
    let check = |claims: &Value| tokens().verify(&signed(hmac::HMAC_SHA256, HEADER, &claims.to_string()), at(NOW)).map(drop);
    assert_eq!(check(&claims()), Ok(()), "the unbent one passes");
    for name in ["iss", "aud", "sub", "iat", "nbf", "exp", "jti", "sid", "role"] {
        let mut bent = claims();
        bent.as_object_mut().unwrap().remove(name);
        assert!(check(&bent).is_err(), "{name} may not be missing");
    }
    for (name, value) in [
        ("iss", json!("other")),
        ("aud", json!(["other"])),
        ("sub", json!("root")),
        ("exp", json!(NOW)),
        ("exp", json!("2099-01-01")),
        ("exp", json!(1e30)),
        ("nbf", json!(NOW + 3600)),
        ("iat", json!(NOW + 3600)),
        ("role", json!("superuser")),
        ("role", json!(["admin"])),
        ("role", json!({"admin": null})),
        ("role", json!("Admin")),
        ("sid", json!("")),
        ("sid", json!(null)),
        ("jti", json!(7)),
        ("exp", json!(1.9e9)),
        ("exp", json!(i64::MAX)),
        ("iss", json!(["mainstay"])),
    ] {
        let mut bent = claims();
        bent[name] = value.clone();
        assert!(check(&bent).is_err(), "{name}: {value}");
    }
    for first in [r#"{"role":"admin","#, r#"{"exp":4000000000,"#, r#"{"other":1,"other":2,"#] {
        let twice = claims().to_string().replacen('{', first, 1);
        assert_eq!(tokens().verify(&signed(hmac::HMAC_SHA256, HEADER, &twice), at(NOW)), Err(Refused("malformed claims")), "{first}");
    }
    for bent in ["null", "[]", "7", r#""text""#, "{}x", "{"] {
        assert_eq!(tokens().verify(&signed(hmac::HMAC_SHA256, HEADER, bent), at(NOW)), Err(Refused("malformed claims")), "{bent}");
    }
}

#[test]
fn a_claim_of_a_later_release_is_passed_over() {
    let mut more = claims();
    more["scope"] = json!({"deep": ["x"]});
    assert!(tokens().verify(&signed(hmac::HMAC_SHA256, HEADER, &more.to_string()), at(NOW)).is_ok());
}

#[test]
fn a_header_that_says_anything_else_is_refused() {
    for header in [
        r#"{"alg":"none","typ":"at+jwt"}"#,
        r#"{"alg":"HS512","typ":"at+jwt"}"#,
        r#"{"alg":"hs256","typ":"at+jwt"}"#,
        r#"{"alg":"RS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"typ":"at+jwt"}"#,
        r#"{"alg":"HS256","typ":"at+jwt","crit":["exp"]}"#,
        r#"{"alg":"HS256","typ":"at+jwt","kid":"../../dev/null"}"#,
        r#"{"alg":"HS256","typ":"at+jwt","jku":"https://evil.example/jwks"}"#,
        r#"{"alg":"HS256","typ":"at+jwt","jwk":{"kty":"oct","k":"AAAA"}}"#,
        r#"{"alg":"HS256","typ":"at+jwt","x5u":"https://evil.example/x5u"}"#,
        r#"{"alg":"HS256","typ":"at+jwt","b64":false}"#,
        r#"{"alg":"HS256","alg":"none","typ":"at+jwt"}"#,
        r#"{"typ":"at+jwt","alg":"HS256"}"#,
        r#"{"alg":"HS256", "typ":"at+jwt"}"#,
        "[]",
        "",
    ] {
        assert!(tokens().verify(&signed(hmac::HMAC_SHA256, header, &claims().to_string()), at(NOW)).is_err(), "{header}");
    }
    for algorithm in [hmac::HMAC_SHA384, hmac::HMAC_SHA512, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY] {
        assert_eq!(tokens().verify(&signed(algorithm, HEADER, &claims().to_string()), at(NOW)), Err(Refused("wrong signature")));
    }
}

#[test]
fn an_altered_or_cut_token_is_refused() {
    let token = tokens().issue(Uuid::new_v4(), Uuid::new_v4(), Role::User, at(NOW));
    let token = token.expose_secret();
    for (index, byte) in token.bytes().enumerate() {
        let mut bent = token.as_bytes().to_vec();
        bent[index] = if byte == b'A' { b'B' } else { b'A' };
        assert!(tokens().verify(std::str::from_utf8(&bent).unwrap(), at(NOW)).is_err(), "byte {index}");
        assert!(tokens().verify(&token[..index], at(NOW)).is_err(), "cut at {index}");
    }
    for bent in [format!("{token}="), format!("{token}."), format!(".{token}"), format!(" {token}"), "a".repeat(100_000), "..".to_owned()] {
        assert!(tokens().verify(&bent, at(NOW)).is_err());
    }
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in ".{0,200}") {
        prop_assert!(tokens().verify(&text, at(NOW)).is_err());
    }

    #[test]
    fn no_signed_claims_make_it_panic(claims in ".{0,200}") {
        let _ = tokens().verify(&signed(hmac::HMAC_SHA256, HEADER, &claims), at(NOW));
    }
}

/// A folder with one key that signs, and its tokens.
fn folder(algorithm: Algorithm, secret: Option<&SecretSlice<u8>>) -> (tempfile::TempDir, Tokens) {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::new(folder.path(), true);
    directory.create(algorithm, Duration::ZERO, EXPIRY, at(NOW), &SystemRandom::new()).unwrap();
    let tokens = Tokens::new(Keys::open(directory, secret).unwrap(), "mainstay", "mainstay", EXPIRY);
    (folder, tokens)
}

fn header_of(token: &SecretString) -> String {
    let header = token.expose_secret().split_once('.').unwrap().0;
    String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

#[test]
fn a_token_of_a_key_says_its_key_and_is_verified_until_it_expires() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let (_folder, tokens) = folder(algorithm, None);
        let (subject, session) = (Uuid::new_v4(), Uuid::new_v4());
        let token = tokens.issue(subject, session, Role::Admin, at(NOW));
        let kid =
            tokens.published_keys(at(NOW)).keys.first().map(|key| serde_json::to_value(key).unwrap()["kid"].as_str().unwrap().to_owned()).unwrap();
        assert_eq!(header_of(&token), format!(r#"{{"alg":"{algorithm}","typ":"at+jwt","kid":"{kid}"}}"#));
        // The second time out of memory: the clock is asked all the same.
        for _ in 0..2 {
            let claims = tokens.verify(token.expose_secret(), at(NOW + 899)).unwrap();
            assert_eq!((claims.subject, claims.session, claims.role, claims.expires), (subject, session, Role::Admin, at(NOW + 900)));
            assert_eq!(tokens.verify(token.expose_secret(), at(NOW + 900)), Err(Refused("expired")));
            assert_eq!(tokens.verify(token.expose_secret(), at(NOW - 6)), Err(Refused("not yet valid")));
        }
    }
}

#[test]
fn an_altered_or_cut_token_of_a_key_is_refused_also_after_the_right_one_was_seen() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let (_folder, tokens) = folder(algorithm, None);
        let token = tokens.issue(Uuid::new_v4(), Uuid::new_v4(), Role::User, at(NOW));
        let token = token.expose_secret();
        tokens.verify(token, at(NOW)).unwrap();
        for (index, byte) in token.bytes().enumerate().step_by(3) {
            let mut bent = token.as_bytes().to_vec();
            bent[index] = if byte == b'A' { b'B' } else { b'A' };
            assert!(tokens.verify(std::str::from_utf8(&bent).unwrap(), at(NOW)).is_err(), "{algorithm}, byte {index}");
            assert!(tokens.verify(&token[..index], at(NOW)).is_err(), "{algorithm}, cut at {index}");
        }
    }
}

#[test]
fn nothing_that_is_public_signs_a_token() {
    let secret = SecretSlice::from(SECRET.to_vec());
    for (algorithm, secret) in
        [(Algorithm::EdDsa, None), (Algorithm::Es256, None), (Algorithm::EdDsa, Some(&secret)), (Algorithm::Es256, Some(&secret))]
    {
        let (folder, tokens) = folder(algorithm, secret);
        let right = tokens.issue(Uuid::new_v4(), Uuid::new_v4(), Role::User, at(NOW));
        let (signed_part, signature) = right.expose_secret().rsplit_once('.').unwrap();
        let (header, payload) = signed_part.split_once('.').unwrap();
        let jwks = serde_json::to_value(tokens.published_keys(at(NOW))).unwrap();
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let secrets = [
            jwks["keys"][0]["x"].as_str().unwrap().as_bytes().to_vec(),
            URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap(),
            std::fs::read(file).unwrap(),
        ];
        let hs256 = header_of(&right).replace(algorithm.as_str(), "HS256");
        for header in [HEADER.to_owned(), hs256, header_of(&right), r#"{"alg":"none","typ":"at+jwt"}"#.to_owned()] {
            for secret in &secrets {
                let signing = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(&header));
                let forged = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signing.as_bytes());
                assert!(tokens.verify(&format!("{signing}.{}", URL_SAFE_NO_PAD.encode(forged)), at(NOW)).is_err(), "{header}");
                assert!(tokens.verify(&format!("{signing}."), at(NOW)).is_err(), "{header}");
            }
            if header != header_of(&right) {
                assert!(tokens.verify(&format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(&header)), at(NOW)).is_err(), "{header}");
            }
        }
        // Another key of the same kind, under the same name.
        let (_other_folder, other) = super::tests::folder(algorithm, None);
        let foreign = other.issue(Uuid::new_v4(), Uuid::new_v4(), Role::Admin, at(NOW));
        assert_eq!(tokens.verify(foreign.expose_secret(), at(NOW)), Err(UNKNOWN_KEY));
        let (payload, signature) = foreign.expose_secret().split_once('.').unwrap().1.split_once('.').unwrap();
        assert_eq!(tokens.verify(&format!("{header}.{payload}.{signature}"), at(NOW)), Err(Refused("wrong signature")));
    }
}

#[test]
fn tokens_under_the_secret_are_verified_beside_a_folder_only_if_it_is_given() {
    let secret = SecretSlice::from(SECRET.to_vec());
    let old = tokens().issue(Uuid::new_v4(), Uuid::new_v4(), Role::User, at(NOW));
    let (_folder, with) = folder(Algorithm::EdDsa, Some(&secret));
    assert!(with.verify(old.expose_secret(), at(NOW)).is_ok());
    assert!(header_of(&with.issue(Uuid::new_v4(), Uuid::new_v4(), Role::User, at(NOW))).contains("EdDSA"));
    let (_folder, without) = folder(Algorithm::EdDsa, None);
    assert_eq!(without.verify(old.expose_secret(), at(NOW)), Err(Refused("not a header of ours")));
}

#[test]
fn a_secret_signs_until_the_first_key_of_the_folder_begins() {
    let place = tempfile::tempdir().unwrap();
    let secret = SecretSlice::from(SECRET.to_vec());
    let directory = Directory::new(place.path(), true);
    directory.create(Algorithm::EdDsa, Duration::from_secs(600), EXPIRY, at(NOW), &SystemRandom::new()).unwrap();
    let keys = Keys::open(directory, Some(&secret)).unwrap();
    let moving = Tokens::new(keys, "mainstay", "mainstay", EXPIRY);
    let issue = |second| moving.issue(Uuid::new_v4(), Uuid::new_v4(), Role::User, at(second));
    assert_eq!(header_of(&issue(NOW + 599)), HEADER);
    assert!(header_of(&issue(NOW + 600)).contains("EdDSA"));
    for (token, second) in [(issue(NOW + 599), NOW + 1400), (issue(NOW + 600), NOW + 600)] {
        assert!(moving.verify(token.expose_secret(), at(second)).is_ok());
    }
}

#[test]
fn nothing_of_the_keys_is_printed() {
    let secret = SecretSlice::from(SECRET.to_vec());
    let (folder, tokens) = folder(Algorithm::Es256, Some(&secret));
    let printed = format!("{tokens:?} {:?} {:?}", tokens.keys(), Directory::new(folder.path(), true));
    assert!(!printed.contains("0123456789") && !printed.contains("PRIVATE"), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_claims_that_another_parser_would_refuse_pass(name in "iss|aud|sub|sid|jti|role|exp|nbf|iat|x", value in r#"[\[\]{}",:0-9a-z]{0,12}"#) {
        let (signed, claims) = (|text: &str| signed(hmac::HMAC_SHA256, HEADER, text), claims());
        let text = claims.to_string();
        let bent = text.replacen('{', &format!("{{\"{name}\":{value},"), 1);
        if tokens().verify(&signed(&bent), at(NOW)).is_ok() {
            let parsed = crate::extract::parse_json(bent.as_bytes());
            prop_assert!(parsed.is_ok_and(|parsed| claims.as_object().unwrap().iter().all(|(name, value)| &parsed[name] == value)));
        }
    }
}
