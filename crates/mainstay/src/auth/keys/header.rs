//! The headers of our tokens. Each key has exactly one, written here and compared as text: a header is never asked for what it says.
//!
//! That is how RFC 8725, 3.1 and 3.11 are kept: `none`, another algorithm, `crit`, `jwk`, `jku`, `x5u`, another order and another spelling are all the
//! same thing, a header that no key of ours has.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::signature::Algorithm;

/// `{"alg":"HS256","typ":"at+jwt"}` in base64url: the header of tokens under the shared secret (`typ` by RFC 9068, 2.1).
pub(in crate::auth) const OF_SECRET: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9";
/// A thumbprint has 43; a name that a person chose may be longer.
pub(super) const KID_CHARS_MAX: usize = 64;

/// The header of the tokens of a key, in base64url.
pub(super) fn of_key(algorithm: Algorithm, kid: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","typ":"at+jwt","kid":"{kid}"}}"#))
}

/// Can this be a key's name? Letters, digits, `-` and `_`: it is a part of a file's name, and stands in JSON as it is.
pub(super) fn is_kid(text: &str) -> bool {
    (1..=KID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Could this be the header of a key that we have not met yet? Only then it is worth a look into the folder.
pub(super) fn may_be_ours(header: &str) -> bool {
    // The longest that we write has 64 + 41 bytes; base64 makes four characters of three bytes.
    const HEADER_CHARS_MAX: usize = 144;
    if header.len() > HEADER_CHARS_MAX {
        return false;
    }
    let Ok(json) = URL_SAFE_NO_PAD.decode(header) else { return false };
    let Some(kid) = std::str::from_utf8(&json).ok().and_then(|json| json.strip_suffix(r#""}"#)?.rsplit('"').next()) else { return false };
    is_kid(kid) && [Algorithm::EdDsa, Algorithm::Es256].into_iter().any(|algorithm| of_key(algorithm, kid) == header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_of_the_secret_says_what_it_is_said_to_say() {
        assert_eq!(URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"at+jwt"}"#), OF_SECRET);
    }

    #[test]
    fn a_header_of_any_other_form_is_not_worth_a_look() {
        assert!(may_be_ours(&of_key(Algorithm::EdDsa, "a")) && may_be_ours(&of_key(Algorithm::Es256, &"k".repeat(64))));
        for header in [
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":""}"#.to_owned(),
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"../../dev/null"}"#.to_owned(),
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"a","kid":"b"}"#.to_owned(),
            r#"{"alg":"none","typ":"at+jwt","kid":"a"}"#.to_owned(),
            r#"{"alg":"HS256","typ":"at+jwt","kid":"a"}"#.to_owned(),
            r#"{"alg":"EdDSA","typ":"JWT","kid":"a"}"#.to_owned(),
            r#"{"typ":"at+jwt","alg":"EdDSA","kid":"a"}"#.to_owned(),
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"a","crit":["exp"]}"#.to_owned(),
            format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, "k".repeat(65)),
        ] {
            assert!(!may_be_ours(&URL_SAFE_NO_PAD.encode(&header)), "{header}");
        }
        assert!(!may_be_ours(OF_SECRET) && !may_be_ours("") && !may_be_ours("#"));
    }

    proptest! {
        #[test]
        fn every_name_that_is_one_makes_a_header_that_may_be_ours(kid in "[A-Za-z0-9_-]{1,64}", text in ".{0,80}") {
            prop_assert!(is_kid(&kid) && may_be_ours(&of_key(Algorithm::EdDsa, &kid)));
            prop_assert!(!may_be_ours(&text));
        }
    }
}
