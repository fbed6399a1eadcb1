//! bcrypt, for the hashes of accounts that came from elsewhere; none is made here.
//!
//! Promises: a password is right exactly if the system that made the hash would have said so.
//!
//! Source: N. Provos and D. Mazières, "A Future-Adaptable Password Scheme", USENIX 1999, and the variants as crypt(5) lists them. All of them see the bytes of the
//! password up to the 72nd, with a NUL behind them if there is room; a password of C ends at its first NUL.
//! - `$2a$`, `$2b$`, `$2y$`: the same function. (OpenBSD's `$2a$` of before 2014 took the length modulo 256, so a password of 255 bytes and more is another one there.)
//! - `$2x$`: made by crypt_blowfish before 1.1 (2011), which took bytes from 0x80 on for negative numbers. Such a hash is right for what that version made of the
//!   password, so we make the same of it.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use blowfish::Blowfish;
use subtle::ConstantTimeEq;

/// bcrypt's own order of letters. The last letter of a salt has bits that mean nothing, and some makers of hashes did not clear them.
const LETTERS: GeneralPurpose = GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));
/// What of a password counts.
const KEY_BYTES: usize = 72;
/// Four is the least that the function knows. Fourteen takes about a second of a core; what is beyond could be used to keep cores busy.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;
/// "OrpheanBeholderScryDoubt", from the paper.
const TEXT: [[u32; 2]; 3] = [[0x4f72_7068, 0x6561_6e42], [0x6568_6f6c, 0x6465_7253], [0x6372_7944, 0x6f75_6274]];

/// A hash, taken apart.
#[derive(Clone, Copy)]
pub(super) struct Bcrypt {
    signed_bytes: bool,
    cost: u32,
    salt: [u8; 16],
    /// The function gives 24 bytes; the last one was never written down.
    hash: [u8; 23],
}

impl Bcrypt {
    /// Reads `$2b$12$` with 22 letters of salt and 31 of hash. None for anything else, and for what costs too much to verify.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (signed_bytes, rest) = match text.split_at_checked(4)? {
            ("$2a$" | "$2b$" | "$2y$", rest) => (false, rest),
            ("$2x$", rest) => (true, rest),
            _ => return None,
        };
        let (cost, letters) = rest.split_once('$')?;
        let cost = Some(cost).filter(|cost| cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
        let (salt, hash) = letters.split_at_checked(22)?;
        let salt = LETTERS.decode(salt).ok()?.try_into().ok()?;
        let hash = LETTERS.decode(hash).ok()?.try_into().ok()?;
        COSTS.contains(&cost).then_some(Self { signed_bytes, cost, salt, hash })
    }

    /// Is this the password? Its bytes as they were typed: the systems that such hashes come from did not normalise.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        // C would stop reading here, and then every password with the same beginning would be right.
        if password.contains(&0) {
            return false;
        }
        let mut key = password.get(..KEY_BYTES).unwrap_or(password).to_vec();
        if key.len() < KEY_BYTES {
            key.push(0);
        }
        let key = if self.signed_bytes { with_signed_bytes(&key) } else { key };
        self.run(&key).ct_eq(&self.hash).into()
    }

    fn run(&self, key: &[u8]) -> [u8; 23] {
        let mut state = Blowfish::bc_init_state();
        state.salted_expand_key(&self.salt, key);
        for _ in 0..1u32 << self.cost {
            state.bc_expand_key(key);
            state.bc_expand_key(&self.salt);
        }
        let mut hash = [0; 23];
        let words = TEXT.into_iter().flat_map(|pair| (0..64).fold(pair, |pair, _| state.bc_encrypt(pair)));
        for (byte, made) in hash.iter_mut().zip(words.flat_map(u32::to_be_bytes)) {
            *byte = made;
        }
        hash
    }
}

/// The 18 words that the faulty version made of a key, as the 72 bytes that make the faultless one see the same words: each byte was extended with its sign over what
/// stood before it.
fn with_signed_bytes(key: &[u8]) -> Vec<u8> {
    let mut bytes = key.iter().cycle();
    let word = |bytes: &mut std::iter::Cycle<std::slice::Iter<'_, u8>>| {
        bytes.take(4).fold(0u32, |word, byte| (word << 8) | i32::from(byte.cast_signed()).cast_unsigned())
    };
    (0..KEY_BYTES / 4).flat_map(|_| word(&mut bytes).to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEVENTY_TWO: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

    fn is_of(hash: &str, password: impl AsRef<[u8]>) -> bool {
        Bcrypt::parse(hash).unwrap().is_of(password.as_ref())
    }

    /// The hashes are those that crypt(3) of libxcrypt makes.
    #[test]
    fn every_variant_is_read_as_its_makers_wrote_it() {
        for (hash, password) in [
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
            ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"),
            ("$2y$05$CCCCCCCCCCCCCCCCCCCCC.Bw3BobdGs1SFsKsRLIx9rC4T.Q7DtEm", "U*U*U"),
            ("$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
            ("$2b$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq", ""),
            ("$2a$04$abcdefghijklmnopqrstuuglEaPxWHyo6WU8b0QjZbrTiD71Pze9e", "Gr\u{fc}ne Stra\u{df}e 9"),
            ("$2b$04$abcdefghijklmnopqrstuuglEaPxWHyo6WU8b0QjZbrTiD71Pze9e", "Gr\u{fc}ne Stra\u{df}e 9"),
            ("$2y$04$abcdefghijklmnopqrstuuglEaPxWHyo6WU8b0QjZbrTiD71Pze9e", "Gr\u{fc}ne Stra\u{df}e 9"),
            ("$2x$04$abcdefghijklmnopqrstuuOD36PKR5NFfrCXNIJWB6rYRwZCECESy", "Gr\u{fc}ne Stra\u{df}e 9"),
        ] {
            assert!(is_of(hash, password), "{hash}");
            assert!(!is_of(hash, format!("{password}!")), "{hash}");
        }
        assert!(
            !is_of("$2x$04$abcdefghijklmnopqrstuuglEaPxWHyo6WU8b0QjZbrTiD71Pze9e", "Gr\u{fc}ne Stra\u{df}e 9"),
            "the fault is imitated only where it was made"
        );
    }

    #[test]
    fn the_fault_of_2x_makes_different_passwords_one_and_the_others_do_not() {
        let (of_2x, of_2y) =
            ("$2x$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e");
        assert!(is_of(of_2x, b"\xa3") && is_of(of_2x, b"\xff\xff\xa3"));
        assert!(is_of(of_2y, b"\xff\xff\xa3") && !is_of(of_2y, b"\xa3"));
        assert!(is_of("$2x$04$abcdefghijklmnopqrstuu9f4sA9SRA0scUKcRyC5kce8dao2.GKe", b"\xff\xa334\xff\xff\xff\xa3345"));
    }

    #[test]
    fn bytes_behind_the_72nd_do_not_count_and_the_72nd_does() {
        let (whole, shorter) =
            ("$2b$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui", "$2b$05$abcdefghijklmnopqrstuua4cI5kRltpWhR1kYKGZBo9ct1SFvSem");
        assert!(is_of(whole, SEVENTY_TWO) && is_of(whole, format!("{SEVENTY_TWO}chars after 72 are ignored")));
        assert!(is_of(shorter, &SEVENTY_TWO[..71]) && !is_of(shorter, SEVENTY_TWO) && !is_of(whole, &SEVENTY_TWO[..71]));
        assert!(is_of("$2b$05$abcdefghijklmnopqrstuujf8SX2ahXLwp9w/B.Y5XdysS6yR576q", "x".repeat(300)), "over 255 bytes too");
    }

    #[test]
    fn a_nul_ends_nothing_and_is_never_right() {
        let empty = "$2b$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq";
        assert!(is_of(empty, "") && !is_of(empty, "\0") && !is_of(empty, "\0anything"));
        assert!(!is_of("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U\0x"));
    }

    #[test]
    fn what_is_no_hash_or_too_dear_is_not_taken() {
        let letters = "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        assert!(Bcrypt::parse(&format!("$2b$14${letters}")).is_some());
        for bad in [
            format!("$2b$15${letters}"),
            format!("$2b$31${letters}"),
            format!("$2b$03${letters}"),
            format!("$2b$5${letters}"),
            format!("$2b$+5${letters}"),
            format!("$2c$05${letters}"),
            format!("$2$05${letters}"),
            format!("$2b$05${letters}e"),
            format!("$2b$05${}", &letters[1..]),
            format!("$2b$05${}", letters.replace('C', "=")),
            "$2b$".to_owned(),
            String::new(),
        ] {
            assert!(Bcrypt::parse(&bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}", tail in r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{50,56}") {
            let _ = (Bcrypt::parse(&text), Bcrypt::parse(&tail));
        }
    }
}
