//! The documentation page and the document behind it, embedded: it works offline and loads nothing from elsewhere.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, header};
use mainstay::error::{Error, codes};
use rust_embed::RustEmbed;
use utoipa::openapi::OpenApi;

/// The patterns of the page, which the document does not list.
pub const PATHS: &[&str] = &["/", "/docs", "/docs/{file}", "/openapi.json"];

#[derive(RustEmbed)]
#[folder = "assets/docs"]
#[exclude = "README.md"]
struct Assets;

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
    let Some(found) = Assets::get(name) else {
        return Error::new(&codes::ROUTE_NOT_FOUND).into_response();
    };
    let media = HeaderValue::try_from(found.metadata.mimetype()).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let body = match found.data {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    // Asked again after an upgrade, not at every visit.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
