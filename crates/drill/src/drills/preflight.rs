//! What a browser asks before it lets a page ask: every combination, allowed and not.

use std::collections::BTreeMap;

use crate::client::{self, Connection, request};
use crate::outcome::Outcome;
use crate::target::Running;

/// `ALLOWED_ORIGINS` of the services that we start for this.
pub(super) const ALLOWED: &str = "https://shop.example.com,http://localhost:5173";

const FOREIGN: [&str; 12] = [
    "https://evil.example",
    "https://shop.example.com.evil.example",
    "https://evilshop.example.com",
    "https://sub.shop.example.com",
    "http://shop.example.com",
    "https://shop.example.com:8443",
    "https://SHOP.example.com.",
    "https://example.com",
    "null",
    "file://",
    "https://shop.example.com/",
    "*",
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const FIELDS: [Option<&str>; 4] =
    [None, Some("content-type"), Some("authorization, content-type"), Some("if-none-match, x-request-id, idempotency-key")];

pub(super) async fn run(running: &Running) -> Result<Outcome, String> {
    let allowed: Vec<&str> = ALLOWED.split(',').collect();
    // A service that runs already may have another list: then none of ours is allowed, and that is told.
    let known = client::ask(running.address, "GET", &running.reads, &[("origin", allowed[0])], b"").await.map_err(super::words)?;
    let listed = known.field("access-control-allow-origin").is_some();
    let mut wrong: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut asked = 0;
    let mut connection = Connection::open(running.address, None).await.map_err(super::words)?;
    for origin in allowed.iter().copied().chain(FOREIGN) {
        let ours = listed && allowed.contains(&origin);
        for method in METHODS {
            for fields in FIELDS {
                let mut sent = vec![("origin", origin), ("access-control-request-method", method)];
                sent.extend(fields.map(|fields| ("access-control-request-headers", fields)));
                // A target that only a route could have an opinion on: 404 for the product that nobody has, if it were reached.
                for target in [running.reads.as_str(), running.posts.as_str()] {
                    asked += 1;
                    let answer = connection.ask(&request("OPTIONS", target, &sent, b"")).await.map_err(super::words)?;
                    let says = answer.field("access-control-allow-origin");
                    let what = || format!("{origin} {method} {}: {} {:?}", fields.unwrap_or("-"), answer.status, says);
                    if says.is_some() != ours || says.is_some_and(|says| says != origin) {
                        wrong.entry("origins").or_default().push(what());
                    }
                    if !matches!(answer.status, 200 | 204) {
                        wrong.entry("reached").or_default().push(what());
                    }
                    if !answer.fields.iter().any(|(name, value)| name == "vary" && value.to_ascii_lowercase().contains("origin")) {
                        wrong.entry("vary").or_default().push(what());
                    }
                    if answer.closes() {
                        connection = Connection::open(running.address, None).await.map_err(super::words)?;
                    }
                }
            }
        }
    }
    // Errors are readable for allowed pages too, and for nobody else.
    for origin in allowed.iter().copied().chain(FOREIGN) {
        for (method, target) in [("GET", "/api/no-such-route"), ("POST", running.posts.as_str())] {
            asked += 1;
            let answer = client::ask(running.address, method, target, &[("origin", origin)], b"{").await.map_err(super::words)?;
            let ours = listed && allowed.contains(&origin);
            if answer.field("access-control-allow-origin").is_some() != ours {
                wrong.entry("errors").or_default().push(format!("{origin} {method} {target}: {}", answer.status));
            }
        }
    }
    let mut outcome = Outcome::default();
    outcome.note("questions", asked);
    if !listed {
        outcome.note("allowed origins", "none of this drill's list: only the refusals are looked at");
    }
    for (key, what) in [
        ("origins", "answers that allow the wrong origin, or not the right one"),
        ("reached", "preflights that were not answered as such"),
        ("vary", "answers without `Vary: Origin`"),
        ("errors", "errors that are readable for the wrong page, or not for the right one"),
    ] {
        let found = wrong.remove(key).unwrap_or_default();
        outcome.want(what, found.len(), "none", found.is_empty());
        if let Some(first) = found.first() {
            outcome.note(format!("the first of {key}"), first);
        }
    }
    Ok(outcome)
}
