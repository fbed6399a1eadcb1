//! The drill of the flood: 10,000 wrong sign-ins a minute from one address, and what people at other addresses notice of it.
//!
//! ```sh
//! cargo run --release -p mainstay-app --example flood
//! cargo run --release -p mainstay-app --example flood -- --seconds 10
//! ```
//!
//! Calm and attack take turns. It says `held`, and ends with 0, when the medians of honest sign-ins and of signed-in reads are at most a tenth longer under the
//! attack and no honest request was refused. Nothing else should run on the machine.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of developers")]

#[path = "../tests/it/client.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod client;
#[path = "../tests/it/drills/flood.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod flood;
#[path = "../tests/it/ground.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod ground;
#[path = "../tests/it/process.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod process;
mod stage;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;

/// Longer slices would meet more of what else changes on the machine, shorter ones too few sign-ins each.
const SLICE: Duration = Duration::from_secs(5);

static HELD: AtomicBool = AtomicBool::new(false);

/// Floods a service with wrong sign-ins from one address and measures what others notice
#[derive(Debug, Parser)]
struct Options {
    /// How long, calm and attack together
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=600))]
    seconds: u64,
    /// Wrong sign-ins a minute
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    per_minute: u32,
    /// The database
    #[arg(long, value_enum, default_value = "sqlite")]
    on: stage::On,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { seconds, per_minute, on } = Options::parse();
    stage::build();
    println!("{on:?}, {seconds} s of calm and attack in turns, {per_minute} wrong sign-ins a minute");
    ground::Ground::run(on.dialect(), move |ground| async move {
        let slice = SLICE.min(Duration::from_secs(seconds) / 4);
        let report = flood::run(&ground, flood::Plan { calm_and_attack: Duration::from_secs(seconds), slice, per_minute }).await;
        println!("{report}");
        HELD.store(report.held(), Ordering::Relaxed);
    })
    .await;
    if HELD.load(Ordering::Relaxed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
