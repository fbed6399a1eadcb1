//! Texts of random letters. The source of randomness is an argument.

use ring::rand::SecureRandom;

use crate::error::{Error, Result, codes};

/// Random bytes.
///
/// # Errors
/// When the source has none to give.
pub(super) fn bytes<const N: usize>(random: &dyn SecureRandom) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| Error::new(&codes::INTERNAL).caused_by("the system has no randomness to give"))?;
    Ok(bytes)
}

/// This many letters of an alphabet, each as likely as the others.
///
/// # Errors
/// When the source has none to give.
pub(super) fn letters(random: &dyn SecureRandom, alphabet: &[u8], count: usize) -> Result<String> {
    let mut text = String::with_capacity(count);
    // Values from the last whole multiple of the alphabet on would make its first letters likelier.
    let fair = 256 - 256 % alphabet.len();
    while text.len() < count {
        let drawn = bytes::<64>(random)?.map(usize::from);
        let chosen = drawn.iter().filter(|value| **value < fair).filter_map(|value| alphabet.get(value % alphabet.len()));
        text.extend(chosen.take(count - text.len()).map(|letter| char::from(*letter)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    #[test]
    fn every_letter_is_as_likely_as_the_others() {
        let alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let text = letters(&SystemRandom::new(), alphabet, 62 * 1000).unwrap();
        for letter in alphabet {
            // A thousand each, and a deviation of 32 is usual: eight times that does not happen.
            let count = text.bytes().filter(|byte| byte == letter).count();
            assert!((744..1256).contains(&count), "{} {count}", char::from(*letter));
        }
    }
}
