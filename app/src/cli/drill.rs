//! `mainstay drill`: does harm to a service, measures, and says whether it held.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mainstay_drill::{Done, Name, Outcome, Plan, Running};

/// What to drill, and whom.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which: surge, payload, deploy, pool, slow-query, bruteforce, orphans, regex, preflight, sessions, slowloris, redis-loss, or all
    #[arg(required = true, value_parser = names)]
    drills: Vec<Names>,
    /// Seconds in place of a minute, but for the surge, and less of everything; what is wanted stays the same
    #[arg(long)]
    short: bool,
    /// One that does not decide how this ends; it is done, said and reported as the others
    #[arg(long, value_name = "NAME", value_parser = names)]
    undecided: Vec<Names>,
    /// Drill the service at this URL, on loopback, in place of one that is started for it
    #[arg(long, value_name = "URL", value_parser = Running::address)]
    url: Option<SocketAddr>,
    /// Do the same to this one, and put both into the report
    #[arg(long, value_name = "URL", value_parser = Running::address)]
    peer: Option<SocketAddr>,
    /// What the report calls it
    #[arg(long, value_name = "NAME", default_value = "Peer")]
    peer_name: String,
    /// The process of `--peer` or `--url`, whose memory is watched
    #[arg(long)]
    pid: Option<u32>,
    /// A cheap read there that is answered with 200
    #[arg(long, value_name = "TARGET", default_value = "/")]
    reads: String,
    /// A read there that costs it some milliseconds, to which a number is appended; the cheap one if none is named
    #[arg(long, value_name = "TARGET")]
    works: Option<String>,
    /// Where JSON can be posted there
    #[arg(long, value_name = "TARGET", default_value = "/")]
    posts: String,
    /// Where a text is appended as a search there
    #[arg(long, value_name = "TARGET")]
    searches: Option<String>,
    /// A PostgreSQL on which databases may be made
    #[arg(long, env = "DRILL_POSTGRES_URL", hide_env_values = true)]
    postgres: Option<String>,
    /// A Redis
    #[arg(long, env = "DRILL_REDIS_URL", hide_env_values = true)]
    redis: Option<String>,
    /// Write the report there, as a page
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// One drill, or all.
#[derive(Debug, Clone)]
struct Names(Vec<Name>);

fn names(text: &str) -> Result<Names, String> {
    if text == "all" {
        return Ok(Names(Name::ALL.to_vec()));
    }
    match Name::ALL.into_iter().find(|name| name.as_str() == text) {
        Some(name) => Ok(Names(vec![name])),
        None => Err(format!("one of {}, all", Name::ALL.map(Name::as_str).join(", "))),
    }
}

impl Arguments {
    /// Does this one decide how the command ends?
    fn decides(&self, name: Name) -> bool {
        !self.undecided.iter().any(|names| names.0.contains(&name))
    }

    fn running(&self, address: SocketAddr, service: &str) -> Running {
        Running {
            service: service.to_owned(),
            address,
            pid: self.pid,
            reads: self.reads.clone(),
            works: self.works.clone().unwrap_or_else(|| self.reads.clone()),
            posts: self.posts.clone(),
            searches: self.searches.clone(),
            fields: Vec::new(),
        }
    }
}

/// Runs the drills. Ends with 0 if each that was done to ours and decides held, with 1 if one fell, with 69 if one could not be done.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    in_a_runtime(drill(arguments))
}

/// Does work of many tasks to its end.
pub(super) fn in_a_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            eprintln!("mainstay: {error}");
            ExitCode::from(super::End::Unavailable as u8)
        }
    }
}

async fn drill(arguments: &Arguments) -> ExitCode {
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(error) => {
            eprintln!("mainstay: the program does not know its own file: {error}");
            return ExitCode::from(super::End::Unavailable as u8);
        }
    };
    let plan = Plan { binary, postgres: arguments.postgres.clone(), redis: arguments.redis.clone(), short: arguments.short };
    let (mut done, mut fell, mut undone): (Vec<Done>, bool, bool) = (Vec::new(), false, false);
    for name in arguments.drills.iter().flat_map(|names| names.0.iter().copied()) {
        super::print(&format!("{name}: {}\n", name.harm()));
        let ours = match arguments.url {
            Some(address) => ("Service".to_owned(), mainstay_drill::on_running(name, &plan, &arguments.running(address, "Service")).await),
            None => ("Mainstay".to_owned(), mainstay_drill::on_our_own(name, &plan).await),
        };
        let peer = match arguments.peer {
            Some(address) => {
                let running = arguments.running(address, &arguments.peer_name);
                Some((arguments.peer_name.clone(), mainstay_drill::on_running(name, &plan, &running).await))
            }
            None => None,
        };
        for (number, (service, outcome)) in [Some(ours), peer].into_iter().flatten().enumerate() {
            let ours = number == 0;
            let failed = outcome.is_err();
            let outcome = outcome.unwrap_or_else(Outcome::skipped);
            // To a service that runs already not everything can be done.
            undone |= ours && arguments.decides(name) && (failed || arguments.url.is_none() && outcome.held().is_none());
            let fell_now = ours && outcome.held() == Some(false);
            fell |= fell_now && arguments.decides(name);
            let aside = if fell_now && !arguments.decides(name) { ", which decides nothing here" } else { "" };
            super::print(&format!("  {service}: {}{aside}\n{}", outcome.verdict(), outcome.text()));
            done.push(Done { name, service, outcome });
        }
    }
    if let Some(path) = &arguments.page
        && let Err(error) = std::fs::write(path, mainstay_drill::page(&machine(), &done))
    {
        eprintln!("mainstay: {}: {error}", path.display());
        undone = true;
    }
    match (fell, undone) {
        (true, _) => ExitCode::from(1),
        (false, true) => ExitCode::from(super::End::Unavailable as u8),
        (false, false) => ExitCode::SUCCESS,
    }
}

/// What the figures were measured on.
pub(super) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    format!("mainstay {} ({build}), {} cores, service and clients on one machine", env!("CARGO_PKG_VERSION"), cores)
}
