//! One-time passwords by time: TOTP (RFC 6238) with what every authenticator app has built in, HMAC-SHA-1, six digits and 30 seconds.
//!
//! Promises: a code passes in its own step and the ones beside it, once ([`Totp::check`]); the secret does not print. A guess is right three times in a million, so tries need the
//! [throttle](super::throttle) as passwords do.
//!
//! SHA-1 is right here: HMAC needs no resistance to collisions, and many apps ignore what else a key says.

use std::fmt;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use ring::rand::SecureRandom;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::{random, secret};
use crate::error::Result;

/// RFC 4226, 4: 160 bits are recommended, 128 required.
const SECRET_BYTES: usize = 20;
const SECRET_BYTES_MIN: usize = 16;
/// The block of SHA-1: a longer secret is hashed down to 20 bytes first.
const SECRET_BYTES_MAX: usize = 64;
const STEP_S: i64 = 30;
const DIGITS: u32 = 6;
/// Clocks of telephones are a little off, and typing takes time (RFC 6238, 5.2).
const STEPS_BESIDE: i64 = 1;
/// RFC 4648, 6.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Everything that RFC 3986 reserves; the apps read `%20`, not all of them `+`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The secret that a service and an authenticator share.
pub struct Totp(SecretSlice<u8>);

impl Totp {
    /// A new secret.
    ///
    /// # Errors
    /// When the source has no randomness to give.
    pub fn make(random: &dyn SecureRandom) -> Result<Self> {
        Ok(Self(SecretSlice::from(random::bytes::<SECRET_BYTES>(random)?.to_vec())))
    }

    /// A secret that was stored, or brought along: 16 to 64 bytes.
    pub fn from_bytes(bytes: SecretSlice<u8>) -> Option<Self> {
        (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.expose_secret().len()).then_some(Self(bytes))
    }

    /// The secret, to be [sealed](super::seal).
    pub fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// Is this the code of now? Gives the step that it belongs to, which the caller stores as `last_used`, by a statement that only ever raises it: of two
    /// requests with one code, one then changes a row and the other none. Codes of that step and before are refused from then on.
    ///
    /// Spaces in what was typed do not matter. The time that this takes does not depend on the code.
    pub fn check(&self, typed: &str, now: Timestamp, last_used: Option<i64>) -> Option<i64> {
        // As an app shows it, with a space or two. A longer text is no code and not looked through.
        let typed: String = typed.chars().take(16).filter(|c| !c.is_whitespace()).collect();
        let current = now.as_second().div_euclid(STEP_S);
        let mut found = None;
        for step in current - STEPS_BESIDE..=current + STEPS_BESIDE {
            // Every step is computed and compared, whichever it is.
            let right = secret::same(&self.code(step, DIGITS), &typed);
            let unused = last_used.is_none_or(|last| step > last);
            if right && unused && found.is_none() {
                found = Some(step);
            }
        }
        found
    }

    /// The code of a moment, as the app shows it.
    pub fn code_at(&self, now: Timestamp) -> SecretString {
        SecretString::from(self.code(now.as_second().div_euclid(STEP_S), DIGITS))
    }

    /// The secret in Base32, for those who type it.
    pub fn base32(&self) -> SecretString {
        SecretString::from(base32(self.bytes()))
    }

    /// The address that the QR code holds, in the form that authenticator apps read: `otpauth://totp/Issuer:account?secret=...&issuer=Issuer&...`.
    pub fn uri(&self, issuer: &str, account: &str) -> SecretString {
        let (issuer, account) = (utf8_percent_encode(issuer, RESERVED), utf8_percent_encode(account, RESERVED));
        let secret = base32(self.bytes());
        SecretString::from(format!(
            "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}"
        ))
    }

    /// HOTP (RFC 4226, 5.3) of a counter.
    fn code(&self, counter: i64, digits: u32) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.bytes());
        let tag = hmac::sign(&key, &counter.to_be_bytes());
        let tag = tag.as_ref();
        // The last four bits say where the four bytes begin: at the 15th of 20 at the latest, so they are all there.
        let begin = usize::from(tag.last().copied().unwrap_or_default() & 0x0f);
        let value = tag.iter().skip(begin).take(4).fold(0u32, |value, byte| (value << 8) | u32::from(*byte)) & 0x7fff_ffff;
        format!("{:0width$}", u64::from(value) % 10u64.pow(digits), width = digits as usize)
    }
}

impl fmt::Debug for Totp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Totp(..)")
    }
}

/// Base32 without padding, as authenticator apps take it.
fn base32(bytes: &[u8]) -> String {
    let group = |group: &[u8]| {
        let bits = group.iter().enumerate().fold(0u64, |bits, (place, byte)| bits | u64::from(*byte) << (32 - 8 * place));
        let letters = (group.len() * 8).div_ceil(5);
        (0..letters).filter_map(move |place| BASE32.get((bits >> (35 - 5 * place)) as usize & 31).copied().map(char::from)).collect::<String>()
    };
    bytes.chunks(5).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn rfc() -> Totp {
        Totp::from_bytes(SecretSlice::from(b"12345678901234567890".to_vec())).unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_4226_appendix_d() {
        let expected = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (counter, code) in (0..).zip(expected) {
            assert_eq!(rfc().code(counter, 6), code, "{counter}");
        }
    }

    #[test]
    fn the_vectors_of_rfc_6238_appendix_b_for_sha_1() {
        for (second, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000i64, "65353130"),
        ] {
            assert_eq!(rfc().code(second / STEP_S, 8), code, "{second}");
            assert_eq!(rfc().code_at(at(second)).expose_secret(), &code[2..], "six digits are the last six of eight");
        }
    }

    #[test]
    fn a_code_passes_in_its_step_and_those_beside_it_and_no_others() {
        let (totp, begin) = (rfc(), 1_800_000_000);
        let step = begin / STEP_S;
        let code = totp.code_at(at(begin));
        for second in begin - 31..begin + 62 {
            let passes = (begin - 30..begin + 60).contains(&second);
            assert_eq!(totp.check(code.expose_secret(), at(second), None), passes.then_some(step), "{}", second - begin);
        }
    }

    #[test]
    fn a_step_is_used_once_and_with_it_all_before_it() {
        let (totp, now) = (rfc(), 1_800_000_000);
        let step = now / STEP_S;
        let code = |beside: i64| totp.code(step + beside, DIGITS);
        let check = |code: &str, last| totp.check(code, at(now), last);
        assert_eq!(check(&code(0), None), Some(step));
        assert_eq!(check(&code(0), Some(step)), None, "replayed");
        assert_eq!(check(&code(-1), Some(step)), None, "an older one that was not used is over too");
        assert_eq!(check(&code(1), Some(step)), Some(step + 1));
        assert_eq!(check(&code(0), Some(step - 1)), Some(step));
    }

    #[test]
    fn what_is_typed_may_have_spaces_and_nothing_else() {
        let (totp, now) = (rfc(), at(59));
        assert_eq!(totp.code_at(now).expose_secret(), "287082");
        for good in ["287082", "287 082", " 2 8 7 0 8 2 ", "287\u{a0}082"] {
            assert!(totp.check(good, now, None).is_some(), "{good}");
        }
        for bad in
            ["", "28708", "2870822", "287-082", "0287082", "+287082", "\u{ff12}87082", "28708\u{662}", &"2".repeat(1_000_000), &" ".repeat(1_000_000)]
        {
            assert!(totp.check(bad, now, None).is_none());
        }
    }

    #[test]
    fn base32_is_that_of_rfc_4648_without_padding() {
        for (text, encoded) in
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foob", "MZXW6YQ"), ("fooba", "MZXW6YTB"), ("foobar", "MZXW6YTBOI")]
        {
            assert_eq!(base32(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_uri_is_escaped_and_says_what_apps_assume() {
        let uri = rfc().uri("Main&stay: Ünits", "ada+x@example.com?a#b");
        assert_eq!(
            uri.expose_secret(),
            "otpauth://totp/Main%26stay%3A%20%C3%9Cnits:ada%2Bx%40example.com%3Fa%23b?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Main%26stay%3A%20%C3%9Cnits&algorithm=SHA1&digits=6&period=30"
        );
        assert_eq!(format!("{:?}", rfc()), "Totp(..)");
    }

    #[test]
    fn a_secret_has_a_length_that_fits() {
        let made = Totp::make(&SystemRandom::new()).unwrap();
        assert_eq!((made.bytes().len(), made.base32().expose_secret().len()), (20, 32));
        for (bytes, fits) in [(15, false), (16, true), (64, true), (65, false)] {
            assert_eq!(Totp::from_bytes(SecretSlice::from(vec![1; bytes])).is_some(), fits);
        }
    }

    proptest! {
        #[test]
        fn a_sequence_of_checks_never_accepts_a_step_twice(seconds in prop::collection::vec(0i64..600, 1..40), beside in prop::collection::vec(-2i64..3, 40)) {
            let (totp, begin) = (rfc(), 1_800_000_000i64);
            let mut last = None;
            for (second, beside) in seconds.iter().zip(beside) {
                let now = begin + second;
                let code = totp.code(now / STEP_S + beside, DIGITS);
                if let Some(step) = totp.check(&code, at(now), last) {
                    prop_assert!(last.is_none_or(|last| step > last) && (step - now / STEP_S).abs() <= 1);
                    last = Some(step);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(typed in any::<String>(), issuer in any::<String>(), second in -377_705_116_800i64..253_402_207_200) {
            let _ = rfc().check(&typed, at(second), Some(i64::MAX));
            prop_assert!(rfc().uri(&issuer, &typed).expose_secret().is_ascii());
        }
    }
}
