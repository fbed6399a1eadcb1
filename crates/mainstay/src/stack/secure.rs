//! Security headers: what helmet 8 sends, on every answer.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use super::{Layer, Outgoing};
use crate::config::ContentPolicy;
use crate::context::Context;

/// Helmet's policy with the source team's `default-src 'self'; style-src 'self' 'unsafe-inline'`.
const DOCUMENTS: &str = "default-src 'self';base-uri 'self';font-src 'self' https: data:;form-action 'self';frame-ancestors 'self';img-src 'self' data:;object-src 'none';script-src 'self';script-src-attr 'none';style-src 'self' 'unsafe-inline';upgrade-insecure-requests";
/// For answers that are data: nothing may be loaded, framed or submitted.
const API: &str = "default-src 'none';base-uri 'none';form-action 'none';frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 11] = [
    // Another site's window cannot reach into ours.
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // Another site cannot embed our answers; CORS decides who may read them.
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("origin-agent-cluster"), "?1"),
    (header::REFERRER_POLICY, "no-referrer"),
    // One year, which is what preload lists ask for. Browsers heed it over TLS only (RFC 6797, 8.1).
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains; preload"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_DNS_PREFETCH_CONTROL, "off"),
    (HeaderName::from_static("x-download-options"), "noopen"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
    (HeaderName::from_static("x-permitted-cross-domain-policies"), "none"),
    // Off: the auditor of old browsers opened holes of its own.
    (header::X_XSS_PROTECTION, "0"),
];

const X_POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");

/// Says which software answers: helps nobody but an attacker.
pub(super) fn nothing_of_the_software(name: &HeaderName) -> bool {
    *name == header::SERVER || *name == X_POWERED_BY
}

/// The layer.
#[derive(Debug, Clone)]
pub struct SecureHeaders {
    data: HeaderMap,
}

impl SecureHeaders {
    /// The headers of `policy`. Pages (paths under `/docs`) always have the policy of documents: they load their own scripts.
    pub fn new(policy: ContentPolicy) -> Self {
        let fixed = HEADERS.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)));
        let policy = if policy == ContentPolicy::Api { API } else { DOCUMENTS };
        Self { data: fixed.chain([(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy))]).collect() }
    }
}

/// Is the answer to a request for a page?
#[derive(Debug, Clone, Copy)]
pub struct ForPage(bool);

impl Layer for SecureHeaders {
    type Visit = ForPage;

    fn request(&self, request: &mut Request<Body>, _: &Arc<Context>) -> ControlFlow<Response, ForPage> {
        ControlFlow::Continue(ForPage(request.uri().path().starts_with("/docs")))
    }

    fn answer(&self, ForPage(page): ForPage, answer: &mut Outgoing) {
        if answer.begun() {
            return;
        }
        // An answer's own values stand.
        let headers = answer.headers_mut();
        let own = std::mem::replace(headers, self.data.clone());
        lay_over(own, headers);
        if page && headers.get(header::CONTENT_SECURITY_POLICY) == self.data.get(header::CONTENT_SECURITY_POLICY) {
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCUMENTS));
        }
    }

    fn forms(&self) -> usize {
        2
    }

    fn form(&self, ForPage(page): &ForPage) -> usize {
        usize::from(*page)
    }

    fn constants(&self, form: usize, headers: &mut HeaderMap) {
        headers.extend(self.data.clone());
        if form == 1 {
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOCUMENTS));
        }
    }
}

/// Puts fields over others, all values of each name.
fn lay_over(fields: HeaderMap, headers: &mut HeaderMap) {
    let mut last = None;
    for (name, value) in fields {
        match (name, &last) {
            (Some(name), _) if nothing_of_the_software(&name) => last = None,
            (Some(name), _) => {
                // `Vary` is a list: what a layer says stands beside what the handler says (RFC 9110, 12.5.5).
                if name == header::VARY {
                    headers.append(name.clone(), value);
                } else {
                    headers.insert(name.clone(), value);
                }
                last = Some(name);
            }
            // `None` means a further value of the last name.
            (None, Some(name)) => drop(headers.append(name.clone(), value)),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_its_own_headers_all_of_them() {
        let mut response = Response::new(Body::empty());
        response.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static("a=1"));
        response.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static("b=2"));
        response.headers_mut().insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        response.headers_mut().insert(header::SERVER, HeaderValue::from_static("secret/1.0"));
        response.headers_mut().insert(X_POWERED_BY, HeaderValue::from_static("secret"));
        let mut answer = Outgoing::new(response);
        SecureHeaders::new(ContentPolicy::Documents).answer(ForPage(false), &mut answer);
        let response = answer.into_response();
        assert_eq!(response.headers().get_all(header::SET_COOKIE).iter().count(), 2);
        assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "DENY");
        assert_eq!(response.headers()[header::X_XSS_PROTECTION], "0");
        assert!(!response.headers().contains_key(header::SERVER) && !response.headers().contains_key(X_POWERED_BY));
    }
}
