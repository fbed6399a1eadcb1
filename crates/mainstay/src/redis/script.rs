//! A script that runs on the server, as one step.

use redis::{Cmd, ToRedisArgs};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// A script in Lua. The server keeps it under its hash, so that its text is sent once.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    /// The script of this text.
    pub fn new(text: &'static str) -> Self {
        // A name, not a proof: Redis knows no other hash.
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, hash: hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    pub(super) fn by_hash(&self, keys: &[&str], arguments: &[impl ToRedisArgs]) -> Cmd {
        command("EVALSHA", &self.hash, keys, arguments)
    }

    pub(super) fn by_text(&self, keys: &[&str], arguments: &[impl ToRedisArgs]) -> Cmd {
        command("EVAL", self.text, keys, arguments)
    }
}

fn command(name: &str, what: &str, keys: &[&str], arguments: &[impl ToRedisArgs]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(what).arg(keys.len()).arg(keys).arg(arguments);
    command
}
