//! The README shows the example that the compiler checks, not one that looks like it.

#[test]
fn the_readme_shows_the_example_that_is_built() {
    let readme = include_str!("../../../README.md");
    let example = include_str!("../examples/own_router.rs");
    let shown = readme
        .split_once("<!-- example: crates/mainstay/examples/own_router.rs -->\n```rust\n")
        .and_then(|(_, rest)| rest.split_once("```\n"))
        .map(|(shown, _)| shown);
    assert_eq!(shown, Some(example), "copy the example into README.md, below its mark");
}
