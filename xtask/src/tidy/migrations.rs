//! The rule for migrations: both databases have the same ones, by name, so that no schema falls behind the other.

use super::{File, Finding};

const FOLDERS: [&str; 2] = ["app/migrations/postgres/", "app/migrations/sqlite/"];

pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    let has = |path: &str| files.iter().any(|file| file.path == path);
    let [postgres, sqlite] = FOLDERS;
    for file in files {
        for (here, there) in [(postgres, sqlite), (sqlite, postgres)] {
            let Some(name) = file.path.strip_prefix(here) else { continue };
            let twin = format!("{there}{name}");
            if !has(&twin) {
                let (path, remedy) = (file.path.clone(), format!("write its twin {twin}"));
                findings.push(Finding { path, line: 1, rule: "twin-migration", remedy, item: String::new() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &[&str]) -> Vec<String> {
        let files: Vec<File> = paths.iter().map(|path| File { path: (*path).to_owned(), text: None }).collect();
        let mut findings = Vec::new();
        check(&files, &mut findings);
        findings.into_iter().map(|finding| finding.path).collect()
    }

    #[test]
    fn a_migration_for_one_database_only_is_found() {
        let (one, other) = ("app/migrations/postgres/0001_users.sql", "app/migrations/sqlite/0001_users.sql");
        assert_eq!(found(&[one]), [one]);
        assert_eq!(found(&[other]), [other]);
        assert_eq!(found(&[one, other]), [""; 0]);
    }
}
