//! Texts that broke somebody's search: unclosed brackets, operators, wildcards, control characters, hundreds of emoji.

use std::collections::BTreeMap;

use crate::Plan;
use crate::chance::Chance;
use crate::client::{Connection, request};
use crate::outcome::Outcome;
use crate::target::Running;

/// The ones that a person would write down.
const WRITTEN: [&str; 40] = [
    "",
    " ",
    "laptop [unclosed",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\\",
    "/",
    "*",
    "+",
    "?",
    "^",
    "$",
    "|",
    "(?<=a)b",
    "(a+)+$",
    "a{1000000}",
    "[a-",
    "\\p{Greek}",
    "name:",
    "name:laptop AND",
    "OR OR OR",
    "NOT",
    "-laptop",
    "+laptop -",
    "\"laptop",
    "laptop~9999",
    "laptop^1e309",
    "[* TO *]",
    "price:[10 TO",
    "%",
    "_",
    "'; DROP TABLE products; --",
    "\u{202e}laptop",
    "a\u{300}\u{301}\u{302}\u{303}",
];

fn texts(count: usize) -> Vec<String> {
    let mut texts: Vec<String> = WRITTEN.iter().map(|text| (*text).to_owned()).collect();
    texts.push("\u{1f600}".repeat(600));
    texts.push("a ".repeat(3_000));
    texts.push("(".repeat(6_000));
    // And all that a machine makes of the signs that mean something somewhere.
    let signs = [
        '[', ']', '(', ')', '{', '}', '*', '+', '?', '^', '$', '|', '\\', '"', '\'', '~', ':', '-', '/', '!', '&', '<', '>', '%', '_', ';', '=', '.',
        ',', '#', '@', '`',
    ];
    // The same texts each time.
    let mut chance = Chance(1);
    while texts.len() < count {
        let mut text = String::new();
        for _ in 0..12 {
            match chance.below(5) {
                0 => text.push_str("laptop"),
                1 => text.push(' '),
                2 => text.push(char::from_u32(chance.below(0x3000) as u32 + 1).unwrap_or(' ')),
                _ => text.push(signs[chance.below(signs.len())]),
            }
        }
        texts.push(text);
    }
    texts
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub(super) async fn run(plan: &Plan, running: &Running) -> Result<Outcome, String> {
    let Some(searches) = &running.searches else { return Ok(Outcome::skipped("it has no search")) };
    let texts = texts(plan.number(5_000).max(500));
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    let mut worst: Option<(String, String)> = None;
    let mut connection = None;
    for text in &texts {
        let asking = async {
            let mut kept = match connection.take() {
                Some(kept) => kept,
                None => Connection::open(running.address, None).await?,
            };
            let answer = Connection::ask(&mut kept, &request("GET", &format!("{searches}{}", encoded(text)), &[], b"")).await?;
            Ok::<_, std::io::Error>((answer, kept))
        };
        let status = match asking.await {
            Ok((answer, kept)) => {
                connection = (!answer.closes()).then_some(kept);
                answer.status.to_string()
            }
            Err(error) => error.kind().to_string(),
        };
        // A target of more than 8 KiB is refused as such: 1,000 emoji are 12.
        if status != "200" && status != "414" && worst.is_none() {
            worst = Some((text.chars().take(80).collect(), status.clone()));
        }
        *statuses.entry(status).or_default() += 1;
    }
    let mut outcome = Outcome::default();
    outcome.note("searches", texts.len());
    let said: Vec<String> = statuses.iter().map(|(status, count)| format!("{count} x {status}")).collect();
    outcome.want("answers", said.join(", "), "200, or 414 for a target over 8 KiB", worst.is_none());
    if let Some((text, status)) = worst {
        outcome.note("the first that was not", format!("{status}: {text:?}"));
    }
    Ok(outcome)
}
