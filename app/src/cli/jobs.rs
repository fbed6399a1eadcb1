//! `mainstay jobs`: how the queue stands, what failed, and another try. What a job holds is never shown.

use clap::Subcommand;
use mainstay::error::{Error, Result, codes};
use mainstay::jobs::{self, Retried};
use mainstay::store::Session;
use uuid::Uuid;

use crate::life;
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Count the jobs by kind and state
    Status,
    /// List the failed jobs: `dead` ones did not happen, of `uncertain` ones nobody knows
    List {
        /// How many
        #[arg(long, default_value_t = 50)]
        count: u32,
    },
    /// Make a failed or waiting job due now; an uncertain one may then happen twice
    Retry {
        /// Its id
        id: Uuid,
    },
}

pub(super) async fn run(settings: &Settings, command: Command) -> Result<u8> {
    let database = life::open_database(settings).await?;
    match command {
        Command::Status => status(&mut *database.acquire(None).await?).await,
        Command::List { count } => list(&mut *database.acquire(None).await?, count).await,
        Command::Retry { id } => retry(&mut *database.writer(None).await?, id).await,
    }
}

async fn status(session: &mut Session) -> Result<u8> {
    let standing = jobs::standing(session, super::clock().now()).await?;
    for count in &standing.counts {
        super::print(&format!("{:<20} {:<10} {}\n", count.kind, count.state.name(), count.count));
    }
    let oldest = standing.oldest_due.map_or_else(|| "no job is due".to_owned(), |age| format!("the oldest has been due for {} s", age.as_secs()));
    super::print(&(oldest + "\n"));
    Ok(0)
}

async fn list(session: &mut Session, count: u32) -> Result<u8> {
    for job in jobs::failed(session, count).await? {
        let at = job.finished_at.map(|at| format!("{at:.0}")).unwrap_or_default();
        let emptied = if job.whole { "" } else { " (its contents are gone)" };
        let failure = job.failure.unwrap_or_default();
        super::print(&format!("{}  {at}  {:<10} {:<9} tries {:<3} {failure}{emptied}\n", job.id, job.kind, job.state.name(), job.attempts));
    }
    Ok(0)
}

async fn retry(session: &mut Session, id: Uuid) -> Result<u8> {
    let refusal = match jobs::retry(session, id, super::clock().now()).await? {
        Retried::Yes => return Ok(super::print(&format!("{id} is due now\n"))),
        Retried::Emptied => "what it held was secret and is gone: let its event happen again".to_owned(),
        Retried::NotNow(state) => format!("it is {}", state.name()),
        Retried::Unknown => "there is no such job".to_owned(),
    };
    Err(Error::new(&codes::INTERNAL).with_message(format!("{id} cannot be tried again: {refusal}")))
}
