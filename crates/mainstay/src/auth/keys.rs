//! What signs access tokens and what verifies them: a shared secret (HS256), or a folder of keys (EdDSA, ES256) that are rotated while everybody serves.
//!
//! Both may be given: then the folder signs, and tokens under the secret are still verified, for those who move from one to the other.
//!
//! An instance looks at the folder every [`LOOK_INTERVAL`], and once more when a token names a key that it has not met. What it has found good stays
//! until its file is gone: a file that cannot be read takes away nothing and is reported, and so is a folder without a key that can sign.
//!
//! Why a rotation costs no failed verification: a key that follows another waits, published, for its time (`keyring.rs`); its `lead` is many looks long,
//! and an end by command is three looks ahead. So whoever signs with a key does it when every other instance has met it. The look for an unknown key is
//! a second line, for a key that has to step in at once.

mod directory;
mod file;
pub(super) mod header;
mod jwk;
mod keyring;
pub(super) mod signature;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use ring::hmac;
use secrecy::{ExposeSecret, SecretSlice};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, MissedTickBehavior};

pub use directory::{Created, Directory, END_LEAD, Listed, Problem};
pub use jwk::{Jwk, JwkSet};
pub(super) use keyring::Key;
pub use keyring::State;
use keyring::{Found, Keyring};
pub use signature::Algorithm;
use signature::VerifyingKey;

use super::token::Refused;
use crate::error::{Error, Result, codes};

/// Reading a few small files takes under a millisecond; a new key may take this long to be met.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks for unknown keys: a flood of made-up names costs five reads of the folder a second, a few thousandths of one core.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(200);
/// A request waits this long for such a look. A folder on a network that is slower is not worth a request's time: the next look will have it.
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(250);

/// The header is one of a key that we have not met.
pub(super) const UNKNOWN_KEY: Refused = Refused("unknown key");

/// The keys of one issuer.
pub struct Keys(Kind);

enum Kind {
    Secret(Secret),
    Folder(Arc<Folder>, Option<Secret>),
}

struct Secret {
    signing: hmac::Key,
    verifying: VerifyingKey,
}

struct Folder {
    directory: Directory,
    keyring: RwLock<Arc<Keyring>>,
    /// One read at a time: whoever reads holds it until the read has ended, also when nobody waits for it any more.
    turn: Arc<Mutex<Turn>>,
    /// Reads that have ended.
    reads: AtomicU64,
}

#[derive(Default)]
struct Turn {
    /// When an unknown key was last looked for.
    looked: Option<Timestamp>,
    /// What was wrong at the last read, so that only a change is reported.
    problems: Vec<Problem>,
}

/// Signs one token.
pub(super) enum Signs<'a> {
    Secret(&'a hmac::Key),
    Key(Arc<Key>),
}

/// Verifies one token.
pub(super) enum Verifies<'a> {
    Secret(&'a VerifyingKey),
    Key(Arc<Key>),
}

impl Keys {
    /// A shared secret signs and verifies.
    pub fn from_secret(secret: &SecretSlice<u8>) -> Self {
        Self(Kind::Secret(Secret::new(secret)))
    }

    /// The keys of a folder sign and verify; a `secret` still verifies.
    ///
    /// # Errors
    /// When the folder cannot be read, or no key in it can sign.
    pub fn open(directory: Directory, secret: Option<&SecretSlice<u8>>) -> Result<Self> {
        let path = directory.path().display().to_string();
        let folder = Folder { directory, keyring: RwLock::default(), turn: Arc::default(), reads: AtomicU64::new(0) };
        let mut turn = Turn::default();
        folder.read(&mut turn);
        if !folder.keyring().is_usable() {
            let problems: Vec<_> = turn.problems.iter().map(|problem| format!("{}: {}", problem.file, problem.reason)).collect();
            let message = format!("No key in {path} can sign: `mainstay keys new` makes one\n  {}", problems.join("\n  "));
            return Err(Error::new(&codes::INTERNAL).with_message(message));
        }
        let folder = Folder { turn: Arc::new(Mutex::new(turn)), ..folder };
        Ok(Self(Kind::Folder(Arc::new(folder), secret.map(Secret::new))))
    }

    /// Looks at the folder every [`LOOK_INTERVAL`] from now on, until these keys are dropped. Nothing for a shared secret.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn watch(&self) {
        self.watch_every(LOOK_INTERVAL);
    }

    fn watch_every(&self, interval: Duration) {
        let Some(folder) = self.folder().map(Arc::downgrade) else { return };
        tokio::spawn(async move {
            let mut tick = tokio::time::interval_at(Instant::now() + interval, interval);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let Some(folder) = folder.upgrade() else { return };
                folder.look().await;
            }
        });
    }

    /// Looks at the folder now.
    pub async fn look(&self) {
        if let Some(folder) = self.folder() {
            folder.clone().look().await;
        }
    }

    /// The public keys that verify now or soon.
    pub(super) fn published(&self, now: Timestamp, expiry: Duration) -> JwkSet {
        let Some(folder) = self.folder() else { return JwkSet::default() };
        let keyring = folder.keyring();
        let verifying = keyring.lives(now, expiry).filter(|life| life.state != State::Retired);
        JwkSet { keys: verifying.map(|life| life.key.jwk.clone()).collect() }
    }

    /// What signs now. A secret beside a folder signs until the first key of the folder begins: so that every instance can have the folder before one of
    /// them uses it.
    pub(super) fn signer(&self, now: Timestamp) -> Signs<'_> {
        match &self.0 {
            Kind::Secret(secret) => Signs::Secret(&secret.signing),
            Kind::Folder(folder, secret) => {
                let keyring = folder.keyring();
                match secret {
                    Some(secret) if !keyring.has_begun(now) => Signs::Secret(&secret.signing),
                    _ => Signs::Key(keyring.signer(now).cloned().expect("a keyring is only taken if it can always sign")),
                }
            }
        }
    }

    fn folder(&self) -> Option<&Arc<Folder>> {
        match &self.0 {
            Kind::Secret(_) => None,
            Kind::Folder(folder, _) => Some(folder),
        }
    }

    fn secret(&self) -> Option<&Secret> {
        match &self.0 {
            Kind::Secret(secret) => Some(secret),
            Kind::Folder(_, secret) => secret.as_ref(),
        }
    }

    /// What verifies tokens with this header.
    pub(super) fn find(&self, header: &str, now: Timestamp, expiry: Duration) -> Result<Verifies<'_>, Refused> {
        if let (Some(secret), header::OF_SECRET) = (self.secret(), header) {
            return Ok(Verifies::Secret(&secret.verifying));
        }
        let foreign = Refused("not a header of ours");
        let Some(folder) = self.folder() else { return Err(foreign) };
        match folder.keyring().find(header, now, expiry) {
            Found::Key(key) => Ok(Verifies::Key(key.clone())),
            Found::Retired => Err(Refused("retired key")),
            Found::Nothing if header::may_be_ours(header) => Err(UNKNOWN_KEY),
            Found::Nothing => Err(foreign),
        }
    }

    /// Reads of the folder that have begun so far; for [`Self::look_again`].
    pub(super) fn reads(&self) -> u64 {
        self.folder().map_or(0, |folder| folder.reads.load(Ordering::SeqCst))
    }

    /// After an unknown key: has a read of the folder ended after the first `reads`, so that asking again makes sense? Makes one if there was
    /// none, unless that was done a moment ago. Whoever comes while another one reads waits for it.
    pub(super) async fn look_again(&self, reads: u64, now: Timestamp) -> bool {
        let Some(folder) = self.folder() else { return false };
        let look = async {
            let mut turn = folder.turn.clone().lock_owned().await;
            if folder.reads.load(Ordering::SeqCst) > reads {
                return true;
            }
            // A clock that was set back must not keep us from looking until it is where it was.
            let waited = turn.looked.and_then(|looked| Duration::try_from(now.duration_since(looked)).ok());
            if waited.is_some_and(|waited| waited < UNKNOWN_INTERVAL) {
                return false;
            }
            turn.looked = Some(now);
            folder.clone().read_in_turn(turn).await;
            true
        };
        tokio::time::timeout(UNKNOWN_PATIENCE, look).await.unwrap_or(false)
    }
}

impl Secret {
    fn new(secret: &SecretSlice<u8>) -> Self {
        Self { signing: hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret()), verifying: VerifyingKey::from_secret(secret) }
    }
}

impl Folder {
    fn keyring(&self) -> Arc<Keyring> {
        // It is replaced as a whole, so a writer that panicked has left a good one.
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look(self: Arc<Self>) {
        let turn = self.turn.clone().lock_owned().await;
        self.read_in_turn(turn).await;
    }

    /// Reads on a thread that may block. The turn goes with it: a folder that hangs holds one thread, not one more with every look.
    async fn read_in_turn(self: Arc<Self>, mut turn: OwnedMutexGuard<Turn>) {
        // It fails only if the read panicked, which the panic hook has told.
        let _ = tokio::task::spawn_blocking(move || self.read(&mut turn)).await;
    }

    fn read(&self, turn: &mut Turn) {
        let before = self.keyring();
        let problems = match self.directory.read(before.kids()) {
            Ok(directory::Found { mut keys, mut problems }) => {
                // What was good before its file was broken stays.
                keys.extend(problems.iter().filter_map(|problem| before.get(problem.file.strip_suffix(".pem")?).cloned()));
                let keyring = Keyring::new(keys);
                if keyring.is_usable() {
                    if !keyring.kids().eq(before.kids()) {
                        tracing::info!(keys = keyring.kids().count(), "keys of access tokens read");
                    }
                    *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
                } else {
                    problems.push(self.problem("no key in it can sign now and later"));
                }
                problems
            }
            Err(error) => vec![self.problem(&error.to_string())],
        };
        #[allow(clippy::cast_precision_loss)] // At most some dozens.
        metrics::gauge!("mainstay_key_problems").set(problems.len() as f64);
        if problems != turn.problems {
            for Problem { file, reason } in &problems {
                tracing::error!(file, reason, "a key of access tokens cannot be used; what was read before stays in use");
            }
            turn.problems = problems;
        }
        // When its keys are there: whoever looked a key up meanwhile in vain finds that there is more to ask.
        self.reads.fetch_add(1, Ordering::SeqCst);
    }

    fn problem(&self, reason: &str) -> Problem {
        Problem { file: self.directory.path().display().to_string(), reason: reason.to_owned() }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder().map(|folder| folder.directory.path());
        f.debug_struct("Keys").field("folder", &folder).field("secret", &self.secret().is_some()).finish()
    }
}

#[cfg(test)]
mod tests;
