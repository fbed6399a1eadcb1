//! The public keys of our access tokens, for other services that verify them.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use mainstay::auth::keys::JwkSet;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

/// Half of the time for which a new key is published before it signs, so that whoever keeps the answer has the key in time.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The keys are at hand.
pub const FROM_MEMORY: &[&str] = &["GET /.well-known/jwks.json"];

/// The route.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The public keys.
///
/// A JWK Set (RFC 7517): the keys that verify access tokens now or soon. It is empty where tokens are signed by a shared secret.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "sign-in", operation_id = "jwks", security(()),
    responses((status = 200, description = "The keys", body = JwkSet)))]
async fn show(State(app): State<App>) -> Response {
    let keys = app.auth.tokens().published_keys(app.clock().now());
    ([(header::CACHE_CONTROL, CACHE)], axum::Json(keys)).into_response()
}
