//! The command line. Without a command it serves.

mod config;
mod drill;
mod import;
mod jobs;
mod keys;
mod mail;
mod serve;
mod soak;
mod user;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use mainstay::clock::Clock;
use mainstay::config::LogFormat;
use mainstay::error::{Error, Result};
use mainstay::log::{self, Sink};
use mainstay::store;

use crate::life::{self, End};
use crate::migrations::MIGRATIONS;
use crate::settings::Settings;

/// A production-grade REST API: accounts, products and product search behind a complete production stack.
#[derive(Debug, Parser)]
#[command(
    name = "mainstay",
    version,
    about,
    after_help = "Settings come from the environment and from mainstay.toml; `mainstay config` shows them all."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (this is what happens without a command)
    Serve,
    /// Apply the migrations that are missing, or show where the database stands
    Migrate {
        /// Only show them
        #[arg(long)]
        status: bool,
    },
    /// Import products from NDJSON: plain, .gz or .zst, or `-` for standard input
    Import(import::Arguments),
    /// Create accounts, change their roles, disable them
    User {
        #[command(subcommand)]
        command: user::Command,
    },
    /// Make, show and retire the keys that sign access tokens
    Keys {
        #[command(subcommand)]
        command: keys::Command,
    },
    /// Show the mails in the folder, while there is no mail server
    Mail {
        #[command(subcommand)]
        command: mail::Command,
    },
    /// Look at the queue of jobs, and try failed ones again
    Jobs {
        #[command(subcommand)]
        command: jobs::Command,
    },
    /// Do to a service what incidents are made of, measure, and say whether it held
    Drill(Box<drill::Arguments>),
    /// Mixed traffic with faults for an hour: does anything grow, fail, or get lost?
    Soak(soak::Arguments),
    /// Print the OpenAPI document
    Openapi,
    /// Show every setting, its value and where it came from
    Config(config::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let code = match cli.command.unwrap_or(Command::Serve) {
        Command::Openapi => print(&openapi()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mainstay", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Drill(arguments) => return drill::run(&arguments),
        Command::Soak(arguments) => return soak::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Serve => serve::run(),
        Command::Migrate { status } => with_settings(|settings| on_the_side(settings, async move |settings| migrate(&settings, status).await)),
        Command::Import(arguments) => with_settings(|settings| on_the_side(settings, async move |settings| import::run(&settings, &arguments).await)),
        Command::Keys { command } => with_settings(|settings| keys::run(&settings, &command)),
        Command::Mail { command } => with_settings(|settings| mail::run(&settings, command)),
        Command::Jobs { command } => with_settings(|settings| on_the_side(settings, async move |settings| jobs::run(&settings, command).await)),
        Command::User { command } => with_settings(|settings| on_the_side(settings, async move |settings| user::run(&settings, command).await)),
    };
    ExitCode::from(code)
}

fn openapi() -> String {
    // A document made of our own types always serialises.
    crate::app::document().to_pretty_json().unwrap_or_default() + "\n"
}

/// Prints to standard output; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> u8 {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    0
}

fn with_settings(run: impl FnOnce(Settings) -> u8) -> u8 {
    match Settings::load() {
        Ok((settings, _)) => run(settings),
        Err(problems) => {
            eprintln!("mainstay: {problems}");
            End::Misconfigured as u8
        }
    }
}

/// Runs a command that is not the service: its log goes to standard error, its outcome to standard output.
fn on_the_side(settings: Settings, work: impl AsyncFnOnce(Settings) -> Result<u8>) -> u8 {
    let sink = match Sink::to(std::io::stderr(), LogFormat::Text) {
        Ok(sink) => sink,
        Err(error) => return failed(&error),
    };
    log::init(&sink, &settings.stack.log_level);
    let code = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work(settings)).unwrap_or_else(|error| failed(&error)),
        Err(error) => failed(&error),
    };
    sink.flush(std::time::Duration::from_secs(1));
    code
}

/// Tells why a command failed, and its exit code.
fn failed(error: &(dyn std::error::Error + 'static)) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(error) => {
            let mut words = vec![error.message().to_owned()];
            words.extend(error.fields().iter().map(|field| format!("{} {}", field.field, field.message)));
            words.extend(error.causes().into_iter().filter(|cause| !error.message().contains(cause.as_str())));
            eprintln!("mainstay: {}", words.join("\n  "));
        }
        None => eprintln!("mainstay: {error}"),
    }
    End::Unavailable as u8
}

async fn migrate(settings: &Settings, status: bool) -> Result<u8> {
    let database = life::open_database(settings).await?;
    let internal = |error: store::MigrateError| Error::new(&mainstay::error::codes::INTERNAL).with_message(error.to_string());
    if !status {
        let applied = store::migrate(&database, &MIGRATIONS).await.map_err(internal)?;
        print(&format!("{} applied\n", applied.versions.len()));
    }
    let mut pending = false;
    for entry in store::migration_status(&database, &MIGRATIONS).await.map_err(internal)? {
        pending |= entry.state == store::MigrationState::Pending;
        let state = match entry.state {
            store::MigrationState::Applied(at) => format!("applied {at:.0}"),
            store::MigrationState::Pending => "pending".to_owned(),
            store::MigrationState::Changed => "CHANGED since it was applied".to_owned(),
            store::MigrationState::Newer => "from a newer release".to_owned(),
        };
        print(&format!("{:04} {:<20} {state}\n", entry.version, entry.name));
    }
    Ok(u8::from(pending))
}

fn clock() -> Clock {
    Clock::system()
}
