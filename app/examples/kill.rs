//! The drill of `kill -9` as long as it is wanted: a service is killed at random moments while it registers accounts, rotates refresh tokens, resets a password and sends mails.
//!
//! ```sh
//! cargo run -p mainstay-app --example kill -- --kills 1000
//! scripts/test --run cargo run -p mainstay-app --example kill -- --kills 1000 --on postgres
//! ```
//!
//! It prints its seed and its figures; a promise that is broken ends it with the round. The same code runs in short with every test run
//! (`app/tests/it/drills.rs`).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of developers")]

#[path = "../tests/it/client.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod client;
#[path = "../tests/it/ground.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod ground;
#[path = "../tests/it/drills/kill/mod.rs"]
mod kill;
#[path = "../tests/it/process.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod process;
mod stage;

use clap::Parser;

/// Kills a service at random moments, starts it again and looks for what is half there
#[derive(Debug, Parser)]
struct Options {
    /// How often
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Repeats the delays of an earlier run; else made up and printed
    #[arg(long)]
    seed: Option<u64>,
    /// The database
    #[arg(long, value_enum, default_value = "sqlite")]
    on: stage::On,
}

#[tokio::main]
async fn main() {
    let Options { kills, seed, on } = Options::parse();
    stage::build();
    let plan = kill::Plan { kills, seed: seed.unwrap_or_else(kill::fresh_seed) };
    println!("{on:?}, seed {}", plan.seed);
    ground::Ground::run(on.dialect(), move |ground| async move {
        kill::run(&ground, plan, |report| println!("{report}")).await;
    })
    .await;
    println!("held: nothing was half there");
}
