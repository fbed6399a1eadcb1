//! The queue of jobs on real databases: every order of two workers' steps, the runner with handlers that fail, hang and panic, and what an operator sees.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "jobs/ground.rs"]
mod ground;
#[path = "jobs/orders.rs"]
mod orders;
#[path = "jobs/queue.rs"]
mod queue;
#[path = "jobs/runner.rs"]
mod runner;
