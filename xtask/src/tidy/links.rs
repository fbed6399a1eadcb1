//! The rule for Markdown: a link to a file or a heading of this repository leads there. Addresses outside are not tried.

use super::{File, Finding, is_foreign};

pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    for file in files.iter().filter(|file| file.path.ends_with(".md") && !is_foreign(&file.path)) {
        let Some(text) = &file.text else { continue };
        for (line, target) in targets(text) {
            if let Some(remedy) = broken(files, &file.path, &target) {
                findings.push(Finding { path: file.path.clone(), line, rule: "link", remedy, item: String::new() });
            }
        }
    }
}

/// What is wrong with a link in the file `from`; None when it leads somewhere, or outside.
fn broken(files: &[File], from: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") || target.starts_with("data:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { from.to_owned() } else { resolve(from, path) };
    let folder = format!("{path}/");
    let Some(file) = files.iter().find(|file| file.path == path) else {
        let is_folder = path.is_empty() || files.iter().any(|file| file.path.starts_with(&folder));
        return (!is_folder).then(|| format!("`{target}`: there is no {path}"));
    };
    let text = file.text.as_deref().filter(|_| !anchor.is_empty() && path.ends_with(".md"))?;
    (!anchors(text).iter().any(|known| known == anchor)).then(|| format!("`{target}`: {path} has no such heading"))
}

/// The path, from the root, of `target` as written in the file `from`. `/x` is the root's x, as GitHub reads it.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { from.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Every link of a Markdown text with its line: `[a](b)`, `[a]: b`, `href="b"` and `src="b"`. Code is left out.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let definition = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let html = ["href=\"", "src=\"", "srcset=\""].into_iter().flat_map(|mark| line.split(mark).skip(1));
        let html = html.filter_map(|rest| rest.split('"').next());
        for target in definition.into_iter().chain(inline).chain(html) {
            // A title may follow the target.
            let target = target.split_whitespace().next().unwrap_or("");
            found.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
    }
    found
}

/// The anchors of the headings as GitHub makes them: lower case, words joined by hyphens, a number behind a repetition.
fn anchors(text: &str) -> Vec<String> {
    let mut plain: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = plain.iter().filter(|known| **known == anchor).count();
        all.push(if again == 0 { anchor.clone() } else { format!("{anchor}-{again}") });
        plain.push(anchor);
    }
    all
}

/// The lines outside fenced code, with their numbers, and with `code` in a line taken out except in headings.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let fence = line.trim_start().starts_with("```");
        if !fence && !fenced {
            let outside = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join("`");
            lines.push((number, if line.starts_with('#') { line.to_owned() } else { outside(line) }));
        }
        fenced ^= fence;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: Some(text.to_owned()) }
    }

    fn findings(text: &str) -> Vec<usize> {
        let other = file("docs/other.md", "# Two words\n\n## `code` & more\n\n## Two words\n");
        let files = [file("docs/page.md", text), other, file("README.md", "# Title\n")];
        let mut findings = Vec::new();
        check(&files, &mut findings);
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn links_that_lead_somewhere_are_fine() {
        let good = "[a](other.md) [b](../README.md#title) [c](other.md#two-words-1) [d](other.md#code--more)\n\
                    [e]: /README.md \"title\"\n<img src=\"../docs/other.md\"> [f](https://example.org/x) [g](..) [h](../docs/)\n";
        assert_eq!(findings(good), [0; 0]);
    }

    #[test]
    fn links_into_nothing_are_found() {
        let bad = "[a](gone.md)\n[b](other.md#no-such)\n[c]: ../gone/\n<img src=\"gone.png\">\n[d](#here)\n";
        assert_eq!(findings(bad), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn code_holds_no_links() {
        assert_eq!(findings("`[a](gone.md)`\n\n```md\n[b](gone.md)\n```\n"), [0; 0]);
    }
}
