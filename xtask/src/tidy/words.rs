//! The rules for every line of every text: white space, and words that do not belong into a repository.
//!
//! The words are put together from halves here, so that this file does not hold what it looks for.

use super::Finding;

/// What stands for work that is not done. Written with its own boundaries: `(` after a macro, nothing around a word.
const UNFINISHED_MACROS: &[&str] = &[concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!")];
const UNFINISHED_WORDS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];

/// Folders that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tmp/ba", "sh")];

/// Hosts of package registries, in lower case: a clone must be able to use a mirror.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("proxy.golang", ".org"),
    concat!("deb.debian", ".org"),
];

pub(super) fn check(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut find = |line: usize, rule: &'static str, remedy: String| {
        findings.push(Finding { path: path.to_owned(), line, rule, remedy, item: String::new() });
    };
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_end_matches(['\r', ' ', '\t']) != line {
            find(number, "trailing-space", "take the white space off its end".to_owned());
        }
        if path.ends_with(".rs") && line.contains('\t') {
            find(number, "tab", "use spaces; in a literal write \\t".to_owned());
        }
        for word in unfinished(line) {
            find(number, "unfinished", format!("`{word}`: do it, or make it an issue"));
        }
        for folder in MACHINE_PATHS.iter().filter(|folder| names_folder(line, folder)) {
            find(number, "machine-path", format!("`{folder}` exists on one machine only: use a relative path"));
        }
        let lower = line.to_lowercase();
        for host in REGISTRY_HOSTS.iter().filter(|host| lower.contains(*host)) {
            find(number, "registry-host", format!("`{host}`: name the package, not the host"));
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        find(text.lines().count(), "last-line", "end the file with one line break".to_owned());
    }
}

fn unfinished(line: &str) -> impl Iterator<Item = &'static str> {
    let macros = UNFINISHED_MACROS.iter().filter(|word| at_boundary(line, word, |_, after| after == Some('(')));
    let words = UNFINISHED_WORDS.iter().filter(|word| at_boundary(line, word, |_, after| !after.is_some_and(is_name)));
    macros.chain(words).copied().collect::<Vec<_>>().into_iter()
}

/// A folder at the beginning of a path: not the middle of another path or of an address.
fn names_folder(line: &str, folder: &str) -> bool {
    at_boundary(line, folder, |before, after| {
        !before.is_some_and(|c| matches!(c, '.' | '}' | '/' | '-' | ')' | '*')) && after.is_some_and(|c| is_name(c) || !folder.ends_with('/'))
    })
}

/// Whether `word` stands in `line`, not behind a letter, and `fits` likes the characters around it.
fn at_boundary(line: &str, word: &str, fits: impl Fn(Option<char>, Option<char>) -> bool) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && fits(before, after)
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::rules_for;

    #[test]
    fn white_space_at_the_end_of_a_line_is_found() {
        assert_eq!(rules_for("a.md", "a \nb\nc\t\nd\r\n"), [(1, "trailing-space"), (3, "trailing-space")]);
    }

    #[test]
    fn a_tab_is_found_in_rust_only() {
        assert_eq!(rules_for("src/a.rs", "//! A.\n\tb();\n"), [(2, "tab")]);
        assert_eq!(rules_for("Makefile", "a:\n\tb\n"), []);
    }

    #[test]
    fn a_file_ends_with_one_line_break() {
        for bad in ["a", "a\n\n"] {
            assert_eq!(rules_for("a.md", bad).iter().map(|f| f.1).collect::<Vec<_>>(), ["last-line"], "{bad:?}");
        }
        assert_eq!(rules_for("a.md", "a\n"), []);
        assert_eq!(rules_for("a.md", ""), []);
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_comments() {
        for word in UNFINISHED_MACROS {
            assert_eq!(rules_for("a.md", &format!("    {word}(\"later\")\n")), [(1, "unfinished")], "{word}");
        }
        for word in UNFINISHED_WORDS {
            assert_eq!(rules_for("a.sql", &format!("-- {word}: later\n")), [(1, "unfinished")], "{word}");
        }
    }

    #[test]
    fn words_that_only_look_unfinished_are_not_found() {
        for good in ["mktemp -d x.XXXXXXXX", "the todo! macro", "Todos los días", "PREFIXME_AND_MORE", "my_dbg!(a)"] {
            assert_eq!(rules_for("a.md", &format!("{good}\n")), [], "{good}");
        }
    }

    #[test]
    fn a_folder_of_one_machine_is_found() {
        for folder in MACHINE_PATHS {
            assert_eq!(rules_for("a.md", &format!("see {folder}main\n")), [(1, "machine-path")], "{folder}");
        }
        for good in [concat!("https://example.org/wo", "rk/a"), concat!("$HOME/ro", "ot/a"), concat!("./ho", "me/a")] {
            assert_eq!(rules_for("a.md", &format!("see {good}\n")), [], "{good}");
        }
    }

    #[test]
    fn a_registry_host_is_found_in_any_letter_case() {
        for host in REGISTRY_HOSTS {
            let loud = format!("HTTPS://{}/x\n", host.to_uppercase());
            assert_eq!(rules_for("a.json", &loud), [(1, "registry-host")], "{host}");
        }
        assert_eq!(rules_for("Cargo.lock", &format!("source = \"{}\"\n", concat!("crates", ".io"))), []);
    }
}
