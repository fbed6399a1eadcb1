//! The service from outside: real sockets, real databases, the built binary. One module per resource, one binary for all.
//!
//! `TEST_POSTGRES_URL` names a PostgreSQL server on which databases may be created (`scripts/test` starts one); without it the
//! tests of PostgreSQL fail and say so. `TEST_POSTGRES_REPLICA_URL` names a streaming replica of it; without it the tests of replicas fail and say so.
//! `MAINSTAY_TEST_DATABASES=sqlite` leaves both out.
#![allow(clippy::unwrap_used, reason = "tests")]

/// The same tests on both databases: `async fn name(ground: Arc<Ground>)`.
macro_rules! on_both {
    ($($name:ident)*) => {
        on_postgres! { $($name)* }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::ground::Ground::run(mainstay::store::Dialect::Sqlite, super::$name).await;
            })*
        }
    };
}

/// Tests of what only PostgreSQL can do.
macro_rules! on_postgres {
    ($($name:ident)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::ground::Ground::run(mainstay::store::Dialect::Postgres, super::$name).await;
            })*
        }
    };
}

/// Tests that must hold as well when PgBouncer lends four connections for a transaction each.
macro_rules! through_pooler {
    ($($name:ident)*) => {
        mod pooled {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::ground::Ground::run_pooled(super::$name).await;
            })*
        }
    };
}

mod client;
mod ground;
mod mailbox;
mod process;
mod smtp_server;

mod access;
mod accounts;
mod api_keys;
mod audit;
mod cache;
mod clock;
mod drills;
mod failover;
mod forged;
mod handover;
mod import;
mod keys;
mod life;
mod mail;
mod openapi;
mod pages;
mod pooler;
mod products;
mod replica;
mod resilience;
mod scarce;
mod search;
mod second_factor;
mod sessions;
mod standing;
mod strangers;
mod together;
mod users;
