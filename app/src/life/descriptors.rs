//! Open files: each connection is one. What the process needs for itself is taken off first, so that the database, the index and the operator's address can be
//! reached however many clients come. A client that finds no place is then answered by the cap on connections, which lets the one go that waited longest; a
//! process without descriptors could answer nobody.

use mainstay::config;
use mainstay::error::{Error, Result, codes};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::ExposeSecret;

/// Connections to the operator's address: scrapes, consoles, supervisors.
pub(super) const MANAGEMENT_MAX: usize = 64;
/// The standard streams, the runtime's own, the listening sockets, the index and a commit of it, mails on their way, keys that are read, a new process that is
/// started: about half of it.
const OWN: u64 = 64;
/// Of SQLite the file and its log, for the writer and the readers, and once more while one is replaced.
const SQLITE: u64 = 16;
/// Beside the pool of a PostgreSQL: who listens, who watches, and what is being replaced.
const BESIDE_POOL: u64 = 4;
/// Nodes of a cluster of Redis.
const REDIS: u64 = 32;
/// With places for fewer clients a service would seem to work, and refuse at the first rush.
const CONNECTIONS_MIN: u64 = 32;

/// Raises the limit on open files to what the system allows (the usual 1,024 is a shell's); gives the connections that there is room for.
///
/// # Errors
/// When there is room for next to none.
pub fn raise_descriptor_limit(stack: &config::Settings) -> Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(error = %error, "the limit on open files could not be raised");
    }
    connections(getrlimit(Resource::Nofile).current, stack)
}

fn connections(limit: Option<u64>, stack: &config::Settings) -> Result<usize> {
    let Some(limit) = limit else { return Ok(stack.connections_max) };
    let own = own(stack);
    let room = limit.saturating_sub(own);
    if room < CONNECTIONS_MIN {
        let message = format!(
            "The limit on open files is {limit}: the service itself needs {own}, and clients {CONNECTIONS_MIN} at least. Raise it to {} or more \
             (ulimit -Hn, LimitNOFILE, --ulimit nofile), or lower DB_POOL_MAX",
            own + CONNECTIONS_MIN
        );
        return Err(Error::new(&codes::INTERNAL).with_message(message));
    }
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if room < stack.connections_max {
        tracing::warn!(
            limit,
            own,
            connections_max = room,
            "the limit on open files is too low for CONNECTIONS_MAX: {} would do; fewer clients are connected at once",
            own + stack.connections_max as u64
        );
    }
    Ok(stack.connections_max.min(room))
}

/// What the process needs beside the connections of clients.
fn own(stack: &config::Settings) -> u64 {
    let servers = 1 + stack.database_replica_urls.len() as u64;
    let database =
        if stack.database_url.expose_secret().starts_with("sqlite:") { SQLITE } else { servers * (u64::from(stack.db_pool_max) + BESIDE_POOL) };
    let redis = if stack.redis_url.is_some() { REDIS } else { 0 };
    OWN + MANAGEMENT_MAX as u64 + database + redis
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay::config::Reader;

    fn stack(pairs: &[(&str, &str)]) -> config::Settings {
        let mut reader = Reader::from_pairs(pairs.iter().copied());
        config::Settings::read(&mut reader)
    }

    #[test]
    fn clients_get_what_the_service_leaves_and_too_little_is_told_in_numbers() {
        let sqlite = stack(&[]);
        assert_eq!(connections(None, &sqlite).unwrap(), 10_000);
        assert_eq!(connections(Some(1 << 20), &sqlite).unwrap(), 10_000);
        assert_eq!(connections(Some(1024), &sqlite).unwrap(), 1024 - 64 - 64 - 16);
        assert_eq!(connections(Some(176), &sqlite).unwrap(), 32);
        let told = connections(Some(175), &sqlite).unwrap_err().message().to_owned();
        assert!(told.contains("is 175") && told.contains("needs 144") && told.contains("to 176"), "{told}");
        let postgres = stack(&[
            ("DATABASE_URL", "postgres://u@127.0.0.1/d"),
            ("DATABASE_REPLICA_URL", "postgres://u@127.0.0.2/d"),
            ("DB_POOL_MAX", "30"),
            ("REDIS_URL", "redis://127.0.0.1"),
        ]);
        assert_eq!(connections(Some(1024), &postgres).unwrap(), 1024 - 64 - 64 - 2 * 34 - 32);
    }
}
