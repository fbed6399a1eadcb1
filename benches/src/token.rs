//! A signed access token for the product route, such as the service would have given at sign-in.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;
use uuid::Uuid;

/// How long the token lives, in seconds: longer than any run.
const LIFETIME_S: u64 = 24 * 3600;

/// A secret for one run: 64 hexadecimal digits, above the 32 bytes that HS256 asks for.
pub(crate) fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// A JWT for one user (RFC 7519), signed with HS256.
pub(crate) fn signed(secret: &str) -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let header = json!({"alg": "HS256", "typ": "at+jwt"});
    let claims = json!({
        "iss": "mainstay", "aud": "mainstay", "sub": Uuid::new_v4(), "iat": now_s, "nbf": now_s, "exp": now_s + LIFETIME_S,
        "jti": Uuid::new_v4(), "sid": Uuid::new_v4(), "role": "user",
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_verifies_under_its_secret_and_under_no_other() {
        let token = signed("one");
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let verifies = |secret: &str| hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes(), &signature).is_ok();
        assert!(verifies("one"));
        assert!(!verifies("two"));
    }
}
