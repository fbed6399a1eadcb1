//! The foundation of Mainstay: a production stack for axum services.
//!
//! The modules stand in the order in which a request meets them. The stack's order is a type: a layer in the wrong place, or one that was
//! forgotten, does not compile ([`stack`]). Every failure, whichever layer it leaves from, is one [`Error`] in one form.
//!
//! The foundation knows no table and no resource; those are the service's.

pub mod client;
pub mod clock;
pub mod config;
pub mod handover;
pub mod serve;

pub mod context;
pub mod routes;
pub mod stack;

pub mod extract;

pub mod auth;

pub mod cache;

pub mod error;

pub mod redis;
pub mod store;

pub mod news;

pub mod jobs;

pub mod health;
pub mod log;
pub mod metrics;
pub mod openapi;
pub mod writes;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, Result, Success};
