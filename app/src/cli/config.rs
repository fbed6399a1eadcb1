//! `mainstay config`: every setting, its value and where it came from; or the reference page, made from the same lines that read the settings.

use clap::Args;
use mainstay::config::{Entry, Reader};

use crate::life::End;
use crate::settings::Settings;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the reference page (Markdown) instead
    #[arg(long)]
    reference: bool,
}

pub(super) fn run(arguments: &Arguments) -> u8 {
    if arguments.reference {
        return super::print(&reference());
    }
    match Settings::load() {
        Ok((_, entries)) => {
            let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
            let lines = entries.iter().map(|entry| format!("{:<width$}  {:<11}  {}\n", entry.name, entry.origin, entry.value));
            super::print(&lines.collect::<String>())
        }
        Err(problems) => {
            eprintln!("mainstay: {problems}");
            End::Misconfigured as u8
        }
    }
}

/// The reference page, which docs/configuration.md must equal.
pub(super) fn reference() -> String {
    // With nothing set, nothing can be wrong.
    let entries = Settings::read(Reader::default()).map(|(_, entries)| entries).unwrap_or_default();
    let row = |entry: &Entry| {
        let allowed = entry.allowed.as_ref().map(|allowed| format!(" ({allowed})")).unwrap_or_default();
        format!("| `{}` | {}{allowed} | {} | {} |\n", entry.name, entry.kind, entry.default, entry.doc)
    };
    let head = "# Settings\n\n\
        The environment comes over `mainstay.toml`, the file over the defaults. In the file the names are in lower case: `request_timeout = \"10s\"`.\n\
        `MAINSTAY_CONFIG` names another file. Durations are written `500ms`, `30s`, `15m`, `24h`, `7d`; sizes `1MB`, `512KB`; lists with commas.\n\
        Everything that is wrong is told at once at the start, which then ends with exit code 78.\n\n\
        This page is made by `mainstay config --reference`; a test compares them.\n\n\
        | name | value | default | meaning |\n|---|---|---|---|\n";
    head.to_owned() + &entries.iter().map(row).collect::<String>()
}
