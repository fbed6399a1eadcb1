//! The few places where a rule does not hold, each with its reason. The list is meant to stay short enough to read.

use super::Finding;

/// One place where one rule does not hold.
#[derive(Clone, Copy)]
pub(super) struct Exception {
    pub(super) rule: &'static str,
    pub(super) path: &'static str,
    /// The function, or empty when the rule is about the file.
    pub(super) item: &'static str,
    pub(super) reason: &'static str,
}

/// Lists and tables read best whole.
const TABLE: &str = "a table of cases: splitting it would only hide how long it is";
/// One test file for a module: its contract in one place.
const CONTRACT: &str = "the contract of one module, on both databases or over sockets, in one file";

const fn table(path: &'static str, item: &'static str) -> Exception {
    Exception { rule: "function-length", path, item, reason: TABLE }
}

const fn contract(path: &'static str) -> Exception {
    Exception { rule: "file-length", path, item: "", reason: CONTRACT }
}

pub(super) const ALL: &[Exception] = &[
    table("app/tests/it/search.rs", "no_text_is_an_error"),
    table("crates/mainstay/tests/malformed/framing.rs", "chunk"),
    table("crates/mainstay/tests/malformed/framing.rs", "coding"),
    table("crates/mainstay/tests/transport/forms.rs", "malformed"),
    table("crates/search/tests/index.rs", "hostile_texts_are_searches"),
    contract("app/tests/it/products.rs"),
    contract("crates/mainstay/tests/store.rs"),
    contract("crates/search/tests/index.rs"),
];

/// Takes out what is excepted and adds a finding for every exception that excepts nothing or gives no reason.
pub(super) fn apply(exceptions: &[Exception], findings: Vec<Finding>) -> Vec<Finding> {
    let fits = |e: &Exception, f: &Finding| e.rule == f.rule && e.path == f.path && e.item == f.item;
    let stale = exceptions.iter().filter(|e| e.reason.is_empty() || !findings.iter().any(|f| fits(e, f)));
    let stale: Vec<Finding> = stale
        .map(|e| Finding {
            path: e.path.to_owned(),
            line: 1,
            rule: "exception",
            remedy: format!("the exception from {} is not needed or has no reason: mend xtask/src/tidy/exceptions.rs", e.rule),
            item: String::new(),
        })
        .collect();
    let kept = findings.into_iter().filter(|f| !exceptions.iter().any(|e| !e.reason.is_empty() && fits(e, f)));
    kept.chain(stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_long() -> Finding {
        let remedy = "split it".to_owned();
        Finding { path: "a.rs".to_owned(), line: 1, rule: "file-length", remedy, item: String::new() }
    }

    const LONG: Exception = Exception { rule: "file-length", path: "a.rs", item: "", reason: "one table" };

    #[test]
    fn an_exception_takes_out_its_finding_and_no_other() {
        assert_eq!(apply(&[LONG], vec![too_long()]), []);
        let other = Finding { path: "b.rs".to_owned(), ..too_long() };
        let left = apply(&[LONG], vec![too_long(), other]);
        assert_eq!(left.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["b.rs"]);
    }

    #[test]
    fn an_exception_that_is_not_needed_is_a_finding() {
        assert_eq!(apply(&[LONG], Vec::new()).first().map(|f| f.rule), Some("exception"));
    }

    #[test]
    fn an_exception_without_a_reason_excepts_nothing() {
        let rules: Vec<_> = apply(&[Exception { reason: "", ..LONG }], vec![too_long()]).iter().map(|f| f.rule).collect();
        assert_eq!(rules, ["file-length", "exception"]);
    }
}
