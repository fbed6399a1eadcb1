//! Public keys for everybody who verifies our tokens: the JWK Set (RFC 7517, 5).
//!
//! Promises: only public halves can be put into it, and each says its one algorithm.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde::Serialize;
use utoipa::ToSchema;

use super::signature::{Algorithm, VerifyingKey};

/// A public key (RFC 7517; RFC 8037, 2 for EdDSA; RFC 7518, 6.2 for ES256).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Jwk {
    /// The family: `OKP` for EdDSA, `EC` for ES256.
    #[schema(value_type = String, pattern = "^(OKP|EC)$", max_length = 3, example = "OKP")]
    kty: &'static str,
    /// The curve: `Ed25519` or `P-256`.
    #[schema(value_type = String, pattern = "^(Ed25519|P-256)$", max_length = 7, example = "Ed25519")]
    crv: &'static str,
    /// The public key, or its first coordinate, in base64url.
    #[schema(pattern = "^[A-Za-z0-9_-]{43}$", min_length = 43, max_length = 43, example = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")]
    x: String,
    /// The second coordinate of an `EC` key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[A-Za-z0-9_-]{43}$", min_length = 43, max_length = 43)]
    y: Option<String>,
    /// Always `sig`.
    #[serde(rename = "use")]
    #[schema(value_type = String, pattern = "^sig$", max_length = 3, example = "sig")]
    usage: &'static str,
    /// The one algorithm of this key.
    #[schema(value_type = String, pattern = "^(EdDSA|ES256)$", max_length = 5, example = "EdDSA")]
    alg: &'static str,
    /// What a token's header calls this key.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$", min_length = 1, max_length = 64, example = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]
    kid: String,
}

/// The keys that verify now or soon. Empty where tokens are signed by a shared secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct JwkSet {
    /// In the order in which they sign.
    #[schema(max_items = 32)]
    pub keys: Vec<Jwk>,
}

impl Jwk {
    /// The public key of this name; nothing for a shared secret.
    pub(super) fn new(kid: &str, key: &VerifyingKey) -> Option<Self> {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (kty, crv, algorithm, x, y) = match key {
            VerifyingKey::Hs256(_) => return None,
            VerifyingKey::EdDsa(key) => ("OKP", "Ed25519", Algorithm::EdDsa, encoded(key), None),
            VerifyingKey::Es256(point) => {
                // After the byte that says "not compressed", both coordinates have 32 bytes by the type.
                let (x, y) = point[1..].split_at(32);
                ("EC", "P-256", Algorithm::Es256, encoded(x), Some(encoded(y)))
            }
        };
        Some(Self { kty, crv, x, y, usage: "sig", alg: algorithm.as_str(), kid: kid.to_owned() })
    }

    /// The key's thumbprint (RFC 7638, 3): the required members alone, in the order of their names. Values are base64url and fixed words, so
    /// nothing needs to be escaped.
    pub(super) fn thumbprint(&self) -> String {
        let Self { crv, kty, x, .. } = self;
        let y = self.y.as_ref().map(|y| format!(r#","y":"{y}""#)).unwrap_or_default();
        let canonical = format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"{y}}}"#);
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_thumbprint_is_the_one_of_the_rfc() {
        // RFC 8037, A.2 and A.3.
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let jwk = Jwk::new("a", &VerifyingKey::EdDsa(public.try_into().unwrap())).unwrap();
        assert_eq!(jwk.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let written = serde_json::to_value(&jwk).unwrap();
        let expected =
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "use": "sig", "alg": "EdDSA", "kid": "a"});
        assert_eq!(written, expected);
    }

    #[test]
    fn a_key_of_p_256_has_both_coordinates_and_a_secret_is_no_public_key() {
        let mut point = [0; 65];
        point[0] = 4;
        point[64] = 1;
        let written = serde_json::to_value(Jwk::new("b", &VerifyingKey::Es256(point)).unwrap()).unwrap();
        assert_eq!((&written["kty"], &written["crv"], &written["alg"]), (&json!("EC"), &json!("P-256"), &json!("ES256")));
        assert_eq!((&written["x"], &written["y"]), (&json!("A".repeat(43)), &json!("A".repeat(42) + "E")));
        assert!(Jwk::new("c", &VerifyingKey::from_secret(&secrecy::SecretSlice::from(vec![7; 32]))).is_none());
    }
}
