//! `bench`: the same routes on bare axum, on Mainstay and on an Express stack, side by side in one run.
//!
//! It starts each peer on a core of its own, makes sure that all of them do the same work, loads them in turn with `wrk`
//! and prints CPU time per request and throughput. Whatever it starts it stops, however it ends.
#![allow(clippy::print_stdout, reason = "a command line tool: its table belongs on standard output")]

mod check;
mod client;
mod load;
mod machine;
mod options;
mod peer;
mod report;
mod route;
mod token;

use std::process::ExitCode;

use clap::Parser as _;
use mainstay_bench::database;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::Options;

// One thread: the children ask the kernel to end them with the thread that started them, and this one lives to the end.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Dropping the run drops its children, and a dropped child is killed: the same way out for an error, a panic and a signal.
    let outcome = tokio::select! {
        outcome = run(&options) => outcome,
        () = asked_to_stop() => Err(anyhow::anyhow!("stopped before the end")),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns at Ctrl-C or SIGTERM.
async fn asked_to_stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// The check and, if it holds, the measurement.
async fn measure(rig: &peer::Rig, routes: &[route::Route], machine: &machine::Machine, options: &Options) -> anyhow::Result<Vec<load::Sample>> {
    check::same_work(rig, routes).await?;
    load::measure(rig, routes, machine, options).await
}

async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let machine = machine::Machine::look();
    let rig = peer::Rig::prepare(options, &machine).await?;
    if let Some(url) = &options.postgres {
        database::create_table(url).await?;
    } else {
        println!("No --postgres URL: the product route is skipped.");
    }
    let routes = route::all(options.postgres.is_some(), &rig.token);
    let measured = measure(&rig, &routes, &machine, options).await;
    if let Some(url) = &options.postgres {
        database::drop_table(url).await?;
    }
    let samples = measured?;

    let report = report::Report::of(&samples, &rig, &routes, &machine, options);
    print!("{}", report.table());
    if let Some(file) = &options.json {
        std::fs::write(file, report.json()?)?;
    }
    Ok(report.verdict(options.floor))
}
