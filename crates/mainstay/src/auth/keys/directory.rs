//! The folder of keys: one file a key, `<kid>.pem`, written so that no reader ever meets half of one.
//!
//! A file is written under another name, brought to the disk and renamed over the old one (RENAME(2) is atomic), so an instance that reads meanwhile, or
//! a machine that loses its power, has the old text or the new one. Nothing else keeps state: copies of the folder carry it with them, and any number of
//! instances may share one. Instances only read; only the commands `keys new` and `keys retire` write. Files are for their owner only (0600).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::rand::SecureRandom;
use secrecy::{ExposeSecret, SecretString};

use super::file::{self, Broken, Half, KeyFile, Times};
use super::header::is_kid;
use super::keyring::{Key, Keyring, Life, State};
use super::signature::{Algorithm, SigningKey};
use crate::error::{Error, Result, codes};

/// A key a month for two years, none of them ever tidied away. More is a mistake, and would make every look at the folder slow.
const KEYS_MAX: usize = 32;
/// A P-256 key in PEM has 250 bytes, and the times before it 100.
const FILE_BYTES_MAX: u64 = 4096;
/// Three looks: all instances know of an end before it comes.
pub const END_LEAD: Duration = Duration::from_secs(3 * super::LOOK_INTERVAL.as_secs());
const EXTENSION: &str = ".pem";

/// A folder of keys.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    /// Is a private key that others may read refused?
    strict: bool,
}

/// A file that is no key of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its name in the folder, or the folder's.
    pub file: String,
    /// What is wrong.
    pub reason: String,
}

/// What a look into the folder found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) keys: Vec<Arc<Key>>,
    pub(super) problems: Vec<Problem>,
}

/// A key that was made.
#[derive(Debug)]
pub struct Created {
    /// Its name.
    pub kid: String,
    /// When it begins to sign.
    pub signs_from: Timestamp,
    /// Keys whose files went with it: nothing that they signed is accepted any more.
    pub removed: Vec<String>,
}

/// A key of the folder, for people.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// Where it is in its life.
    pub state: State,
    /// When it begins, or began, to sign.
    pub signs_from: Timestamp,
    /// Until when it verifies, if that is known.
    pub verifies_until: Option<Timestamp>,
}

impl Directory {
    /// The folder at `path`. A `strict` one takes no private key that anyone but its owner may read.
    pub fn new(path: impl Into<PathBuf>, strict: bool) -> Self {
        Self { path: path.into(), strict }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every key in the order of their lives, and every file that is none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, now: Timestamp, expiry: Duration) -> Result<(Vec<Listed>, Vec<Problem>)> {
        let found = self.look()?;
        let keyring = Keyring::new(found.keys);
        let listed = keyring.lives(now, expiry).map(|Life { key, state, verifies_until, .. }| Listed {
            kid: key.kid.clone(),
            algorithm: key.algorithm,
            state,
            signs_from: key.times.signs_from,
            verifies_until,
        });
        Ok((listed.collect(), found.problems))
    }

    /// Makes a key that signs after `lead`, so that everybody who verifies has it by then, and tidies the folder. Keys begin in the order in which they were made:
    /// where another one has not begun yet, the new one begins after it, so that whoever steps in for a key that was ended is not the one nobody has read.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or is full.
    pub fn create(&self, algorithm: Algorithm, lead: Duration, expiry: Duration, now: Timestamp, random: &dyn SecureRandom) -> Result<Created> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(|error| self.failed(&error))?;
        let Found { keys, problems } = self.look()?;
        let files = keys.len() + problems.len();
        let waiting = keys.iter().filter(|key| key.times.signs_until.is_none() && key.times.signs_from > now);
        let last = waiting.map(|key| key.times.signs_from).max();
        let removed = self.tidy(&Keyring::new(keys), expiry, now, random)?;
        if files >= KEYS_MAX + removed.len() {
            return Err(told(format!("{} holds {KEYS_MAX} keys already: take away some that are retired", self.path.display())));
        }
        let after = |from: Timestamp, wait: Duration| from.checked_add(wait).map_err(|_| told("The key would begin after the end of time"));
        let signs_from = after(whole(now), lead)?.max(last.map_or(Ok(whole(now)), |last| after(last, Duration::from_secs(1)))?);
        let (kid, text) = made(algorithm, signs_from, random).ok_or_else(|| told("The system has no randomness to give"))?;
        self.write(&kid, &text, random).map_err(|error| self.failed(&error))?;
        Ok(Created { kid, signs_from, removed })
    }

    /// Ends the signing of a key, [`END_LEAD`] from now so that all instances do it together, or with `at_once` now. What it signed is verified until it
    /// expires, or with `at_once` no longer. Gives the time of its end, and tidies the folder.
    ///
    /// # Errors
    /// When there is no such key, when no other would be left to sign, or when the folder cannot be read or written.
    pub fn retire(&self, kid: &str, at_once: bool, expiry: Duration, now: Timestamp, random: &dyn SecureRandom) -> Result<Timestamp> {
        let mut keys = self.look()?.keys;
        let keyring = Keyring::new(keys.clone());
        let removed = self.tidy(&keyring, expiry, now, random)?;
        let signs = keyring.signer(now).is_some_and(|signer| signer.kid == kid);
        let place = keys.iter().position(|key| key.kid == kid).ok_or_else(|| told(format!("{} holds no key `{kid}`", self.path.display())))?;
        let key = keys.swap_remove(place);
        let Times { signs_from, signs_until, verifies_until } = key.times;
        if removed.iter().any(|removed| removed == kid) {
            return Ok(signs_until.unwrap_or(now));
        }
        // One that stepped in before its time has begun.
        let signs_from = if signs { signs_from.min(whole(now)) } else { signs_from };
        // One that has not begun needs no time: nobody signs with it.
        let end = if at_once || signs_from > now { whole(now) } else { whole(now).checked_add(END_LEAD).unwrap_or(Timestamp::MAX) };
        let earlier = |known: Option<Timestamp>, end: Timestamp| Some(known.map_or(end, |known| known.min(end)));
        let times = Times {
            signs_from,
            signs_until: earlier(signs_until, end),
            verifies_until: if at_once { earlier(verifies_until, end) } else { verifies_until },
        };
        // The private half stays where it still signs; the next command takes it away.
        let text = match self.read_file(kid) {
            Ok((text, _)) if end > now => file::with_times(&text, &times),
            _ => file::public(&times, &key.verifying.spki().unwrap_or_default()),
        };
        let file = KeyFile::parse(&text).map_err(|Broken(reason)| told(reason))?;
        keys.extend(Key::new(kid, file).map(Arc::new));
        if !Keyring::new(keys).is_usable() {
            return Err(told(format!("No other key would be left to sign: make one first (`mainstay keys new`), then retire `{kid}`")));
        }
        self.write(kid, &text, random).map_err(|error| self.failed(&error))?;
        Ok(times.signs_until.unwrap_or(end))
    }

    /// Takes away what nobody needs any more: files of keys that verify nothing, and private halves of keys that sign nothing. Gives the names of the keys
    /// that went. The oldest go first and none before an older one, whose end is known from the ones after it.
    fn tidy(&self, keyring: &Keyring, expiry: Duration, now: Timestamp, random: &dyn SecureRandom) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for (place, life) in keyring.lives(now, expiry).enumerate() {
            let kid = &life.key.kid;
            if life.state == State::Retired && removed.len() == place {
                fs::remove_file(self.file(kid)).map_err(|error| self.failed(&error))?;
                removed.push(kid.clone());
            } else if life.is_over(now) {
                let text = file::public(&life.key.times, &life.key.verifying.spki().unwrap_or_default());
                self.write(kid, &text, random).map_err(|error| self.failed(&error))?;
            }
        }
        Ok(removed)
    }

    /// Reads the folder.
    fn look(&self) -> Result<Found> {
        self.read([].into_iter()).map_err(|error| self.failed(&error))
    }

    /// Reads the folder. The files of `known` keys are asked for by name as well: a listing that runs beside a rename may miss the file (POSIX leaves it
    /// open), and a key must not go because another one was written.
    pub(super) fn read<'a>(&self, known: impl Iterator<Item = &'a str>) -> io::Result<Found> {
        let mut found = Found::default();
        let mut kids: BTreeSet<String> = known.map(str::to_owned).collect();
        let mut listed = 0;
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // Names with a dot in front are files being written, and what Kubernetes keeps beside mounted secrets. Other files are nobody's business.
            let Some(kid) = name.strip_suffix(EXTENSION).filter(|kid| !kid.starts_with('.')) else { continue };
            if is_kid(kid) {
                kids.insert(kid.to_owned());
            } else {
                found.problems.push(Problem { file: name, reason: "the name may have 1 to 64 letters, digits, `-` and `_`".to_owned() });
            }
            listed += 1;
            if listed > KEYS_MAX {
                return Err(io::Error::other(format!("it holds more than {KEYS_MAX} keys")));
            }
        }
        for kid in kids {
            match self.read_key(&kid) {
                Ok(key) => found.keys.push(Arc::new(key)),
                Err(None) => {}
                Err(Some(reason)) => found.problems.push(Problem { file: kid + EXTENSION, reason }),
            }
        }
        Ok(found)
    }

    /// One key; no reason when there is no such file.
    fn read_key(&self, kid: &str) -> Result<Key, Option<String>> {
        let (text, mode) = self.read_file(kid)?;
        let file = KeyFile::parse(&text).map_err(|Broken(reason)| Some(reason.to_owned()))?;
        if self.strict && matches!(file.half, Half::Private(_)) && mode & 0o077 != 0 {
            return Err(Some(format!("the private key may be read or written by others (mode {:o}): chmod 600", mode & 0o777)));
        }
        Key::new(kid, file).ok_or_else(|| Some("holds no public key".to_owned()))
    }

    /// The text of a file, and its mode.
    fn read_file(&self, kid: &str) -> Result<(SecretString, u32), Option<String>> {
        let failed = |error: io::Error| if error.kind() == ErrorKind::NotFound { None } else { Some(format!("cannot be read: {error}")) };
        let path = self.file(kid);
        // Looked at before it is opened: opening a pipe would wait for its writer.
        if !fs::metadata(&path).map_err(failed)?.is_file() {
            return Err(Some("is no file".to_owned()));
        }
        let file = File::open(&path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        let text = SecretString::from(text);
        if read.map_err(failed)? as u64 > FILE_BYTES_MAX {
            return Err(Some(format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        Ok((text, mode))
    }

    fn file(&self, kid: &str) -> PathBuf {
        self.path.join(format!("{kid}{EXTENSION}"))
    }

    /// Puts the file there as a whole.
    fn write(&self, kid: &str, text: &SecretString, random: &dyn SecureRandom) -> io::Result<()> {
        let mut tag = [0; 8];
        random.fill(&mut tag).map_err(|_| io::Error::other("the system has no randomness to give"))?;
        let draft = self.path.join(format!(".{kid}.{:016x}", u64::from_be_bytes(tag)));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(text.expose_secret().as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, self.file(kid))?;
            // The name is on the disk only when the folder is.
            File::open(&self.path)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    fn failed(&self, error: &io::Error) -> Error {
        told(format!("The folder of keys {} cannot be used: {error}", self.path.display()))
    }
}

/// A new key: its name, which is its thumbprint (RFC 7638), and the text of its file.
fn made(algorithm: Algorithm, signs_from: Timestamp, random: &dyn SecureRandom) -> Option<(String, SecretString)> {
    // One in 64 thumbprints begins with `-`, which a command line would take for an option; thirty in a row do not.
    for _ in 0..30 {
        let pkcs8 = SigningKey::generate(algorithm, random)?;
        let kid = super::jwk::Jwk::new("", &SigningKey::from_pkcs8(&pkcs8)?.verifying()?)?.thumbprint();
        if !kid.starts_with('-') {
            return Some((kid, file::private(&Times { signs_from, signs_until: None, verifies_until: None }, &pkcs8)));
        }
    }
    None
}

/// Times are written in whole seconds: nobody needs more, and a time is compared as it is written.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn told(words: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(&codes::INTERNAL).with_message(words)
}

#[cfg(test)]
mod tests;
