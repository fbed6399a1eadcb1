//! Checks of the house itself: `cargo run -p xtask -- tidy`.
//!
//! Promises: the standard library and `git` are all it needs, it changes nothing, and it exits 0 only when there is
//! nothing to say. 1: it found something. 64: it was called in a way it does not know.
#![expect(clippy::print_stdout, reason = "a command line tool: its output is what it is for")]

mod rust_source;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
Checks of the house itself

Usage: cargo run -p xtask -- <COMMAND>

Commands:
  tidy        Style as a test: what STYLE.md asks for and a machine can see.
              Prints `path:line: rule: what to do`; exits 1 when there is anything to do
  rules       The rules of tidy, one a line
  help        This text";

/// EX_USAGE of sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy(),
        ["rules"] => {
            for (rule, meaning) in tidy::RULES {
                println!("{rule:18} {meaning}");
            }
            ExitCode::SUCCESS
        }
        ["help" | "-h" | "--help"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{HELP}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn tidy() -> ExitCode {
    // The checkout this binary was built from, wherever it is called.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let files = match tidy::files_of(root) {
        Ok(files) => files,
        Err(problem) => {
            eprintln!("tidy: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let findings = tidy::check(&files);
    for finding in &findings {
        println!("{finding}");
    }
    let (files, findings) = (files.len(), findings.len());
    println!("tidy: {files} files, {}", if findings == 0 { "all in order".to_owned() } else { format!("{findings} to mend") });
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
