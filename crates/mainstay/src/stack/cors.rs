//! CORS (the Fetch standard, 3.2): who may read our answers from a page of another origin.
//!
//! Preflights are answered here; none reaches a limit or a route. Every answer, refusals included, carries the headers, because a browser hides from
//! its page an error without them.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use tower::{Layer, Service};

use super::shortcut::{Amend, Amendment, Shortcut};
use crate::config::Origins;
use crate::serve::Peer;

/// Answers of a day are few enough, and Chromium keeps none longer than two hours anyway.
const MAX_AGE_S: &str = "86400";
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
/// What a page may read of an answer beside the few fields that every page may.
const EXPOSED: &str = "x-request-id, retry-after, ratelimit, ratelimit-policy, link, location, etag, allow, www-authenticate";
/// Names of request headers are mirrored up to this many bytes: enough for any real list.
const REQUEST_HEADERS_BYTES_MAX: usize = 1024;

/// The layer.
#[derive(Debug, Clone)]
pub struct Cors {
    rules: Arc<Rules>,
}

#[derive(Debug)]
struct Rules {
    origins: Origins,
    credentials: bool,
}

impl Cors {
    /// Lets pages of these origins in. `credentials` has no effect with `*`: configuration refuses the combination, and browsers would too.
    pub fn new(origins: Origins, credentials: bool) -> Self {
        let credentials = credentials && !origins.any;
        Self { rules: Arc::new(Rules { origins, credentials }) }
    }
}

impl Rules {
    /// What the answer to a request of this origin carries.
    fn headers(&self, origin: Option<&HeaderValue>) -> Grant {
        let allowed = match origin {
            Some(_) if self.origins.any => Some(HeaderValue::from_static("*")),
            Some(origin) if self.listed(origin) => Some(origin.clone()),
            _ => None,
        };
        Grant { allowed, credentials: self.credentials, varies: !self.origins.any }
    }

    fn listed(&self, origin: &HeaderValue) -> bool {
        // Compared whole: no suffix, no pattern, so no look-alike gets in. `null` is never listed.
        origin.to_str().is_ok_and(|origin| self.origins.list.iter().any(|listed| listed == origin))
    }
}

/// The CORS headers of one answer.
pub struct Grant {
    allowed: Option<HeaderValue>,
    credentials: bool,
    varies: bool,
}

impl Grant {
    fn write(self, headers: &mut HeaderMap) -> bool {
        if self.varies {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(allowed) = self.allowed else { return false };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}

impl Amendment for Grant {
    fn amend(self, response: &mut Response) {
        // What a page may read of the answer; without leave to read there is nothing to list.
        if self.write(response.headers_mut()) {
            response.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

impl<S> Layer<S> for Cors {
    type Service = CorsService<S>;
    fn layer(&self, inner: S) -> CorsService<S> {
        CorsService { inner, rules: self.rules.clone() }
    }
}

/// The service of [`Cors`].
#[derive(Debug, Clone)]
pub struct CorsService<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S> Service<Request<Body>> for CorsService<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Shortcut<Amend<S::Future, Grant>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let origin = request.headers().get(header::ORIGIN);
        let grant = self.rules.headers(origin);
        let well_formed = request.extensions().get::<Peer>().is_none_or(|peer| peer.fault.is_none());
        let asks = origin.is_some() && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = request.method() == Method::OPTIONS && asks && well_formed;
        if preflight {
            Shortcut::now(answer_preflight(request.headers(), grant))
        } else {
            Shortcut::later(Amend::new(self.inner.call(request), grant))
        }
    }
}

fn answer_preflight(asked: &HeaderMap, grant: Grant) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"));
    if grant.write(headers) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
        // Mirrored, so that a team's own header needs no setting: the origin is what is trusted.
        if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| names.len() <= REQUEST_HEADERS_BYTES_MAX) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
    }
    response
}
