//! The rules for Rust files: how they open, how long they and their functions are, who reads the environment.

use super::Finding;
use crate::rust_source::{code_only, functions, line_of, test_lines};

/// A reader keeps about this much in view; STYLE.md asks to look again at 400.
const FILE_LINES_MAX: usize = 400;
/// One screen.
const FUNCTION_LINES_MAX: usize = 70;
/// What reads or writes the environment of the process. `env!` is the compiler's and harmless.
const ENVIRONMENT: &[&str] = &["env::var", "env::set_var", "env::remove_var"];

pub(super) fn check(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut find = |line: usize, rule: &'static str, item: &str, remedy: String| {
        findings.push(Finding { path: path.to_owned(), line, rule, remedy, item: item.to_owned() });
    };
    if !text.starts_with("//!") {
        let remedy = "open the file with `//!`: what it is for, what it promises".to_owned();
        find(1, "module-doc", "", remedy);
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        find(1, "file-length", "", format!("{lines} lines: split it, or say in exceptions.rs why not"));
    }
    let code = code_only(text);
    for function in functions(&code) {
        let lines = function.last - function.first + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = &function.name;
            find(function.first, "function-length", name, format!("`{name}` has {lines} lines: split it at its thoughts"));
        }
    }
    if !may_read_environment(path) {
        let tests = test_lines(&code);
        for (at, call) in ENVIRONMENT.iter().flat_map(|call| code.match_indices(call)) {
            let line = line_of(&code, at);
            if !tests.iter().any(|(first, last)| (*first..=*last).contains(&line)) {
                find(line, "environment", "", format!("`{call}` belongs in config: take the value as an argument"));
            }
        }
    }
}

/// Config itself, and what is not part of the service: build scripts, tests, benchmarks, tools.
fn may_read_environment(path: &str) -> bool {
    let mut parts = path.split('/');
    let name = path.rsplit('/').next().unwrap_or(path);
    parts.any(|part| ["config", "tests", "benches", "drills", "xtask", "scripts", "examples"].contains(&part))
        || ["config.rs", "build.rs", "testing.rs"].contains(&name)
}

#[cfg(test)]
mod tests {
    use crate::tidy::tests::rules_for;

    #[test]
    fn a_file_without_its_opening_words_is_found() {
        assert_eq!(rules_for("src/a.rs", "fn main() {}\n"), [(1, "module-doc")]);
        assert_eq!(rules_for("src/a.rs", "// Words.\nfn main() {}\n"), [(1, "module-doc")]);
    }

    #[test]
    fn four_hundred_lines_are_allowed_and_one_more_is_not() {
        let file = |lines: usize| format!("//! Words.\n{}", "const A: u8 = 1;\n".repeat(lines - 1));
        assert_eq!(rules_for("src/a.rs", &file(400)), []);
        assert_eq!(rules_for("src/a.rs", &file(401)), [(1, "file-length")]);
    }

    #[test]
    fn seventy_lines_of_a_function_are_allowed_and_one_more_is_not() {
        let function = |lines: usize| format!("//! Words.\n\nasync fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2));
        assert_eq!(rules_for("src/a.rs", &function(70)), []);
        assert_eq!(rules_for("src/a.rs", &function(71)), [(3, "function-length")]);
    }

    #[test]
    fn only_config_and_tests_read_the_environment() {
        let bad = "//! Words.\n\nfn a() {\n    let _ = std::env::var(\"PORT\");\n}\n";
        assert_eq!(rules_for("app/src/users.rs", bad), [(4, "environment")]);
        for path in ["crates/mainstay/src/config.rs", "crates/mainstay/src/config/parse.rs", "app/build.rs", "app/tests/it/main.rs"] {
            assert_eq!(rules_for(path, bad), [], "{path}");
        }
        let test = "//! Words.\n\n#[cfg(test)]\nmod tests {\n    fn a() {\n        let _ = std::env::var_os(\"X\");\n    }\n}\n";
        assert_eq!(rules_for("app/src/users.rs", test), []);
        assert_eq!(rules_for("app/src/users.rs", "//! Not `std::env::var`.\n\nconst A: &str = env!(\"B\");\n"), []);
    }
}
