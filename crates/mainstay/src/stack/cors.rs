//! CORS (the Fetch standard, 3.2): who may read our answers from a page of another origin.
//!
//! Preflights are answered here; none reaches a limit or a route. Every answer, refusals included, carries the headers, because a browser hides from
//! its page an error without them.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};

use super::{Layer, Outgoing};
use crate::config::Origins;
use crate::context::Context;
use crate::serve::Lines;

/// Answers of a day are few enough, and Chromium keeps none longer than two hours anyway.
const MAX_AGE_S: &str = "86400";
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
/// What a page may read of an answer beside the few fields that every page may.
const EXPOSED: &str = "x-request-id, retry-after, ratelimit, ratelimit-policy, link, location, etag, cache-status, allow, www-authenticate";
/// Names of request headers are mirrored up to this many bytes: enough for any real list.
const REQUEST_HEADERS_BYTES_MAX: usize = 1024;

/// The layer.
#[derive(Debug, Clone)]
pub struct Cors {
    any: bool,
    listed: Vec<HeaderValue>,
    credentials: bool,
}

impl Cors {
    /// Lets pages of these origins in. `credentials` has no effect with `*`: configuration refuses the combination, and browsers would too.
    pub fn new(origins: Origins, credentials: bool) -> Self {
        // What cannot be a header's value cannot be anybody's origin.
        let listed = origins.list.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
        Self { any: origins.any, listed, credentials: credentials && !origins.any }
    }

    /// What an answer to a request of this origin says.
    fn grant(&self, origin: Option<&HeaderValue>) -> Grant {
        let origin = match origin {
            Some(_) if self.any => return Grant::Any,
            Some(origin) => origin,
            None => return Grant::None,
        };
        // Compared whole: no suffix, no pattern, so no look-alike gets in. `null` is never listed.
        self.listed.iter().position(|listed| listed == origin).map_or(Grant::None, Grant::Listed)
    }

    fn allowed(&self, grant: Grant) -> Option<HeaderValue> {
        match grant {
            Grant::None => None,
            Grant::Any => Some(HeaderValue::from_static("*")),
            Grant::Listed(index) => self.listed.get(index).cloned(),
        }
    }

    /// Writes who may read; whether anybody may.
    fn write(&self, grant: Grant, headers: &mut HeaderMap) -> bool {
        let Some(allowed) = self.allowed(grant) else {
            headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
            return false;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials && !headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}

/// Whether a page may read an answer.
#[derive(Debug, Clone, Copy)]
pub enum Grant {
    /// There is no origin, or none that may.
    None,
    /// Every page may.
    Any,
    /// This one of the list may.
    Listed(usize),
}

impl Layer for Cors {
    type Visit = Grant;

    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Grant> {
        let grant = self.grant(context.origin.as_ref());
        let asks =
            context.method == Method::OPTIONS && context.origin.is_some() && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if asks && context.fault.is_none() { ControlFlow::Break(self.preflight(request.headers(), grant)) } else { ControlFlow::Continue(grant) }
    }

    fn answer(&self, grant: Grant, answer: &mut Outgoing) {
        if answer.begun() {
            return;
        }
        let headers = answer.headers_mut();
        // A cache must not give one origin's answer to another.
        if !self.any && !headers.get_all(header::VARY).iter().any(|varies| varies == "Origin") {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        // What a page may read of the answer; without leave to read there is nothing to list.
        if !self.write(grant, headers) {
            headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
        } else if !headers.contains_key(header::ACCESS_CONTROL_EXPOSE_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }

    fn names(&self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(""));
    }

    fn fill(&self, grant: &Grant, lines: &mut Lines) {
        if let Some(origin) = self.allowed(*grant) {
            lines.put_value(&header::ACCESS_CONTROL_ALLOW_ORIGIN, &origin);
        }
    }

    fn forms(&self) -> usize {
        2
    }

    fn form(&self, grant: &Grant) -> usize {
        usize::from(!matches!(grant, Grant::None))
    }

    fn constants(&self, form: usize, headers: &mut HeaderMap) {
        if !self.any {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        if form == 1 {
            if self.credentials {
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

impl Cors {
    fn preflight(&self, asked: &HeaderMap, grant: Grant) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        if !self.any {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"));
        if self.write(grant, headers) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
            // Mirrored, so that a team's own header needs no setting: the origin is what is trusted.
            if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| names.len() <= REQUEST_HEADERS_BYTES_MAX) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
        }
        response
    }
}
