//! Passwords: argon2id (RFC 9106), off the async threads, on a bounded number of cores.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use crate::error::{Error, Flaw, Result, codes};

/// The second choice of OWASP's cheat sheet: 19 MiB, two passes, one lane; about 20 ms of one core.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Eight is NIST's least for a memorised secret (SP 800-63B, 5.1.1.1); 128 keeps the work of normalising bounded.
const CHARS: std::ops::RangeInclusive<usize> = 8..=128;
/// Those who wait for a core per core that hashes: at 20 ms each they wait about half a second at most. One more is told to come back.
const WAITING_PER_CORE: usize = 24;

/// Hashes and verifies passwords.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    argon2: Argon2<'static>,
    cores: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
    /// Verified in place of the hash of an account that does not exist, so that both take the same time.
    decoy: String,
}

impl Passwords {
    /// Hashing on at most this many cores at once; each takes 19 MiB meanwhile.
    ///
    /// # Errors
    /// When the random source of the system fails.
    pub fn new(cores: usize) -> Result<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error.to_string()))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = hash(&argon2, "no account has this password")?;
        Ok(Self(Arc::new(Inner {
            argon2,
            cores: Semaphore::new(cores.max(1)),
            waiting: AtomicUsize::new(0),
            waiting_max: cores.max(1) * WAITING_PER_CORE,
            decoy,
        })))
    }

    /// May this be a password?
    ///
    /// # Errors
    /// When it is too short or too long.
    pub fn check(password: &SecretString) -> Result<(), Flaw> {
        let chars = password.expose_secret().chars().count();
        if CHARS.contains(&chars) {
            Ok(())
        } else {
            Err(Flaw::new("invalid_length", format!("must have {} to {} characters", CHARS.start(), CHARS.end())))
        }
    }

    /// The hash of a password, in PHC form.
    ///
    /// # Errors
    /// [`codes::OVERLOADED`] when too many wait already.
    pub async fn hash(&self, password: SecretString) -> Result<String> {
        self.on_a_core(move |inner| hash(&inner.argon2, &normalised(&password))).await?
    }

    /// Is this the password of the hash? Without a hash the answer is no, after the same time.
    ///
    /// # Errors
    /// [`codes::OVERLOADED`] when too many wait already.
    pub async fn verify(&self, password: SecretString, hash: Option<String>) -> Result<bool> {
        self.on_a_core(move |inner| {
            let stored = hash.as_deref().unwrap_or(&inner.decoy);
            let matches =
                PasswordHash::new(stored).is_ok_and(|stored| inner.argon2.verify_password(normalised(&password).as_bytes(), &stored).is_ok());
            matches && hash.is_some()
        })
        .await
    }

    async fn on_a_core<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> Result<T> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let already = self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.0.waiting);
        if already >= self.0.waiting_max {
            return Err(Error::new(&codes::OVERLOADED)
                .with_message("Too many sign-ins at once, please try again")
                .retry_after(Duration::from_secs(1)));
        }
        let internal = |error: Box<dyn std::error::Error + Send + Sync>| Error::new(&codes::INTERNAL).caused_by(error);
        let _permit = self.0.cores.acquire().await.map_err(|error| internal(error.into()))?;
        drop(waiting);
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(|error| internal(error.into()))
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

/// The same password typed on another keyboard is the same password (NIST SP 800-63B, 5.1.1.2).
fn normalised(password: &SecretString) -> String {
    password.expose_secret().nfkc().collect()
}

fn hash(argon2: &Argon2<'_>, password: &str) -> Result<String> {
    let hash = argon2.hash_password(password.as_bytes()).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error.to_string()))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_told_from_another_and_nobody_has_one() {
        let passwords = Passwords::new(1).unwrap();
        let hash = passwords.hash("Gr\u{fc}ne Stra\u{df}e 9".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("Gru\u{308}ne Stra\u{df}e 9".into(), Some(hash.clone())).await.unwrap(), "composed and decomposed are the same");
        assert!(!passwords.verify("gr\u{fc}ne stra\u{df}e 9".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("no account has this password".into(), None).await.unwrap());
        assert!(!passwords.verify("anything".into(), Some("not a hash".to_owned())).await.unwrap());
    }

    #[tokio::test]
    async fn a_crowd_beyond_the_bound_is_sent_away_at_once() {
        let passwords = Passwords::new(1).unwrap();
        let asked = (0..200).map(|_| {
            tokio::spawn({
                let passwords = passwords.clone();
                async move { passwords.verify("a password".into(), None).await }
            })
        });
        let mut refused = 0;
        for answer in asked.collect::<Vec<_>>() {
            if let Err(error) = answer.await.unwrap() {
                assert_eq!(error.code(), &codes::OVERLOADED);
                refused += 1;
            }
        }
        assert!((1..200).contains(&refused), "{refused}");
        assert!(passwords.verify("a password".into(), None).await.is_ok(), "and afterwards there is room again");
    }

    #[test]
    fn length_is_counted_in_characters() {
        let check = |password: &str| Passwords::check(&password.to_owned().into()).is_ok();
        assert!(
            !check("short")
                && check("12345678")
                && check("\u{1f600}\u{1f600}\u{1f600}\u{1f600}\u{1f600}\u{1f600}\u{1f600}\u{1f600}")
                && check(&"a".repeat(128))
                && !check(&"a".repeat(129))
        );
    }
}
