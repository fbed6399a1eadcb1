//! Style as a test: reads every file that git knows or would add, and says what to mend.
//!
//! Promises: each finding names file, line, rule and remedy; an exception is one line in `tidy/exceptions.rs` with its
//! reason, and an exception that is no longer needed is a finding itself.

mod exceptions;
mod links;
mod migrations;
mod rust;
mod words;

use std::fmt;
use std::path::Path;
use std::process::Command;

/// Every rule and what it asks for.
pub(crate) const RULES: &[(&str, &str)] = &[
    ("module-doc", "a Rust file opens with `//!`: what it is for, what it promises"),
    ("file-length", "a Rust file has at most 400 lines"),
    ("function-length", "a function has at most 70 lines"),
    ("environment", "only config reads the environment"),
    ("tab", "Rust is indented with spaces"),
    ("trailing-space", "no line ends in white space"),
    ("last-line", "a file ends with one line break"),
    ("unfinished", "open work stands in an issue, not in the code"),
    ("machine-path", "no file names a folder of one machine"),
    ("registry-host", "no file names the host of a package registry"),
    ("link", "a link to a file or a heading of this repository leads there"),
    ("twin-migration", "every migration exists for PostgreSQL and for SQLite"),
    ("exception", "an exception names a finding that exists"),
];

/// A file of the repository. `text` is None for what is not text.
pub(crate) struct File {
    /// Relative to the root, with `/` on every system.
    pub(crate) path: String,
    pub(crate) text: Option<String>,
}

/// Something to mend.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) remedy: String,
    /// What an exception must name: a function, or nothing when the rule is about the file.
    pub(crate) item: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.remedy)
    }
}

/// Every file under `root` that git tracks or would add.
///
/// # Errors
/// When git is missing or `root` is not a checkout; a sentence for the reader.
pub(crate) fn files_of(root: &Path) -> Result<Vec<File>, String> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("git does not run: {e}"))?;
    if !listing.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&listing.stderr).trim()));
    }
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let mut paths: Vec<&str> = listing.split('\0').filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    paths.dedup();
    // A file that git tracks and somebody has just deleted is not there to be read.
    let there = paths.into_iter().filter(|path| root.join(path).is_file());
    Ok(there.map(|path| File { path: path.to_owned(), text: read_text(&root.join(path)) }).collect())
}

/// All findings of all rules, exceptions taken out, in the order of the files.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let Some(text) = &file.text else { continue };
        if is_foreign(&file.path) {
            continue;
        }
        words::check(&file.path, text, &mut findings);
        if file.path.ends_with(".rs") {
            rust::check(&file.path, text, &mut findings);
        }
    }
    links::check(files, &mut findings);
    migrations::check(files, &mut findings);
    // An exception for a file that is not looked at is neither needed nor stale.
    let looked_at = |exception: &&exceptions::Exception| files.iter().any(|file| file.path == exception.path);
    let exceptions: Vec<_> = exceptions::ALL.iter().filter(looked_at).copied().collect();
    let mut findings = exceptions::apply(&exceptions, findings);
    findings.sort();
    findings
}

/// What others wrote and we only carry: their licences, scripts and test data; and lock files and inputs of fuzz targets, which a tool writes.
fn is_foreign(path: &str) -> bool {
    path.starts_with("licenses/")
        || path.starts_with("crates/mainstay/tests/data/wycheproof")
        || path.starts_with("app/assets/docs/swagger-ui")
        || path.starts_with("fuzz/corpus/")
        || path.ends_with(".min.js")
        || path == "Cargo.lock"
}

/// None for what is not UTF-8 or holds a NUL: data, images, archives.
fn read_text(path: &Path) -> Option<String> {
    String::from_utf8(std::fs::read(path).ok()?).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the rules say about one file.
    pub(super) fn rules_for(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let files = [File { path: path.to_owned(), text: Some(text.to_owned()) }];
        check(&files).into_iter().map(|finding| (finding.line, finding.rule)).collect()
    }

    #[test]
    fn a_tidy_file_gives_no_finding() {
        assert_eq!(rules_for("src/a.rs", "//! What it is for.\n\nfn main() {}\n"), []);
    }

    #[test]
    fn a_finding_reads_path_line_rule_remedy() {
        let files = [File { path: "a.rs".to_owned(), text: Some("fn main() {}\n".to_owned()) }];
        let said = check(&files).first().map(ToString::to_string).unwrap_or_default();
        assert!(said.starts_with("a.rs:1: module-doc: open the file with `//!`"), "{said}");
    }

    #[test]
    fn what_others_wrote_is_left_alone() {
        assert_eq!(rules_for("licenses/some.txt", "trailing \n\n\n"), []);
        assert_eq!(rules_for("app/assets/docs/swagger-ui-bundle.js", "trailing "), []);
    }

    #[test]
    fn every_rule_that_is_used_is_listed() {
        let sources = [include_str!("tidy/words.rs"), include_str!("tidy/rust.rs"), include_str!("tidy/links.rs")];
        let used = sources.iter().flat_map(|source| source.split("rule: \"").skip(1)).filter_map(|rest| rest.split('"').next());
        for rule in used {
            assert!(RULES.iter().any(|(name, _)| *name == rule), "{rule}");
        }
    }
}
