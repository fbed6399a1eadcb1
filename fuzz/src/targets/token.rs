//! Access tokens: no text verifies but one that was signed, and what is signed is believed only as far as it says what it must.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use mainstay::auth::{Keys, Role, Tokens};
use ring::hmac;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::Value;
use uuid::Uuid;

use crate::input::{mutated, text};

const SECRET: [u8; 32] = [7; 32];
const NOW_S: i64 = 1_767_225_600;

static TOKENS: LazyLock<Tokens> =
    LazyLock::new(|| Tokens::new(Keys::from_secret(&SecretSlice::from(SECRET.to_vec())), "mainstay", "mainstay", Duration::from_secs(900)));
static ISSUED: LazyLock<SecretString> = LazyLock::new(|| TOKENS.issue(Uuid::from_u128(1), Uuid::from_u128(2), Role::User, now()));

fn now() -> Timestamp {
    Timestamp::from_second(NOW_S).unwrap()
}

pub(crate) fn run(data: &[u8]) {
    let issued = ISSUED.expose_secret();
    assert!(TOKENS.verify(issued, now()).is_ok());
    if let Some(forged) = mutated(issued, data) {
        assert!(TOKENS.verify(&forged, now()).is_err(), "{forged:?}");
    }
    if let Some(text) = text(data) {
        assert!(TOKENS.verify(text, now()).is_err(), "{text:?}");
        // Another header and other claims over a signature that is good for what it was made.
        let (head, claims_and_signature) = issued.split_once('.').unwrap();
        let (claims, signature) = claims_and_signature.rsplit_once('.').unwrap();
        let other = URL_SAFE_NO_PAD.encode(text);
        for forged in [format!("{other}.{claims}.{signature}"), format!("{head}.{other}.{signature}"), format!("{head}.{claims}.{other}")] {
            assert!(forged == issued || TOKENS.verify(&forged, now()).is_err(), "{forged:?}");
        }
    }
    signed(data);
}

/// Claims that were signed with the right key, as if another service shared it.
fn signed(claims: &[u8]) {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"at+jwt"}"#), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), input.as_bytes());
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    let Ok(believed) = TOKENS.verify(&token, now()) else { return };
    let said: Value = serde_json::from_slice(claims).unwrap();
    assert_eq!((&said["iss"], &said["aud"]), (&Value::from("mainstay"), &Value::from("mainstay")));
    assert!(said["exp"].as_i64().unwrap() > NOW_S && said["nbf"].as_i64().unwrap() <= NOW_S + 5 && said["iat"].as_i64().unwrap() <= NOW_S + 5);
    assert_eq!(said["sub"].as_str().and_then(|id| Uuid::parse_str(id).ok()), Some(believed.subject));
    assert_eq!(said["sid"].as_str().and_then(|id| Uuid::parse_str(id).ok()), Some(believed.session));
    assert_eq!(said["role"].as_str(), Some(believed.role.as_str()));
    assert_eq!(said["exp"].as_i64(), Some(believed.expires.as_second()));
}
