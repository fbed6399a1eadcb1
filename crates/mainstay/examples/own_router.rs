//! The stack around a router of your own: two routes, every layer, and a drain on Ctrl-C.
//!
//!     cargo run -p mainstay --example own_router

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use mainstay::client::Networks;
use mainstay::clock::Clock;
use mainstay::config::{ContentPolicy, LogFormat, Origins};
use mainstay::error::{Detail, Fields, Flaw};
use mainstay::extract::Json;
use mainstay::log::{self, Sink};
use mainstay::metrics::Metrics;
use mainstay::routes::Routes;
use mainstay::serve::{self, Drain, Limits};
use mainstay::stack::{BodyLimit, Compress, Conform, Cors, Deadline, Observe, Overload, PanicBarrier, RateLimit, SecureHeaders, from_the_street};
use mainstay::{Result, Success};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

type Notes = Arc<Mutex<Vec<Note>>>;

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
}

#[utoipa::path(get, path = "/notes", responses((status = 200, description = "All notes", body = [Note])))]
async fn list(State(notes): State<Notes>) -> axum::Json<Success<Vec<Note>>> {
    let data = notes.lock().map(|notes| notes.clone()).unwrap_or_default();
    axum::Json(Success { status: "success", data })
}

#[utoipa::path(post, path = "/notes", request_body = Note, responses((status = 201, description = "The note", body = Note)))]
async fn create(State(notes): State<Notes>, Json(note): Json<Note>) -> Result<(StatusCode, axum::Json<Success<Note>>)> {
    let mut fields = Fields::new();
    if note.text.trim().is_empty() {
        fields.note("text", Flaw::new("required", "must not be blank"));
    }
    fields.finish()?;
    if let Ok(mut notes) = notes.lock() {
        notes.push(note.clone());
    }
    Ok((StatusCode::CREATED, axum::Json(Success { status: "success", data: note })))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let sink = Sink::to(std::io::stdout(), LogFormat::Text)?;
    log::init(&sink, "info");

    // The document comes from the handlers, the table of routes from the document.
    let (router, document) = OpenApiRouter::new().routes(routes!(list, create)).split_for_parts();
    let routes = Routes::new(router.with_state(Notes::default()), &document, &[], &[]);

    // Any other order, or a missing layer, does not compile.
    let stack = from_the_street(Networks::default())
        .enter(Observe::new(routes.table(), Detail::Message, sink, Metrics::global(), Clock::system()))
        .enter(PanicBarrier)
        .enter(SecureHeaders::new(ContentPolicy::Api))
        .enter(Cors::new(Origins { any: false, list: vec!["https://app.example.com".to_owned()] }, true))
        .enter(Compress)
        .enter(Conform)
        .enter(Deadline::new(Duration::from_secs(30)))
        .enter(Overload::new(1024))
        .enter(RateLimit::new(100, Duration::from_secs(15 * 60), Networks::default()))
        .enter(BodyLimit::new(1 << 20))
        .around(routes);

    let listener = serve::bind(([127, 0, 0, 1], 3000).into())?;
    let drain = Drain::new();
    let serving = tokio::spawn(serve::serve(listener, stack, Limits::default(), drain.clone()));
    tokio::signal::ctrl_c().await?;
    drain.begin(Duration::from_secs(30));
    let report = serving.await.unwrap_or_default();
    std::process::exit(i32::from(report.cut > 0));
}
