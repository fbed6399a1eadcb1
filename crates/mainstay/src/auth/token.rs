//! Access tokens: JWT (RFC 7519) of the profile RFC 9068, signed with HS256 (RFC 7518, 3.2).
//!
//! The algorithm belongs to the key. Nothing in a token chooses how it is verified: a header that says anything but what our own tokens say, or says
//! more, is refused, whatever its signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::hmac;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use uuid::Uuid;

use super::Role;
use crate::extract::parse_json;

/// Ours have about 400 bytes. A longer text is refused before any work is done on it.
const TOKEN_BYTES_MAX: usize = 2048;
/// Clocks of two instances differ; a token from the future by more than this is none of ours.
const LEEWAY_S: i64 = 5;

/// Issues and verifies the access tokens of one issuer.
pub struct Tokens {
    key: hmac::Key,
    issuer: String,
    audience: String,
    expiry: Duration,
}

/// What a verified token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// The account.
    pub subject: Uuid,
    /// The session of the account that the token belongs to.
    pub session: Uuid,
    /// Its role when the token was issued.
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
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
    sid: Uuid,
    role: Role,
}

impl Tokens {
    /// Tokens under this secret.
    pub fn new(secret: &SecretSlice<u8>, issuer: &str, audience: &str, expiry: Duration) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret());
        Self { key, issuer: issuer.to_owned(), audience: audience.to_owned(), expiry }
    }

    /// How long a token lives.
    pub fn expiry(&self) -> Duration {
        self.expiry
    }

    /// A token for a session of an account.
    pub fn issue(&self, subject: Uuid, session: Uuid, role: Role, now: Timestamp) -> SecretString {
        let issued = now.as_second();
        let exp = issued.saturating_add_unsigned(self.expiry.as_secs());
        let (iss, aud) = (self.issuer.as_str(), self.audience.as_str());
        let claims = Wire { iss, aud, sub: subject, iat: issued, nbf: issued, exp, jti: Uuid::new_v4(), sid: session, role };
        // Texts and numbers cannot fail to serialise.
        let payload = serde_json::to_vec(&claims).unwrap_or_default();
        let mut token = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"at+jwt"}"#);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        SecretString::from(token)
    }

    /// The claims of a token that is ours, meant for us and valid now.
    ///
    /// # Errors
    /// Everything else.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused("too long"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refused("malformed"))?;
        let (header, payload) = signed.split_once('.').ok_or(Refused("malformed"))?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused("malformed"));
        // The signature first, in constant time: nothing that we did not write is parsed.
        hmac::verify(&self.key, signed.as_bytes(), &decode(signature)?).map_err(|_| Refused("wrong signature"))?;
        check_header(&decode(header)?)?;
        self.check_claims(&decode(payload)?, now)
    }

    fn check_claims(&self, payload: &[u8], now: Timestamp) -> Result<Claims, Refused> {
        let claims = parse_json(payload).map_err(|_| Refused("malformed claims"))?;
        let text = |name| claims.get(name).and_then(Value::as_str);
        let id = |name| text(name).and_then(|text| Uuid::try_parse(text).ok());
        let seconds = |name| claims.get(name).and_then(Value::as_i64);
        if text("iss") != Some(self.issuer.as_str()) {
            return Err(Refused("wrong issuer"));
        }
        if text("aud") != Some(self.audience.as_str()) {
            return Err(Refused("wrong audience"));
        }
        let expires = seconds("exp").ok_or(Refused("no expiry"))?;
        let (issued, valid_from) = (seconds("iat").ok_or(Refused("no issue time"))?, seconds("nbf").ok_or(Refused("no start"))?);
        let now = now.as_second();
        if expires <= now {
            return Err(Refused("expired"));
        }
        if issued > now + LEEWAY_S || valid_from > now + LEEWAY_S {
            return Err(Refused("not yet valid"));
        }
        Ok(Claims {
            subject: id("sub").ok_or(Refused("no subject"))?,
            session: id("sid").ok_or(Refused("no session"))?,
            role: text("role").and_then(|role| role.parse().ok()).ok_or(Refused("unknown role"))?,
            id: id("jti").ok_or(Refused("no id"))?,
            expires: Timestamp::from_second(expires).map_err(|_| Refused("expiry out of range"))?,
        })
    }
}

/// Exactly `alg` and `typ`, with our values: `none`, another algorithm, `crit`, `jwk`, `jku`, `x5u`, `kid` and whatever comes next are all refused at once.
fn check_header(header: &[u8]) -> Result<(), Refused> {
    let header = parse_json(header).map_err(|_| Refused("malformed header"))?;
    let text = |name| header.get(name).and_then(Value::as_str);
    if text("alg") != Some("HS256") {
        return Err(Refused("wrong algorithm"));
    }
    // RFC 9068, 2.1; without it a token of another kind under the same key would pass for an access token (RFC 8725, 3.11).
    if text("typ") != Some("at+jwt") {
        return Err(Refused("wrong type"));
    }
    if header.as_object().map_or(0, serde_json::Map::len) != 2 {
        return Err(Refused("unknown header parameters"));
    }
    Ok(())
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issuer", &self.issuer).field("audience", &self.audience).field("expiry", &self.expiry).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: i64 = 1_800_000_000;

    fn tokens() -> Tokens {
        Tokens::new(&SecretSlice::from(SECRET.to_vec()), "mainstay", "mainstay", Duration::from_secs(900))
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
               "jti": "7f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e",
               "sid": "5f2c1b9e-8a47-4c6d-9e21-5b7f0a1c2d3e", "role": "user"})
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
        ] {
            let mut bent = claims();
            bent[name] = value.clone();
            assert!(check(&bent).is_err(), "{name}: {value}");
        }
        let twice = claims().to_string().replacen('{', r#"{"role":"admin","#, 1);
        assert_eq!(tokens().verify(&signed(hmac::HMAC_SHA256, HEADER, &twice), at(NOW)), Err(Refused("malformed claims")));
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
            r#"{"alg":"HS256","alg":"none","typ":"at+jwt"}"#,
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
}
