//! `mainstay import`: a catalogue from a file, with a progress bar.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use mainstay::error::{Error, Result, codes};

use crate::import::{self, Source};
use crate::settings::Settings;
use crate::{first_start, life};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The file, or `-` for standard input
    file: PathBuf,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

/// Exit code 0 when every line was taken, 1 when some were not.
pub(super) async fn run(settings: &Settings, arguments: &Arguments) -> Result<u8> {
    let database = life::open_database(settings).await?;
    first_start::migrate(&database).await?;
    let unreadable = |error: std::io::Error| Error::new(&codes::INTERNAL).with_message(format!("{}: {error}", arguments.file.display()));
    let source = Source::open(&arguments.file).map_err(unreadable)?;
    let bar = progress_bar(source.bytes_total(), arguments.quiet);
    let begun = Instant::now();
    // Above the bar, as they come; nothing is kept.
    let refused = |refusal: import::Refusal| bar.suspend(|| eprintln!("line {}: {}", refusal.line, refusal.reason));
    let report = import::run(source, &database, &super::clock(), |read| bar.set_position(read), refused).await?;
    bar.finish_and_clear();
    let took = begun.elapsed();
    #[allow(clippy::cast_precision_loss)] // For display only.
    let rate = report.lines as f64 / took.as_secs_f64().max(0.001);
    super::print(&format!(
        "{} lines in {:.1} s ({rate:.0} a second): {} created, {} updated, {} unchanged, {} refused\n",
        report.lines,
        took.as_secs_f64(),
        report.created,
        report.updated,
        report.unchanged,
        report.refused
    ));
    database.close(Duration::from_secs(5)).await;
    Ok(u8::from(report.refused > 0))
}

fn progress_bar(bytes: Option<u64>, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:40.cyan} {percent:>3} %  {bytes} of {total_bytes}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} read  {elapsed}"),
    };
    // A template that does not parse leaves the plain bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
