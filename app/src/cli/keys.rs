//! `mainstay keys`: the keys that sign access tokens. It needs the folder of `JWT_KEYS_DIR` and nothing else, no database.

use std::time::Duration;

use clap::Subcommand;
use mainstay::auth::keys::{Algorithm, Created, Directory};
use mainstay::config::Setting;
use mainstay::error::Result;
use ring::rand::SystemRandom;

use crate::life::End;
use crate::settings::Settings;

/// Twice the time for which others may keep the published keys (`max-age=300`), and sixty looks of an instance at the folder.
const LEAD: Duration = Duration::from_secs(600);
/// Three looks: every instance has the key before one signs with it.
const LEAD_MIN: Duration = Duration::from_secs(30);
/// A rotation that is further away is better made when it is due.
const LEAD_MAX: Duration = Duration::from_secs(31 * 86_400);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key: published at once, it signs from a time on and takes over from the one before it
    New {
        /// `eddsa` or `es256`
        #[arg(long, default_value = "eddsa")]
        algorithm: Algorithm,
        /// Time until it signs, for everybody who verifies to get it: 30s to 31d; when there is nothing that signs yet it does so at once
        #[arg(long, value_parser = lead)]
        lead: Option<Duration>,
    },
    /// Show the keys
    List,
    /// End the signing of a key; what it signed is valid until it expires
    Retire {
        /// The key's name
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// What it signed is refused, too: for a key that fell into wrong hands
        #[arg(long)]
        at_once: bool,
    },
}

fn lead(text: &str) -> Result<Duration, String> {
    let lead = Duration::parse(text)?;
    if (LEAD_MIN..=LEAD_MAX).contains(&lead) { Ok(lead) } else { Err("must be 30s to 31d".to_owned()) }
}

pub(super) fn run(settings: &Settings, command: &Command) -> u8 {
    let Some(folder) = &settings.stack.token_keys.folder else {
        eprintln!("mainstay: JWT_KEYS_DIR is not set: it names the folder of the keys");
        return End::Misconfigured as u8;
    };
    let directory = Directory::new(folder, settings.stack.production());
    let done = match command {
        Command::New { algorithm, lead } => create(settings, &directory, *algorithm, *lead),
        Command::List => list(settings, &directory),
        Command::Retire { kid, at_once } => retire(settings, &directory, kid, *at_once),
    };
    done.unwrap_or_else(|error| super::failed(&error))
}

fn create(settings: &Settings, directory: &Directory, algorithm: Algorithm, lead: Option<Duration>) -> Result<u8> {
    let (now, expiry) = (super::clock().now(), settings.stack.jwt_expiry);
    // Where nothing signs yet there is nobody to wait for. A folder that is not there is an empty one.
    let first = settings.stack.token_keys.secret.is_none() && (!directory.path().exists() || directory.list(now, expiry)?.0.is_empty());
    let lead = lead.unwrap_or(if first { Duration::ZERO } else { LEAD });
    let Created { kid, signs_from, removed } = directory.create(algorithm, lead, expiry, now, &SystemRandom::new())?;
    super::print(&format!("{kid} {algorithm} signs from {signs_from}\n"));
    for kid in removed {
        super::print(&format!("{kid} removed: nothing that it signed is valid any more\n"));
    }
    Ok(0)
}

/// Exit code 1 when a file cannot be used.
fn list(settings: &Settings, directory: &Directory) -> Result<u8> {
    let (keys, problems) = directory.list(super::clock().now(), settings.stack.jwt_expiry)?;
    let width = keys.iter().map(|key| key.kid.len()).max().unwrap_or(0);
    for key in keys {
        let until = key.verifies_until.map(|until| format!(", verifies until {until:.0}")).unwrap_or_default();
        super::print(&format!("{:<width$}  {:<5}  {:<8}  signs from {:.0}{until}\n", key.kid, key.algorithm, key.state, key.signs_from));
    }
    for problem in &problems {
        eprintln!("mainstay: {}: {}", problem.file, problem.reason);
    }
    Ok(u8::from(!problems.is_empty()))
}

fn retire(settings: &Settings, directory: &Directory, kid: &str, at_once: bool) -> Result<u8> {
    let (now, expiry) = (super::clock().now(), settings.stack.jwt_expiry);
    let end = directory.retire(kid, at_once, expiry, now, &SystemRandom::new())?;
    let rest = if at_once { "and what it signed is refused" } else { "and what it signed is valid until it expires" };
    super::print(&format!("{kid} signs until {end}, {rest}\n"));
    Ok(0)
}
