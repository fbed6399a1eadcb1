//! What is published is what runs: the document and the reference of the settings are files that a reviewer sees change.

use crate::process;

#[test]
fn the_document_in_the_repository_is_the_one_the_service_gives() {
    let published = include_str!("../../openapi.json");
    let given = mainstay_app::app::document().to_pretty_json().unwrap() + "\n";
    // Not assert_eq: nobody wants to read both.
    let line = published.lines().zip(given.lines()).position(|(published, given)| published != given);
    assert!(
        published == given,
        "app/openapi.json is not the document of this program (first difference in line {:?}); renew it with `cargo run -- openapi > app/openapi.json`",
        line.map(|line| line + 1)
    );
}

#[test]
fn the_command_prints_the_document_whatever_the_settings() {
    let settings = [("APP_ENV".to_owned(), "production".to_owned()), ("PORT".to_owned(), "nonsense".to_owned())];
    let output = process::run(&settings, &["openapi"], b"");
    assert!(output.status.success());
    assert!(output.stdout == include_bytes!("../../openapi.json"), "`mainstay openapi` and app/openapi.json differ");
}

#[test]
fn the_reference_of_the_settings_is_the_one_the_program_gives() {
    let output = process::run(&[], &["config", "--reference"], b"");
    assert!(output.status.success());
    let given = String::from_utf8(output.stdout).unwrap();
    let published = include_str!("../../../docs/configuration.md");
    assert!(given == published, "docs/configuration.md is out of date; renew it with `cargo run -- config --reference > docs/configuration.md`");
}
