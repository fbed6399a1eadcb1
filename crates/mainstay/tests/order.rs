//! The order of the stack is a type: what must not compile does not, with these words, and a layer of a team's own has its place.
//!
//! Each `fail/*.rs` is a library that stands for somebody's mistake; the `.stderr` beside it holds what its author is told. The programs are checked
//! by `rustc` itself against the library that these tests are linked with, so nothing is built a second time: a tenth of a second each, where a
//! build of its own would compile some three hundred crates again. Only the words that are ours are compared (code, message, place, label, notes);
//! what the compiler adds of its own changes from one release to the next.
//!
//! After a change: `BLESS=1 cargo test -p mainstay --test order`, and read the difference.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request};
use mainstay::clock::Clock;
use mainstay::config::{ContentPolicy, Origins};
use mainstay::context::Context;
use mainstay::error::Detail;
use mainstay::serve::Limits;
use mainstay::stack::*;
use mainstay::testing::{TestServer, request, routes};
use serde_json::Value;

/// The library that this test is linked with: the newest one beside it.
fn library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let libraries = fs::read_dir(&beside).unwrap().map(|entry| entry.unwrap());
    let ours = libraries.filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("libmainstay-") && name.ends_with(".rlib")
    });
    ours.max_by_key(|entry| entry.metadata().unwrap().modified().unwrap()).expect("the tests are linked with a library").path()
}

/// What `rustc` says of a program, in the form of its own messages; nothing if it compiles.
fn check(program: &Path, library: &Path) -> String {
    // The same compiler as cargo's: rustup hands its choice down.
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let metadata = tempfile::tempdir().unwrap();
    let output = Command::new(rustc)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--error-format=json", "-o"])
        .arg(metadata.path().join("program.rmeta"))
        .arg("--extern")
        .arg(format!("mainstay={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", library.parent().unwrap().display()))
        .arg(program)
        .output()
        .expect("there is a rustc");
    let said = String::from_utf8(output.stderr).unwrap();
    let errors = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|found| found["level"] == "error");
    let text = errors.filter_map(|error| written(&error)).collect::<Vec<_>>().join("\n");
    assert_eq!(text.is_empty(), output.status.success(), "{said}");
    text
}

/// An error in the form of rustc's own; `None` for the last one, which only counts the others.
fn written(error: &Value) -> Option<String> {
    let span = error["spans"].as_array().unwrap().iter().find(|span| span["is_primary"] == true);
    let Some(span) = span else {
        assert!(error["message"].as_str().unwrap().starts_with("aborting due to"), "{error}");
        return None;
    };
    let line = &span["text"][0];
    let column = |name: &str| usize::try_from(line[name].as_u64().unwrap()).unwrap() - 1;
    let (from, to) = (column("highlight_start"), column("highlight_end"));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut text = format!("error[{}]: {}\n", word(&error["code"]["code"]), word(&error["message"]));
    writeln!(text, " --> {}:{}:{}", word(&span["file_name"]), span["line_start"], span["column_start"]).unwrap();
    writeln!(text, "  | {}", word(&line["text"])).unwrap();
    writeln!(text, "  | {}{} {}", " ".repeat(from), "^".repeat(to - from), word(&span["label"])).unwrap();
    for note in error["children"].as_array().unwrap() {
        if note["level"] == "note" && note["spans"].as_array().unwrap().is_empty() {
            writeln!(text, "  = note: {}", word(&note["message"])).unwrap();
        }
    }
    Some(text)
}

#[test]
fn what_must_not_compile_does_not_and_says_why() {
    let library = library();
    let mut programs: Vec<_> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fail")).unwrap().map(|entry| entry.unwrap().path()).collect();
    programs.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    programs.sort();
    assert!(programs.len() >= 5, "{programs:?}");
    for path in programs {
        // Named as a reader of the messages would, whatever the folder of the checkout.
        let program = Path::new("tests/fail").join(path.file_name().unwrap());
        let told = check(&program, &library);
        assert!(!told.is_empty(), "{} compiles", program.display());
        let expected = path.with_extension("stderr");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &told).unwrap();
        }
        assert_eq!(told, fs::read_to_string(&expected).unwrap_or_default(), "{}", program.display());
    }
}

/// A layer of a team's own, with its place between the deadline and overload.
#[derive(Clone)]
struct Tenancy;

impl InsideOf<Deadline> for Tenancy {}
impl InsideOf<Tenancy> for Overload {}

impl Layer for Tenancy {
    type Visit = ();

    fn request(&self, _: &mut Request<Body>, _: &Arc<Context>) -> ControlFlow<Response, ()> {
        ControlFlow::Continue(())
    }

    fn answer(&self, (): (), answer: &mut Outgoing) {
        answer.headers_mut().insert("x-tenant", HeaderValue::from_static("acme"));
    }
}

/// A layer that stands inside the body limit.
#[derive(Clone)]
struct Audit;

impl InsideOf<BodyLimit> for Audit {}
impl Innermost for Audit {}

impl Layer for Audit {
    type Visit = ();

    fn request(&self, _: &mut Request<Body>, _: &Arc<Context>) -> ControlFlow<Response, ()> {
        ControlFlow::Continue(())
    }

    fn answer(&self, (): (), answer: &mut Outgoing) {
        answer.headers_mut().insert("x-audited", HeaderValue::from_static("1"));
    }
}

#[tokio::test]
async fn layers_of_ones_own_have_their_place_and_may_be_left_out() {
    for tenancy in [Some(Tenancy), None] {
        let router = axum::Router::new().route("/", axum::routing::get(async || "fine"));
        let routes = routes(router, &["GET /"], &[]);
        let wanted = tenancy.as_ref().map(|_| "acme");
        let server = TestServer::around(Limits::default(), |log, metrics| {
            from_the_street(Default::default())
                .enter(Observe::new(routes.table(), Detail::Message, log, metrics, Clock::system()))
                .enter(PanicBarrier)
                .enter(SecureHeaders::new(ContentPolicy::Api))
                .enter(Cors::new(Origins { any: true, list: Vec::new() }, false))
                .enter(Compress)
                .enter(Conform)
                .enter(Deadline::new(Duration::from_secs(30)))
                .enter_if(tenancy)
                .enter(Overload::new(0))
                .enter(RateLimit::new(100, Duration::from_secs(900), Default::default()))
                .enter(BodyLimit::new(1024))
                .enter(Audit)
                .around(routes)
        });
        let answer = server.exchange(request("GET", "/", &[], "")).await;
        assert_eq!((answer.status, answer.header("x-tenant")), (503, wanted), "outside of overload");
        assert_eq!(answer.header("x-audited"), None, "overload answers before it");
        assert_eq!(answer.all("content-security-policy"), ["default-src 'none';base-uri 'none';form-action 'none';frame-ancestors 'none'"]);
        assert_eq!(server.logged(answer.header("x-request-id").unwrap()).await.len(), 1);
    }
}
