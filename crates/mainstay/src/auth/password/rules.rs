//! What may be a password, after NIST SP 800-63B-4, 3.1.1.2: long enough, not among those that everybody tries, not made of what everybody knows of the account. No
//! rules about kinds of characters: they make passwords worse.
//!
//! Promises: the verdict depends on the normalised password alone, and takes less than a millisecond for any text.

use secrecy::{ExposeSecret, SecretString};
use unicode_normalization::UnicodeNormalization;

use super::normalised;
use crate::error::Flaw;

/// The source says fifteen for a password that stands alone and eight beside a second factor; eight is what registered users know, and the list below takes the worst.
/// At most 128 keep the work bounded; the source asks for at least 64.
const CHARS: std::ops::RangeInclusive<usize> = 8..=128;
/// No character of Unicode decomposes canonically into more than four, so a text of more than four times the characters is too long in any form.
const COMPOSED_MAX: usize = 4;
/// Passwords that everybody tries: sorted, lower case, of at least eight characters; source and licence in `data/README.md`.
static COMMON: &str = include_str!("../../../data/common_passwords.txt");
/// Walks over keyboards and alphabets.
const WALKS: [&str; 5] = [
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
    "1q2w3e4r5t6y7u8i9o0p",
];
/// Shorter words of a name or an address occur in honest passwords by chance.
const TERM_CHARS_MIN: usize = 3;
/// With fewer characters beside them (a year, an exclamation mark) a password is its known parts.
const OWN_CHARS_MIN: usize = 5;

/// What is known of the account that a password is for.
#[derive(Debug, Clone, Copy, Default)]
pub struct PasswordContext<'a> {
    /// The address, as far as there is a right one.
    pub email: Option<&'a str>,
    /// The person's name, as far as there is a right one.
    pub name: Option<&'a str>,
    /// The service's name.
    pub service: &'a str,
}

pub(super) fn check(password: &SecretString, context: &PasswordContext<'_>) -> Result<(), Flaw> {
    let length = || Flaw::new("invalid_length", format!("must have {} to {} characters", CHARS.start(), CHARS.end()));
    if password.expose_secret().chars().nth(CHARS.end() * COMPOSED_MAX).is_some() {
        return Err(length());
    }
    let password = normalised(password);
    if !CHARS.contains(&password.expose_secret().chars().count()) {
        return Err(length());
    }
    let folded = SecretString::from(password.expose_secret().to_lowercase());
    if is_common(folded.expose_secret()) || is_pattern(folded.expose_secret()) {
        return Err(Flaw::new("too_common", "must not be one that everybody tries: a common password, a repetition or a row of keys"));
    }
    if is_made_of(folded.expose_secret(), context) {
        return Err(Flaw::new("too_similar", "must not be made of the name, the e-mail address or the name of the service"));
    }
    Ok(())
}

/// A binary search over the text itself: nothing is built at the start, and it takes less than a microsecond.
fn is_common(folded: &str) -> bool {
    let mut left = COMMON;
    while !left.is_empty() {
        // The list is ASCII, and what is cut off ends at a line's end.
        let (before, _) = left.split_at(left.len() / 2);
        let (before, from) = left.split_at(before.rfind('\n').map_or(0, |end| end + 1));
        let (line, after) = from.split_once('\n').unwrap_or((from, ""));
        match folded.cmp(line) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => left = before,
            std::cmp::Ordering::Greater => left = after,
        }
    }
    false
}

/// One to three characters over and over, the next one each time, or a walk over the keyboard.
fn is_pattern(folded: &str) -> bool {
    let chars: Vec<char> = folded.chars().collect();
    let repeated = |period: usize| chars.iter().zip(chars.iter().skip(period)).all(|(a, b)| a == b);
    let row = |follows: fn(char, char) -> bool| chars.iter().zip(chars.iter().skip(1)).all(|(a, b)| follows(*a, *b));
    let backwards: String = chars.iter().rev().collect();
    (1..=3).any(repeated) || row(is_next) || row(|a, b| is_next(b, a)) || WALKS.iter().any(|walk| walk.contains(folded) || walk.contains(&backwards))
}

fn is_next(a: char, b: char) -> bool {
    u32::from(a) + 1 == u32::from(b) || matches!((a, b), ('9', '0') | ('z', 'a'))
}

/// Is nothing of the password its own, once the words are taken out that stand in the account?
fn is_made_of(folded: &str, context: &PasswordContext<'_>) -> bool {
    let letters = |text: &str| text.nfkc().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric()).collect::<String>();
    let local = context.email.and_then(|email| email.rsplit_once('@')).map(|(local, _)| local);
    let whole = [context.email, local, context.name, Some(context.service)].into_iter().flatten();
    let words = [local, context.name, Some(context.service)].into_iter().flatten().flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
    let mut terms: Vec<String> = whole.chain(words).map(letters).filter(|term| term.chars().count() >= TERM_CHARS_MIN).collect();
    // The longest first: what is left of it would hide it from the others.
    terms.sort_by_key(|term| std::cmp::Reverse(term.len()));
    let all = letters(folded);
    let own = terms.iter().fold(all.clone(), |own, term| own.replace(term, ""));
    own.len() < all.len() && own.chars().count() < OWN_CHARS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADA: PasswordContext<'_> = PasswordContext { email: Some("ada.lovelace@example.com"), name: Some("Ada Lovelace"), service: "mainstay" };

    fn verdict(password: &str) -> &'static str {
        check(&password.to_owned().into(), &ADA).map_or_else(|flaw| flaw.code, |()| "fine")
    }

    fn all(passwords: &[&str], expected: &str) {
        for password in passwords {
            assert_eq!(verdict(password), expected, "{password}");
        }
    }

    #[test]
    fn length_is_counted_in_characters_after_normalising() {
        all(&["", "short", "zj4-kpq", &"zj4".repeat(43), &"a".repeat(1_000_000)], "invalid_length");
        all(&["zj4-kpqw", &"zj4kqwx ".repeat(16), "\u{1f600}\u{1f601}\u{1f603}\u{1f604}\u{1f600}\u{1f605}\u{1f606}\u{1f607}"], "fine");
        // Seven letters, six of them with a mark of their own.
        all(&["u\u{308}o\u{308}a\u{308}e\u{301}i\u{301}o\u{301}x"], "invalid_length");
        // One character that stands for eighteen.
        all(&["\u{fdfa}"], "fine");
        let composed = "\u{1f82}\u{1f83}x\u{1f84}".repeat(32);
        let decomposed: String = composed.chars().flat_map(|c| c.to_string().nfd().collect::<Vec<_>>()).collect();
        assert!(decomposed.chars().count() > 400);
        assert_eq!(verdict(&decomposed), verdict(&composed));
    }

    #[test]
    fn common_ones_are_refused_in_any_letter_case_and_width() {
        all(&["password", "PassWord1", "12345678", "iloveyou", "football", "trustno1", "\u{ff50}assword", "QWERTYUIOP"], "too_common");
        all(&["correct horse battery staple", "a long sentence is best", "passwort steht im buch", "nanoseconds are short"], "fine");
    }

    #[test]
    fn the_list_is_what_the_search_expects_and_each_of_its_lines_is_found() {
        assert!(COMMON.is_ascii() && COMMON.ends_with('\n') && COMMON.lines().is_sorted());
        assert_eq!(COMMON.lines().count(), 11_611);
        for line in COMMON.lines() {
            assert!(line.len() >= 8 && !line.bytes().any(|byte| byte.is_ascii_uppercase()), "{line}");
            assert!(is_common(line) && !is_common(&format!("{line}\n")) && !is_common(&format!("{line}\u{e9}")), "{line}");
        }
        assert!(!is_common("") && !is_common("\n") && !is_common("zzzzzzzzzzzzzz\u{10ffff}"));
    }

    #[test]
    fn repetitions_and_rows_are_refused() {
        all(
            &["xxxxxxxx", "----------", "abababab", "xyzxyzxyzx", "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", &"q".repeat(128)],
            "too_common",
        );
        all(&["mnopqrst", "tsrqponm", "45678901", "10987654", "uvwxyzab", "\u{3b1}\u{3b2}\u{3b3}\u{3b4}\u{3b5}\u{3b6}\u{3b7}\u{3b8}"], "too_common");
        all(&["wertyuiop", "lkjhgfdsa", "ertzuiopa", "AZERTYUIOP", "2wsx3edc", "5t6y7u8i"], "too_common");
        all(&["abcd-wxyz", "mnopqrsu", "xyxyxyxz"], "fine");
    }

    #[test]
    fn what_is_known_of_the_account_is_no_password() {
        all(
            &[
                "ada.lovelace@example.com",
                "Ada.Lovelace",
                "lovelace1815",
                "LovelaceAda",
                "ada lovelace!",
                "adaadaada.",
                "Mainstay",
                "mainstay-2026",
                "!!ada/mainstay!!",
            ],
            "too_similar",
        );
        all(&["lovelace wrote notes", "mainstay of the house", "ada: x7Qm-p2"], "fine");
        let bare = PasswordContext { email: Some("al@example.com"), name: Some("Al"), service: "" };
        assert_eq!(check(&"palatial".to_owned().into(), &bare), Ok(()), "too short a name to be looked for");
        assert_eq!(check(&"!?.,;:-_".to_owned().into(), &bare), Ok(()));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_one_form_is_as_good_as_the_other(text in any::<String>(), email in any::<String>(), name in any::<String>()) {
            let context = PasswordContext { email: Some(&email), name: Some(&name), service: "mainstay" };
            let verdict = |text: String| check(&text.into(), &context);
            prop_assert_eq!(verdict(text.nfd().collect()), verdict(text.nfc().collect()));
            prop_assert_eq!(verdict(text.nfkd().collect()), verdict(text.nfkc().collect()));
        }

        #[test]
        fn what_is_taken_is_of_the_right_length_in_the_form_that_is_hashed(text in ".{0,140}") {
            let password = SecretString::from(text);
            if check(&password, &ADA).is_ok() {
                prop_assert!(CHARS.contains(&normalised(&password).expose_secret().chars().count()));
            }
        }
    }
}
