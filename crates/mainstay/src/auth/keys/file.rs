//! One key in one text: the times of its life, then the key in PEM (RFC 7468), so that its whole state changes with the file, at once or not at all.
//!
//! ```text
//! Signs-From: 2026-11-25T12:00:00Z
//! -----BEGIN PRIVATE KEY-----      PKCS#8, as other programs write and read it; they skip what stands before (RFC 7468, 2)
//! ...
//! -----END PRIVATE KEY-----
//! ```
//!
//! A key that a command has ended also has `Signs-Until` and, when its tokens are to be refused too, `Verifies-Until`; of a key that signs no more only
//! the public half is kept (`PUBLIC KEY`). A name that is not known here is refused: it may change the meaning of what is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::signature::{SigningKey, VerifyingKey};

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// RFC 7468, 2: generators wrap after exactly 64 characters.
const LINE_CHARS: usize = 64;

/// When a key signs and verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// From when on tokens are signed with it.
    pub(super) signs_from: Timestamp,
    /// Signing was ended by command.
    pub(super) signs_until: Option<Timestamp>,
    /// Verifying was ended by command.
    pub(super) verifies_until: Option<Timestamp>,
}

/// The key in a file.
pub(super) enum Half {
    /// It can sign.
    Private(SigningKey),
    /// It can only verify.
    Public(VerifyingKey),
}

/// What a file says.
pub(super) struct KeyFile {
    pub(super) times: Times,
    pub(super) half: Half,
}

/// Why a file is no key of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

impl KeyFile {
    /// Reads the text of a file.
    pub(super) fn parse(text: &SecretString) -> Result<Self, Broken> {
        let text = text.expose_secret();
        let (head, pem) = text.split_at(text.find(BEGIN).ok_or(Broken("there is no PEM block"))?);
        let times = times(head)?;
        Ok(Self { times, half: half(pem)? })
    }
}

fn times(head: &str) -> Result<Times, Broken> {
    let (mut from, mut signs_until, mut verifies_until) = (None, None, None);
    for line in head.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').ok_or(Broken("a line before the key is no `Name: value`"))?;
        let place = match name.trim() {
            "Signs-From" => &mut from,
            "Signs-Until" => &mut signs_until,
            "Verifies-Until" => &mut verifies_until,
            _ => return Err(Broken("a name before the key is not known")),
        };
        let time = value.trim().parse().map_err(|_| Broken("a time is not RFC 3339"))?;
        if place.replace(time).is_some() {
            return Err(Broken("a name before the key is repeated"));
        }
    }
    Ok(Times { signs_from: from.ok_or(Broken("Signs-From is missing"))?, signs_until, verifies_until })
}

/// The one block of PEM, and nothing after it.
fn half(pem: &str) -> Result<Half, Broken> {
    const CUT: Broken = Broken("the PEM block is cut or bent");
    let (label, rest) = pem.strip_prefix(BEGIN).and_then(|rest| rest.split_once(DASHES)).ok_or(CUT)?;
    let (body, tail) = rest.split_once(END).ok_or(CUT)?;
    let after = tail.strip_prefix(label).and_then(|tail| tail.strip_prefix(DASHES)).ok_or(CUT)?;
    if !after.trim().is_empty() {
        return Err(Broken("something stands after the key"));
    }
    let body: SecretString = body.split_ascii_whitespace().collect::<String>().into();
    let der = SecretSlice::from(STANDARD.decode(body.expose_secret()).map_err(|_| CUT)?);
    match label {
        PRIVATE => SigningKey::from_pkcs8(&der).map(Half::Private).ok_or(Broken("the private key is neither Ed25519 nor P-256 in PKCS#8")),
        PUBLIC => VerifyingKey::from_spki(der.expose_secret()).map(Half::Public).ok_or(Broken("the public key is neither Ed25519 nor P-256")),
        _ => Err(Broken("the PEM block is neither a private key in PKCS#8 nor a public key")),
    }
}

/// The text of a file with a private key.
pub(super) fn private(times: &Times, pkcs8: &SecretSlice<u8>) -> SecretString {
    written(times, PRIVATE, pkcs8.expose_secret())
}

/// The same key with other times. The text must be one that [`KeyFile::parse`] takes.
pub(super) fn with_times(text: &SecretString, times: &Times) -> SecretString {
    let text = text.expose_secret();
    // What was parsed has a key.
    let key = text.find(BEGIN).and_then(|begin| text.get(begin..)).unwrap_or_default();
    SecretString::from(head(times) + key)
}

/// The text of a file with a public key.
pub(super) fn public(times: &Times, spki: &[u8]) -> SecretString {
    written(times, PUBLIC, spki)
}

fn head(times: &Times) -> String {
    let mut text = format!("Signs-From: {}\n", times.signs_from);
    for (name, time) in [("Signs-Until", times.signs_until), ("Verifies-Until", times.verifies_until)] {
        if let Some(time) = time {
            text += &format!("{name}: {time}\n");
        }
    }
    text
}

fn written(times: &Times, label: &str, der: &[u8]) -> SecretString {
    let mut text = head(times) + BEGIN + label + DASHES + "\n";
    let body: SecretString = STANDARD.encode(der).into();
    let mut rest = body.expose_secret();
    while !rest.is_empty() {
        // base64 is ASCII: every index is a boundary.
        let (line, next) = rest.split_at(rest.len().min(LINE_CHARS));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    SecretString::from(text + END + label + DASHES + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::signature::Algorithm;
    use super::*;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn broken(text: &str) -> &'static str {
        KeyFile::parse(&SecretString::from(text)).err().map_or("", |broken| broken.0)
    }

    fn text(times: &Times) -> String {
        private(times, &SigningKey::generate(Algorithm::Es256, &SystemRandom::new()).unwrap()).expose_secret().to_owned()
    }

    const BEGUN: Times = Times { signs_from: Timestamp::UNIX_EPOCH, signs_until: None, verifies_until: None };

    #[test]
    fn a_file_says_what_was_written_into_it() {
        let times = Times { signs_from: at(1_800_000_000), signs_until: Some(at(1_800_000_100)), verifies_until: Some(at(1_800_000_200)) };
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let pkcs8 = SigningKey::generate(algorithm, &SystemRandom::new()).unwrap();
            let read = KeyFile::parse(&private(&times, &pkcs8)).unwrap_or_else(|broken| panic!("{broken:?}"));
            let later = Times { signs_until: None, ..times };
            let changed = KeyFile::parse(&with_times(&private(&times, &pkcs8), &later)).unwrap_or_else(|broken| panic!("{broken:?}"));
            assert!(changed.times == later && matches!(changed.half, Half::Private(_)));
            let Half::Private(key) = read.half else { panic!("it is private") };
            assert_eq!((read.times, key.verifying().unwrap().algorithm()), (times, Some(algorithm)));
            let spki = key.verifying().unwrap().spki().unwrap();
            let read = KeyFile::parse(&public(&BEGUN, &spki)).unwrap_or_else(|broken| panic!("{broken:?}"));
            let Half::Public(key) = read.half else { panic!("it is public") };
            assert_eq!((read.times, key.spki()), (BEGUN, Some(spki)));
        }
    }

    #[test]
    fn a_key_that_openssl_made_is_read_once_it_says_when_it_begins() {
        // `openssl genpkey -algorithm ed25519`, the private half alone: the key of RFC 8410, 10.3.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        assert_eq!(broken(pem), "Signs-From is missing");
        let read = KeyFile::parse(&SecretString::from(format!("Signs-From: 2026-01-01T00:00:00Z\n{pem}"))).ok().map(|file| file.half);
        assert!(matches!(read, Some(Half::Private(SigningKey::EdDsa(_)))));
    }

    #[test]
    fn what_is_cut_bent_or_unknown_is_told() {
        let good = text(&BEGUN);
        assert_eq!(broken(&good), "");
        for (bent, told) in [
            (String::new(), "there is no PEM block"),
            (good.replace("Signs-From", "Signs-Form"), "a name before the key is not known"),
            (good.replace("Signs-From", "Comment"), "a name before the key is not known"),
            (good.replace("Signs-From:", "Signs-From"), "a name before the key is not known"),
            (format!("words\n{good}"), "a line before the key is no `Name: value`"),
            (format!("Signs-From: 2026-01-01T00:00:00Z\n{good}"), "a name before the key is repeated"),
            (good.replace("1970-01-01T00:00:00Z", "yesterday"), "a time is not RFC 3339"),
            (good.replace("PRIVATE KEY", "RSA PRIVATE KEY"), "the PEM block is neither a private key in PKCS#8 nor a public key"),
            (good.replace("END PRIVATE", "END PUBLIC"), "the PEM block is cut or bent"),
            (good.replace("-----END", "!-----END"), "the PEM block is cut or bent"),
            (good.replace("PRIVATE KEY", "PUBLIC KEY"), "the public key is neither Ed25519 nor P-256"),
            (good.clone() + &good, "something stands after the key"),
        ] {
            assert_eq!(broken(&bent), told, "{bent}");
        }
        let begin = good.find(BEGIN).unwrap();
        for cut in 0..good.trim_end().len() {
            assert!(!broken(&good[..cut]).is_empty(), "cut at {cut}, the key begins at {begin}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(head in ".{0,80}", body in ".{0,80}") {
            let _ = broken(&head);
            let _ = broken(&format!("{head}{BEGIN}{PRIVATE}{DASHES}{body}{END}{PRIVATE}{DASHES}"));
        }
    }
}
