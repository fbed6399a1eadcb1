//! CORS, compression, the usual fields and the limits, each as a table of cases over a real socket.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

#[path = "layers/compression.rs"]
mod compression;
#[path = "layers/cors.rs"]
mod cors;
#[path = "layers/fields.rs"]
mod fields;
#[path = "layers/limits.rs"]
mod limits;
