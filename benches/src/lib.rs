//! What the peers of the benchmark share: the routes, and the table of the one route that reads from PostgreSQL.
//!
//! A comparison is only worth something when every peer does the same work, so the answers are made here once. The Express
//! peer repeats them in `express/server.js`; the benchmark compares the answers before it measures.

pub mod catalogue;
pub mod database;
pub mod routes;
pub mod serve;
