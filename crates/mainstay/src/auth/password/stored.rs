//! A password hash as the database has it: ours, one of ours from before the parameters changed, or one that an account brought from elsewhere.
//!
//! Promises: no hash makes a verification take more than about a second of one core or 64 MiB, whatever it says of its own costs.

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::bcrypt::Bcrypt;
use super::memory::Memory;
use super::normalised;

/// The second choice of RFC 9106, 4, and more than any framework's default; three times ours.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
/// Memory times passes, which is what time is proportional to: about a second, as the dearest bcrypt that is taken.
const WORK_KIB_MAX: u32 = 1024 * 1024;
/// Lanes cost nothing here, they are filled one after the other; beyond this a hash was not made for people.
const LANES_MAX: u32 = 16;

/// A hash that can be verified.
pub(super) enum Stored {
    Argon2 { made: Box<Made>, ours: bool },
    Bcrypt(Bcrypt),
}

/// How a hash of argon2 was made, and what came of it.
pub(super) struct Made {
    argon2: Argon2<'static>,
    salt: Salt,
    output: Output,
}

impl Stored {
    /// Reads a hash. None for what is none of a kind that is known, and for what would cost too much. `today` is how hashes are made now.
    pub(super) fn parse(text: &str, today: &Params) -> Option<Self> {
        if text.starts_with("$2") {
            return Bcrypt::parse(text).map(Self::Bcrypt);
        }
        let hash = PasswordHash::new(text).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        let version = hash.version.and_then(|version| Version::try_from(version).ok())?;
        let params = Params::try_from(&hash).ok()?;
        let (salt, output) = (hash.salt?, hash.hash?);
        let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        if memory > MEMORY_KIB_MAX || memory.saturating_mul(passes) > WORK_KIB_MAX || lanes > LANES_MAX {
            return None;
        }
        let costs = (memory, passes, lanes) == (today.m_cost(), today.t_cost(), today.p_cost());
        let ours = algorithm == Algorithm::Argon2id && version == Version::V0x13 && costs && output.len() >= Params::DEFAULT_OUTPUT_LEN;
        Some(Self::Argon2 { made: Box::new(Made { argon2: Argon2::new(algorithm, version, params), salt, output }), ours })
    }

    /// Is the hash made as hashes are made today?
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Argon2 { ours: true, .. })
    }

    /// Is this the password of the hash?
    pub(super) fn is_of(&self, password: &SecretString, memory: &mut Memory) -> bool {
        match self {
            Self::Bcrypt(hash) => hash.is_of(password.expose_secret().as_bytes()),
            Self::Argon2 { made, ours } => {
                let usual = normalised(password);
                // A hash with other parameters may be ours from before or another system's, which did not normalise.
                made.is_of(&usual, memory) || (!ours && usual.expose_secret() != password.expose_secret() && made.is_of(password, memory))
            }
        }
    }
}

impl Made {
    fn is_of(&self, password: &SecretString, memory: &mut Memory) -> bool {
        let mut buffer = [0; Output::MAX_LENGTH];
        let Some(made) = buffer.get_mut(..self.output.len()) else { return false };
        let Ok(blocks) = memory.blocks(self.argon2.params()) else { return false };
        let done = self.argon2.hash_password_into_with_memory(password.expose_secret().as_bytes(), &self.salt, made, blocks);
        done.is_ok() && made.ct_eq(self.output.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<bool> {
        let today = Params::new(super::super::MEMORY_KIB, super::super::PASSES, 1, None).unwrap();
        Stored::parse(text, &today).map(|stored| stored.is_ours())
    }

    #[test]
    fn what_costs_too_much_is_not_taken() {
        let hash = |kind: &str, costs: &str| read(&format!("${kind}${costs}$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
        assert_eq!(hash("argon2id", "v=19$m=19456,t=2,p=1"), Some(true));
        for foreign in ["v=19$m=65536,t=3,p=4", "v=19$m=65536,t=16,p=1", "v=19$m=19456,t=3,p=1", "v=16$m=19456,t=2,p=1", "v=19$m=19456,t=2,p=2"] {
            assert_eq!(hash("argon2id", foreign), Some(false), "{foreign}");
        }
        assert_eq!((hash("argon2i", "v=19$m=19456,t=2,p=1"), hash("argon2d", "v=19$m=19456,t=2,p=1")), (Some(false), Some(false)));
        for dear in [
            "v=19$m=65537,t=1,p=1",
            "v=19$m=65536,t=17,p=1",
            "v=19$m=4294967295,t=4294967295,p=1",
            "v=19$m=65536,t=3,p=17",
            "v=19$m=8,t=1,p=16777215",
        ] {
            assert_eq!(hash("argon2id", dear), None, "{dear}");
        }
        for other in ["scrypt", "pbkdf2-sha256", "argon2"] {
            assert_eq!(hash(other, "v=19$m=19456,t=2,p=1"), None, "{other}");
        }
        assert_eq!(read("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAA"), Some(false), "a short one is made anew");
        assert_eq!((read(""), read("$"), read("$2b$"), read("plain")), (None, None, None, None));
    }
}
