//! Passwords: argon2id (RFC 9106), off the async threads, on a bounded number of cores; what may be one; and the hashes of accounts that came from elsewhere.
//!
//! **Unknown accounts** cost a real verification, of a decoy, so time tells nothing about who has an account here.
//!
//! **Imported accounts** are different: bcrypt takes as long as its cost says, 50 ms for ten and 250 for twelve, and verifying a decoy beside it would only take longer. So every
//! wrong password, of whatever account, is answered no sooner than [`Passwords::answering_wrong_after`] says, which is to be set to what the dearest imported hash takes
//! as long as there are any. Waiting so costs no core. Without it an attacker can tell that an account is an old one, and which ones are not. Each such account gets a hash of
//! ours when it signs in ([`Verified::rehash`]), and when none is left the wait can go. A right password is answered at once: whoever has it learns nothing new.
//!
//! **Normalisation** is NFKC, here and nowhere else (NIST SP 800-63B-4, 3.1.1.2, asks for one of Unicode's forms): the same password typed on another keyboard, full-width ones
//! included, is the same password. What two passwords lose by that is less than a bit of a guess.

mod bcrypt;
mod memory;
mod room;
mod rules;
mod stored;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;
use unicode_normalization::UnicodeNormalization;

use self::memory::Memory;
use self::room::Room;
use self::stored::Stored;
use super::random;
use crate::error::{Error, Flaw, Result, codes};
use crate::stack::overload::Lent;

pub use room::Asker;
pub use rules::PasswordContext;

/// The second choice of OWASP's cheat sheet: 19 MiB, two passes, one lane; about 20 ms of one core.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// A longer text is no password of any account, ours have at most 128 characters of four bytes; it is not normalised, and costs the time of any other.
const BYTES_MAX: usize = 1024;

/// Hashes and verifies passwords. Cheap to clone; its threads end with the last clone.
#[derive(Clone)]
pub struct Passwords {
    hasher: Arc<Hasher>,
    room: Arc<Room>,
    wrong_after: Duration,
}

/// What a verification found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Verified {
    /// Is it the password of the account?
    pub right: bool,
    /// Should it be hashed anew and stored? Only for a right password whose hash was not made as hashes are made today.
    pub rehash: bool,
}

struct Hasher {
    argon2: Argon2<'static>,
    /// Verified in place of the hash of an account that does not exist, so that both take the same time.
    decoy: Stored,
}

impl Passwords {
    /// Hashing on at most this many cores at once. Each takes 19 MiB with its first password and keeps them; for imported hashes up to 64 more meanwhile.
    ///
    /// # Errors
    /// When the system has no randomness or no thread to give.
    pub fn new(cores: usize) -> Result<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| internal(error.to_string()))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = decoy(&argon2)?;
        let room = Room::new(cores).map_err(internal)?;
        Ok(Self { hasher: Arc::new(Hasher { argon2, decoy }), room: Arc::new(room), wrong_after: Duration::ZERO })
    }

    /// A wrong password is answered no sooner than so long after its verification began; for services with imported accounts, whose hashes take longer than ours.
    #[must_use]
    pub fn answering_wrong_after(self, wrong_after: Duration) -> Self {
        Self { wrong_after, ..self }
    }

    /// May this be a password of such an account?
    ///
    /// # Errors
    /// `invalid_length`, `too_common` or `too_similar`.
    pub fn check(password: &SecretString, context: &PasswordContext<'_>) -> Result<(), Flaw> {
        rules::check(password, context)
    }

    /// Can this hash be verified? For imports: an account with another one can sign in only after a new password was set.
    pub fn knows(&self, hash: &str) -> bool {
        Stored::parse(hash, self.hasher.argon2.params()).is_some()
    }

    /// The hash of a password, in PHC form. Each client stands in a line of its own for a core, and who is known on a side of his own.
    ///
    /// # Errors
    /// [`codes::OVERLOADED`] when too many wait already.
    pub async fn hash(&self, password: SecretString, asker: Asker) -> Result<String> {
        self.on_a_core(asker, move |hasher, memory| hash(&hasher.argon2, normalised(&password).expose_secret(), memory)).await?
    }

    /// Is this the password of the hash? Without a hash, and with one that is not known, the answer is no, after the same time.
    ///
    /// # Errors
    /// [`codes::OVERLOADED`] when too many wait already.
    pub async fn verify(&self, password: SecretString, hash: Option<String>, asker: Asker) -> Result<Verified> {
        let work = move |hasher: &Hasher, memory: &mut Memory| {
            let begun = Instant::now();
            (hasher.verify(&password, hash.as_deref(), memory), begun.elapsed())
        };
        let (verified, took) = self.on_a_core(asker, work).await?;
        if !verified.right && took < self.wrong_after {
            tokio::time::sleep(self.wrong_after - took).await;
        }
        Ok(verified)
    }

    async fn on_a_core<T: Send + 'static>(&self, asker: Asker, work: impl FnOnce(&Hasher, &mut Memory) -> T + Send + 'static) -> Result<T> {
        let crowded =
            || Error::new(&codes::OVERLOADED).with_message("Too many sign-ins at once, please try again").retry_after(Duration::from_secs(1));
        let (reply, answer) = oneshot::channel();
        let hasher = self.hasher.clone();
        let job = move |memory: &mut Memory| {
            // Whoever has left gets no core.
            if !reply.is_closed() {
                // A panic costs this answer and not the thread. The memory is cleared on its way out.
                let done = catch_unwind(AssertUnwindSafe(|| work(&hasher, memory)));
                let _ = reply.send(done);
            }
        };
        if !self.room.enter(asker, Box::new(job)) {
            return Err(crowded());
        }
        // No answer at all: the job gave way to somebody with fewer of them. The room bounds who waits here and whose turn it is, so no place among the requests
        // worked on is needed meanwhile: a flood of sign-ins takes none from others, and from honest sign-ins neither.
        Lent::during(answer).await.map_err(|_| crowded())?.map_err(|_| internal("hashing a password panicked"))
    }
}

impl Hasher {
    fn verify(&self, password: &SecretString, hash: Option<&str>, memory: &mut Memory) -> Verified {
        let possible = password.expose_secret().len() <= BYTES_MAX;
        let stored = hash.filter(|_| possible).and_then(|hash| Stored::parse(hash, self.argon2.params()));
        if let Some(stored) = stored {
            let right = stored.is_of(password, memory);
            return Verified { right, rehash: right && !stored.is_ours() };
        }
        let impossible = SecretString::from("");
        // For the time that it takes.
        std::hint::black_box(self.decoy.is_of(if possible { password } else { &impossible }, memory));
        Verified { right: false, rehash: false }
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

fn internal(cause: impl Into<crate::error::Cause>) -> Error {
    Error::new(&codes::INTERNAL).caused_by(cause)
}

/// The one form in which passwords are counted, compared and hashed.
fn normalised(password: &SecretString) -> SecretString {
    SecretString::from(password.expose_secret().nfkc().collect::<String>())
}

fn hash(argon2: &Argon2<'_>, password: &str, memory: &mut Memory) -> Result<String> {
    let salt = salt()?;
    let mut made = [0; Params::DEFAULT_OUTPUT_LEN];
    let blocks = memory.blocks(argon2.params()).map_err(|error| internal(error.to_string()))?;
    argon2.hash_password_into_with_memory(password.as_bytes(), &salt, &mut made, blocks).map_err(|error| internal(error.to_string()))?;
    Ok(written(argon2, salt, &made)?.to_string())
}

/// A hash that no password was made into: its output is as random as its salt, and finding one that fits is breaking argon2.
fn decoy(argon2: &Argon2<'_>) -> Result<Stored> {
    let output: [u8; Params::DEFAULT_OUTPUT_LEN] = random::bytes(&SystemRandom::new())?;
    let hash = written(argon2, salt()?, &output)?;
    Stored::parse(&hash.to_string(), argon2.params()).ok_or_else(|| internal("our own form of a hash is not taken"))
}

fn salt() -> Result<Salt> {
    let bytes: [u8; Salt::RECOMMENDED_LENGTH] = random::bytes(&SystemRandom::new())?;
    Salt::new(&bytes).map_err(|error| internal(error.to_string()))
}

/// A hash in PHC form.
fn written(argon2: &Argon2<'_>, salt: Salt, output: &[u8]) -> Result<PasswordHash> {
    Ok(PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(argon2.params()).map_err(|error| internal(error.to_string()))?,
        salt: Some(salt),
        hash: Some(Output::new(output).map_err(|error| internal(error.to_string()))?),
    })
}

#[cfg(test)]
mod tests;
