//! `mainstay soak`: mixed traffic with faults for an hour, and whether anything grew.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mainstay_drill::{Done, Name, Outcome, Soak};

use super::End;
use super::drill::{in_a_runtime, machine};

/// How long, and over what.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long the traffic lasts
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=7 * 24 * 60), conflicts_with = "short")]
    minutes: u64,
    /// One minute
    #[arg(long)]
    short: bool,
    /// Requests a second, of all clients together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    rate: u32,
    /// A PostgreSQL on which databases may be made; without one a single instance keeps its own SQLite
    #[arg(long, env = "DRILL_POSTGRES_URL", hide_env_values = true)]
    postgres: Option<String>,
    /// A Redis
    #[arg(long, env = "DRILL_REDIS_URL", hide_env_values = true, requires = "postgres")]
    redis: Option<String>,
    /// Write the report there, as a page
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// Ends with 0 if it held, with 1 if it fell, with 69 if it could not be done.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    in_a_runtime(soak(arguments))
}

async fn soak(arguments: &Arguments) -> ExitCode {
    let unavailable = |told: &dyn std::fmt::Display| {
        eprintln!("mainstay: {told}");
        ExitCode::from(End::Unavailable as u8)
    };
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(error) => return unavailable(&format!("the program does not know its own file: {error}")),
    };
    let minutes = if arguments.short { 1 } else { arguments.minutes };
    let plan = Soak {
        binary,
        postgres: arguments.postgres.clone(),
        redis: arguments.redis.clone(),
        length: Duration::from_secs(minutes * 60),
        rate: arguments.rate.into(),
    };
    super::print(&format!("soak: {}, for {minutes} min\n", Name::Soak.harm()));
    let outcome: Outcome = match mainstay_drill::soak(&plan).await {
        Ok(outcome) => outcome,
        Err(error) => return unavailable(&error),
    };
    super::print(&format!("  Mainstay: {}\n{}", outcome.verdict(), outcome.text()));
    let held = outcome.held() == Some(true);
    if let Some(path) = &arguments.page {
        let done = [Done { name: Name::Soak, service: "Mainstay".to_owned(), outcome }];
        if let Err(error) = std::fs::write(path, mainstay_drill::page(&machine(), &done)) {
            return unavailable(&format!("{}: {error}", path.display()));
        }
    }
    ExitCode::from(u8::from(!held))
}
