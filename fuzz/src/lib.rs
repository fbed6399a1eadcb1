//! Fuzz targets: everything of Mainstay that parses what somebody else wrote, each with what must hold of it beside that it does not panic.
//!
//! A target is a function of bytes. `scripts/fuzz` drives them with libFuzzer; `tests/corpus.rs` replays what it found, in every test run. How to run them,
//! and what to do with a finding: [docs/fuzzing.md](../../docs/fuzzing.md).

// An assertion that fails is how a target speaks; what it unwraps it has made itself.
#![allow(clippy::unwrap_used)]

mod input;
mod targets;

/// What is fuzzed under one name, with one corpus.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of the folder of its corpus.
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
    /// The longest input worth trying: no longer than what decides, for speed.
    pub bytes_max: usize,
}

macro_rules! targets {
    ($($name:ident $bytes_max:literal)*) => {
        /// Every target.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: targets::$name::run, bytes_max: $bytes_max }),*];
    };
}

targets! {
    account 512
    chunks 512
    cursor 1024
    fields 1024
    forwarded 512
    head 1024
    import 4096
    json 1024
    listing 1024
    password 512
    price 64
    query 512
    redis_answers 512
    search 256
    secrets 256
    settings 1024
    stored_hash 256
    tier 1024
    token 1024
}

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
