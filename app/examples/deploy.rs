//! The drill of deployments as long as it is wanted: a service hands over to the next release again and again (SIGUSR2), under full load on kept connections.
//!
//! ```sh
//! cargo run --release -p mainstay-app --example deploy -- --deployments 50
//! scripts/test --run cargo run --release -p mainstay-app --example deploy -- --deployments 50 --on postgres
//! ```
//!
//! After every third good release comes one that cannot serve. It says `held`, and ends with 0, when no request failed, every POST that was answered is in the
//! database once, and every process that handed over ended with 0. The same code runs in short with every test run (`app/tests/it/drills.rs`).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of developers")]

#[path = "../tests/it/client.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod client;
#[path = "../tests/it/drills/deploy/mod.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod deploy;
#[path = "../tests/it/ground.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod ground;
#[path = "../tests/it/process.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod process;
mod stage;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

static HELD: AtomicBool = AtomicBool::new(false);

/// Deploys again and again under load and counts every request
#[derive(Debug, Parser)]
struct Options {
    /// How often a release takes over
    #[arg(long, default_value_t = 50)]
    deployments: u32,
    /// Requests in all, about
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// The database
    #[arg(long, value_enum, default_value = "sqlite")]
    on: stage::On,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { deployments, requests, on } = Options::parse();
    stage::build();
    // Also answered while new processes start: those come on top. A pause after each refused release is one more between.
    let pauses = u64::from(deployments + deployments / 3 + 1);
    let plan =
        deploy::Plan { deployments, requests_between: requests / pauses, clients: 16, pausing: 16, connections: 4, streams: 8, reads_per_write: 9 };
    println!("{on:?}, {deployments} deployments, {requests} requests: {plan:?}");
    ground::Ground::run(on.dialect(), move |ground| async move {
        let report = deploy::run(&ground, plan, |progress| println!("{progress}")).await;
        println!("{report}");
        HELD.store(report.held(), Ordering::Relaxed);
    })
    .await;
    if HELD.load(Ordering::Relaxed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
