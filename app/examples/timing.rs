//! The drill of time: can a wrong password be told from an unknown account by how long the answer takes?
//!
//! ```sh
//! cargo run --release -p mainstay-app --example timing
//! scripts/test --run cargo run --release -p mainstay-app --example timing -- --pairs 1000 --on postgres
//! ```
//!
//! Signs in with a wrong password to an account that exists, in turns with accounts that do not, on a service without a throttle, which would end the
//! measurement long before it says anything. It says `held`, and ends with 0, when the medians of the ratios are certainly within a twentieth of each other.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of developers")]

#[path = "../tests/it/client.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod client;
#[path = "../tests/it/ground.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod ground;
#[allow(dead_code, reason = "this drill needs no binary")]
mod stage;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use mainstay::testing::{Pairs, Verdict};
use serde_json::json;

use crate::client::Client;

/// What the medians may differ by.
const TOLERANCE: f64 = 0.05;

static HELD: AtomicBool = AtomicBool::new(false);

/// Compares the times of sign-ins to a known and to unknown accounts
#[derive(Debug, Parser)]
struct Options {
    /// How often, each of the two
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pairs: u32,
    /// The database
    #[arg(long, value_enum, default_value = "sqlite")]
    on: stage::On,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { pairs, on } = Options::parse();
    ground::Ground::run(on.dialect(), move |ground| async move {
        let service = ground.start_unthrottled().await;
        let stranger = service.stranger();
        let mut measured = Pairs::default();
        for number in 0..pairs {
            let nobody = format!("nobody-{number}@example.com");
            let (known, unknown) = if number % 2 == 0 {
                let known = sign_in(&stranger, ground::ADMIN).await;
                (known, sign_in(&stranger, &nobody).await)
            } else {
                let unknown = sign_in(&stranger, &nobody).await;
                (sign_in(&stranger, ground::ADMIN).await, unknown)
            };
            measured.push(known, unknown);
        }
        let comparison = measured.compare();
        println!("{on:?}, known account over unknown one, {comparison}");
        let held = comparison.within(TOLERANCE) == Verdict::Same;
        println!("{}", if held { "held" } else { "fell" });
        HELD.store(held, Ordering::Relaxed);
    })
    .await;
    if HELD.load(Ordering::Relaxed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How long it takes to be told that a password is wrong.
async fn sign_in(stranger: &Client, email: &str) -> Duration {
    let begun = Instant::now();
    stranger.post("/api/auth/login", &json!({"email": email, "password": "not the password"})).await.expect(401);
    begun.elapsed()
}
