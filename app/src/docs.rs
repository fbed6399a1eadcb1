//! The documentation page and the document behind it, embedded: it works offline and loads nothing from elsewhere.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, header};
use mainstay::error::{Error, codes};
use utoipa::openapi::OpenApi;

/// The patterns of the page, which the document does not list.
pub const PATHS: &[&str] = &["/", "/docs", "/docs/{file}", "/openapi.json"];

/// What is answered without waiting for anything.
pub const FROM_MEMORY: &[&str] = &["GET /", "GET /docs", "GET /docs/{file}", "GET /openapi.json"];

/// The files of the page: name, media type, content.
static FILES: [(&str, &str, &[u8]); 7] = [
    ("index.html", "text/html; charset=utf-8", include_bytes!("../assets/docs/index.html")),
    ("docs.css", "text/css; charset=utf-8", include_bytes!("../assets/docs/docs.css")),
    ("docs.js", "text/javascript; charset=utf-8", include_bytes!("../assets/docs/docs.js")),
    ("favicon.svg", "image/svg+xml", include_bytes!("../assets/docs/favicon.svg")),
    ("swagger-ui.css", "text/css; charset=utf-8", include_bytes!("../assets/docs/swagger-ui.css")),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8", include_bytes!("../assets/docs/swagger-ui-bundle.js")),
    ("swagger-ui-bundle.js.LICENSE.txt", "text/plain; charset=utf-8", include_bytes!("../assets/docs/swagger-ui-bundle.js.LICENSE.txt")),
];

/// The page, its files and the document.
pub fn router(document: &OpenApi) -> Router {
    // A document made of our own types always serialises.
    let document = Bytes::from(document.to_json().unwrap_or_default());
    Router::new()
        .route("/", get(async || Redirect::temporary("/docs")))
        .route("/docs", get(async || file("index.html")))
        .route("/docs/{file}", get(async |Path(name): Path<String>| file(&name)))
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], document)))
}

fn file(name: &str) -> Response {
    let Some((_, media, content)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Error::new(&codes::ROUTE_NOT_FOUND).into_response();
    };
    let mut response = Response::new(Body::from(Bytes::from_static(content)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    // Asked again after an upgrade, not at every visit.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
