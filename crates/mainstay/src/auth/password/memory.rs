//! The memory that argon2 fills: each thread that hashes keeps its own.
//!
//! Promises: passwords take no more than 19 MiB for each thread between them, however many there were and whenever they came; nothing of a password stays in it.
//!
//! Taken anew for each password, 19 MiB would lie wherever the allocator has room just then: the service grows by them again hours later, and that cannot be told from a
//! leak. The system would also have to hand out, and clear, five thousand pages for each password.

use argon2::{Block, Error, Params};
use secrecy::zeroize::Zeroize;

use super::MEMORY_KIB;

/// What the hashes that are made today need. A dearer one, of an imported account, takes its own and gives it back.
const KEPT: usize = MEMORY_KIB as usize;

/// What one thread keeps; nothing before its first password.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

/// Memory for one hash. It is cleared afterwards: from its last pass the ones before can be reckoned back to the block that two steps of BLAKE2b make of a password, and
/// guessing against that costs nothing of what argon2 is there for.
pub(super) struct Blocks<'a>(Place<'a>);

enum Place<'a> {
    Kept(&'a mut [Block]),
    Own(Vec<Block>),
}

impl Memory {
    /// As much as such a hash fills. What is in it does not matter: argon2 writes every block before it reads it.
    ///
    /// # Errors
    /// When the system has not so much.
    pub(super) fn blocks(&mut self, params: &Params) -> Result<Blocks<'_>, Error> {
        let needed = params.block_count();
        if needed > KEPT {
            return Ok(Blocks(Place::Own(grown(Vec::new(), needed)?)));
        }
        if self.0.len() < KEPT {
            self.0 = grown(std::mem::take(&mut self.0), KEPT)?;
        }
        Ok(Blocks(Place::Kept(self.0.get_mut(..needed).ok_or(Error::MemoryTooLittle)?)))
    }
}

fn grown(mut blocks: Vec<Block>, count: usize) -> Result<Vec<Block>, Error> {
    blocks.try_reserve_exact(count - blocks.len()).map_err(|_| Error::OutOfMemory)?;
    blocks.resize(count, Block::new());
    Ok(blocks)
}

impl AsMut<[Block]> for Blocks<'_> {
    fn as_mut(&mut self) -> &mut [Block] {
        match &mut self.0 {
            Place::Kept(blocks) => blocks,
            Place::Own(blocks) => blocks,
        }
    }
}

impl Drop for Blocks<'_> {
    fn drop(&mut self) {
        self.as_mut().iter_mut().for_each(Zeroize::zeroize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::PASSES;
    use argon2::{Algorithm, Argon2, Version};
    use proptest::prelude::*;

    fn hashed(argon2: &Argon2<'_>, password: &[u8], memory: &mut Memory) -> [u8; 32] {
        let mut hash = [0; 32];
        argon2.hash_password_into_with_memory(password, b"salt of sixteen.", &mut hash, memory.blocks(argon2.params()).unwrap()).unwrap();
        hash
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_others_left_in_it_changes_no_hash(
            hashes in prop::collection::vec((0usize..3, 0usize..2, 8u32..200, 1u32..4, 1u32..3, any::<u64>()), 1..20),
        ) {
            let mut memory = Memory::default();
            for (algorithm, version, kib, passes, lanes, password) in hashes {
                let algorithm = [Algorithm::Argon2d, Algorithm::Argon2i, Algorithm::Argon2id][algorithm];
                let argon2 = Argon2::new(algorithm, [Version::V0x10, Version::V0x13][version], Params::new(kib.max(8 * lanes), passes, lanes, None).unwrap());
                let mut alone = [0; 32];
                argon2.hash_password_into(&password.to_be_bytes(), b"salt of sixteen.", &mut alone).unwrap();
                prop_assert_eq!(hashed(&argon2, &password.to_be_bytes(), &mut memory), alone);
            }
        }
    }

    #[test]
    fn it_stays_where_it_is_and_a_dear_hash_leaves_nothing() {
        let argon2 = |kib| Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(kib, 1, 1, None).unwrap());
        let mut memory = Memory::default();
        assert_eq!(memory.0.capacity(), 0, "before the first password");
        hashed(&argon2(8), b"a password", &mut memory);
        let (place, size) = (memory.0.as_ptr(), memory.0.capacity());
        assert_eq!(size, KEPT);
        for kib in [MEMORY_KIB, 64 * 1024, 8, MEMORY_KIB] {
            hashed(&argon2(kib), b"another password", &mut memory);
            assert_eq!((memory.0.as_ptr(), memory.0.capacity()), (place, size), "after one of {kib} KiB");
            assert!(memory.0.iter().all(|block| block.as_ref().iter().all(|word| *word == 0)), "something is left of a password");
        }
    }

    /// RFC 9106, 5.3, has an associated text and a secret, which ours have not; this is of the reference implementation's own tests (test.c, version 0x13, "argon2id").
    #[test]
    fn it_is_argon2id() {
        let params = Params::new(65_536, PASSES, 1, None).unwrap();
        let mut hash = [0; 32];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into_with_memory(b"password", b"somesalt", &mut hash, Memory::default().blocks(argon2.params()).unwrap()).unwrap();
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
    }
}
