//! Do all instances together fit into the database?

use super::error::Error;
use super::query::{Query, query};
use super::row::Row;
use std::fmt;

/// What PostgreSQL says about its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `max_connections`.
    pub max_connections: u64,
    /// Of these, kept back for administrators: `superuser_reserved_connections` and, from PostgreSQL 16,
    /// `reserved_connections`.
    pub reserved: u64,
}

pub(super) fn question() -> Query {
    query(
        "SELECT current_setting('max_connections')::bigint AS max_connections,
                current_setting('superuser_reserved_connections')::bigint
                + coalesce(current_setting('reserved_connections', true)::bigint, 0) AS reserved",
    )
}

pub(super) fn read(row: &Row) -> Result<ConnectionLimits, Error> {
    let read = |column| row.get::<i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
    Ok(ConnectionLimits { max_connections: read("max_connections")?, reserved: read("reserved")? })
}

/// Which server is asked for room: it says what an instance connects to it beside its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The only one: one connection listens ([`super::Database::listen`]).
    Alone,
    /// One with replicas: another one asks where its log ends.
    Primary,
    /// A replica: one looks at it.
    Replica,
}

impl Server {
    fn beside(self) -> (u64, &'static str) {
        match self {
            Server::Alone => (1, "1 that listens"),
            Server::Primary => (2, "2 that listen and watch"),
            Server::Replica => (1, "1 that watches"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Server::Alone | Server::Primary => "the database",
            Server::Replica => "the replica",
        }
    }
}

/// The instances want more connections than there are; `Display` spells the sum out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// Whose room it is.
    pub server: Server,
    /// Instances that share the database.
    pub instances: u64,
    /// Connections that the pool of each may open.
    pub pool_max: u64,
    /// What the server has.
    pub limits: ConnectionLimits,
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arithmetic { server, instances, pool_max, limits: ConnectionLimits { max_connections, reserved } } = *self;
        let wanted = wanted(server, instances, pool_max);
        let usable = max_connections.saturating_sub(reserved);
        let ((beside, words), name) = (server.beside(), server.name());
        write!(
            f,
            "{instances} instances x ({pool_max} connections + {words}) = {wanted}, but {name} allows \
             max_connections {max_connections} - {reserved} reserved = {usable}; "
        )?;
        match usable.checked_div(instances) {
            Some(fits) if fits > beside => write!(f, "set the pool to at most {}, or raise max_connections", fits - beside),
            _ => write!(f, "run fewer instances, or raise max_connections"),
        }
    }
}

impl std::error::Error for Arithmetic {}

fn wanted(server: Server, instances: u64, pool_max: u64) -> u64 {
    instances.saturating_mul(pool_max.saturating_add(server.beside().0))
}

/// Refuses more instances and connections than a server has room for.
///
/// # Errors
/// [`Arithmetic`] when `instances * (pool_max + those beside it) > max_connections - reserved`.
pub fn check_arithmetic(server: Server, instances: u64, pool_max: u64, limits: ConnectionLimits) -> Result<(), Arithmetic> {
    let fits = wanted(server, instances, pool_max) <= limits.max_connections.saturating_sub(limits.reserved);
    if fits { Ok(()) } else { Err(Arithmetic { server, instances, pool_max, limits }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: Server, instances: u64, pool_max: u64, max_connections: u64, reserved: u64) -> Result<(), Arithmetic> {
        check_arithmetic(server, instances, pool_max, ConnectionLimits { max_connections, reserved })
    }

    #[test]
    fn four_instances_of_twenty_fit_into_a_hundred_and_five_do_not() {
        assert_eq!(check(Server::Alone, 4, 20, 100, 3), Ok(()));
        let refused = check(Server::Alone, 5, 20, 100, 3).unwrap_err().to_string();
        assert_eq!(
            refused,
            "5 instances x (20 connections + 1 that listens) = 105, but the database allows max_connections 100 - 3 reserved = 97; \
             set the pool to at most 18, or raise max_connections"
        );
    }

    #[test]
    fn each_server_counts_what_is_connected_to_it() {
        assert_eq!(check(Server::Replica, 4, 24, 103, 3), Ok(()));
        let refused = check(Server::Primary, 4, 24, 103, 3).unwrap_err().to_string();
        assert!(refused.starts_with("4 instances x (24 connections + 2 that listen and watch) = 104, but the database allows"), "{refused}");
        assert!(refused.contains("at most 23"), "{refused}");
        assert!(check(Server::Replica, 4, 25, 103, 3).unwrap_err().to_string().contains("but the replica allows"));
    }

    #[test]
    fn the_sum_neither_overflows_nor_divides_by_zero() {
        assert!(check(Server::Alone, u64::MAX, 2, 100, 3).is_err());
        assert!(check(Server::Alone, 0, 20, 100, 3).is_ok());
        assert!(check(Server::Alone, 200, 1, 100, 103).unwrap_err().to_string().contains("fewer instances"));
    }
}
