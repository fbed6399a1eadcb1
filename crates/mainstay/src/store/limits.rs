//! Do all instances together fit into the database?

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

/// Connections of one instance beside its pool: the one that listens ([`super::Database::listen`]).
const BESIDE_POOL: u64 = 1;

/// The instances want more connections than there are; `Display` spells the sum out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// Instances that share the database.
    pub instances: u64,
    /// Connections that the pool of each may open; each opens one more, to listen.
    pub pool_max: u64,
    /// What the server has.
    pub limits: ConnectionLimits,
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arithmetic { instances, pool_max, limits: ConnectionLimits { max_connections, reserved } } = *self;
        let wanted = wanted(instances, pool_max);
        let usable = max_connections.saturating_sub(reserved);
        write!(
            f,
            "{instances} instances x ({pool_max} connections + {BESIDE_POOL} that listens) = {wanted}, but the database allows \
             max_connections {max_connections} - {reserved} reserved = {usable}; "
        )?;
        match usable.checked_div(instances) {
            Some(fits) if fits > BESIDE_POOL => write!(f, "set the pool to at most {}, or raise max_connections", fits - BESIDE_POOL),
            _ => write!(f, "run fewer instances, or raise max_connections"),
        }
    }
}

impl std::error::Error for Arithmetic {}

fn wanted(instances: u64, pool_max: u64) -> u64 {
    instances.saturating_mul(pool_max.saturating_add(BESIDE_POOL))
}

/// Refuses more instances and connections than the database has room for.
///
/// # Errors
/// [`Arithmetic`] when `instances * (pool_max + 1) > max_connections - reserved`: each instance has one connection that listens.
pub fn check_arithmetic(instances: u64, pool_max: u64, max_connections: u64, reserved: u64) -> Result<(), Arithmetic> {
    let fits = wanted(instances, pool_max) <= max_connections.saturating_sub(reserved);
    let limits = ConnectionLimits { max_connections, reserved };
    if fits { Ok(()) } else { Err(Arithmetic { instances, pool_max, limits }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_instances_of_twenty_fit_into_a_hundred_and_five_do_not() {
        assert_eq!(check_arithmetic(4, 20, 100, 3), Ok(()));
        let refused = check_arithmetic(5, 20, 100, 3).unwrap_err().to_string();
        assert_eq!(
            refused,
            "5 instances x (20 connections + 1 that listens) = 105, but the database allows max_connections 100 - 3 reserved = 97; \
             set the pool to at most 18, or raise max_connections"
        );
    }

    #[test]
    fn the_sum_neither_overflows_nor_divides_by_zero() {
        assert!(check_arithmetic(u64::MAX, 2, 100, 3).is_err());
        assert!(check_arithmetic(0, 20, 100, 3).is_ok());
        assert!(check_arithmetic(200, 1, 100, 103).unwrap_err().to_string().contains("fewer instances"));
    }
}
