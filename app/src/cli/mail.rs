//! `mainstay mail`: the mails in the folder, for a service that has no mail server yet.

use clap::Subcommand;
use mainstay::error::{Error, Result, codes};
use uuid::Uuid;

use crate::mail::{Entry, Folder, read};
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the latest mails
    List {
        /// How many
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// Show a mail
    Show {
        /// Its id, or `latest`
        id: String,
        /// Show the message as it is, with its HTML part
        #[arg(long)]
        raw: bool,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> u8 {
    let folder = Folder::new(&settings.mail_dir);
    let outcome = match command {
        Command::List { count } => list(&folder, count),
        Command::Show { id, raw } => show(&folder, &id, raw),
    };
    match outcome {
        Ok(text) => super::print(&text),
        Err(error) => super::failed(&error),
    }
}

fn list(folder: &Folder, count: usize) -> Result<String> {
    let mut text = String::new();
    for entry in folder.list().map_err(unreadable)?.into_iter().take(count) {
        let line = match read::parse(&bytes(&entry)?) {
            Some(mail) => format!("{}  {}  {}  {}", entry.id, mail.date, mail.to, mail.subject),
            None => format!("{}  cannot be read", entry.id),
        };
        text += &(printable(&line) + "\n");
    }
    Ok(text)
}

fn show(folder: &Folder, id: &str, raw: bool) -> Result<String> {
    let not_there = || {
        let words =
            if id == "latest" { "There is no mail yet".to_owned() } else { format!("There is no mail {id}; `mainstay mail list` shows them") };
        Error::new(&codes::INTERNAL).with_message(words)
    };
    let wanted = if id == "latest" { None } else { Some(id.parse::<Uuid>().map_err(|_| not_there())?) };
    let mut entries = folder.list().map_err(unreadable)?.into_iter();
    let entry = entries.find(|entry| wanted.is_none_or(|id| entry.id == id)).ok_or_else(not_there)?;
    let bytes = bytes(&entry)?;
    let text = match read::parse(&bytes) {
        Some(mail) if !raw => format!("To: {}\nSubject: {}\nDate: {}\n\n{}", mail.to, mail.subject, mail.date, mail.text),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    };
    Ok(printable(&text))
}

fn bytes(entry: &Entry) -> Result<Vec<u8>> {
    entry.read().map_err(unreadable)
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(&codes::INTERNAL).with_message("The folder of mails cannot be read").caused_by(error)
}

/// A mail is for a terminal here, which obeys control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}
