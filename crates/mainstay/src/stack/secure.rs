//! Security headers: what helmet 8 sends, on every answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use tower::{Layer, Service};

use super::shortcut::{Amend, Amendment};
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

/// The layer.
#[derive(Debug, Clone)]
pub struct SecureHeaders {
    headers: Arc<Prepared>,
}

#[derive(Debug)]
struct Prepared {
    data: Arc<HeaderMap>,
    documents: Arc<HeaderMap>,
}

impl SecureHeaders {
    /// The headers of `policy`. Pages (paths under `/docs`) always have the policy of documents: they load their own scripts.
    pub fn new(policy: ContentPolicy) -> Self {
        let with = |policy: &'static str| {
            let fixed = HEADERS.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)));
            // Room for what handlers and the other layers add: a copy of a map has the original's room, and is never rebuilt.
            let mut headers = HeaderMap::with_capacity(48);
            headers.extend(fixed.chain([(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy))]));
            Arc::new(headers)
        };
        let data = with(if policy == ContentPolicy::Api { API } else { DOCUMENTS });
        Self { headers: Arc::new(Prepared { data, documents: with(DOCUMENTS) }) }
    }
}

impl<S> Layer<S> for SecureHeaders {
    type Service = Secured<S>;
    fn layer(&self, inner: S) -> Secured<S> {
        Secured { inner, headers: self.headers.clone() }
    }
}

/// The service of [`SecureHeaders`].
#[derive(Debug, Clone)]
pub struct Secured<S> {
    inner: S,
    headers: Arc<Prepared>,
}

impl<S> Service<Request<Body>> for Secured<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Amend<S::Future, Add>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let page = request.uri().path().starts_with("/docs");
        let prepared = if page { self.headers.documents.clone() } else { self.headers.data.clone() };
        let context = request.extensions().get::<Arc<Context>>().cloned();
        if let Some(context) = &context {
            context.offer_headers(prepared.clone());
        }
        Amend::new(self.inner.call(request), Add { prepared, context })
    }
}

/// Sees to it that an answer has the headers.
pub struct Add {
    prepared: Arc<HeaderMap>,
    context: Option<Arc<Context>>,
}

impl Amendment for Add {
    fn amend(self, response: &mut Response) {
        // Most answers began with them ([`Begin`]). One that came from a layer in between, or in place of such an answer, gets them now.
        let begun = self.context.is_some_and(|context| context.headers_taken()) && response.headers().contains_key(header::X_XSS_PROTECTION);
        if !begun {
            lay_over(&self.prepared, response);
        }
        // Nothing says which software answers.
        response.headers_mut().remove(header::SERVER);
        response.headers_mut().remove(X_POWERED_BY);
    }
}

/// Begins an answer of the routes with the headers, so that what the layers add later goes into a map that has room, once.
pub struct Begin(pub(crate) Option<Arc<Context>>);

impl Amendment for Begin {
    fn amend(self, response: &mut Response) {
        if let Some(prepared) = self.0.as_ref().and_then(|context| context.take_headers()) {
            lay_over(prepared, response);
        }
    }
}

/// A copy of the prepared map with the answer's few headers added costs a third of twelve insertions into the answer's own map.
fn lay_over(prepared: &HeaderMap, response: &mut Response) {
    let own = std::mem::replace(response.headers_mut(), prepared.clone());
    let headers = response.headers_mut();
    let mut last = None;
    for (name, value) in own {
        match (name, &last) {
            // The answer's own value stands, for instance a stricter policy of one page.
            (Some(name), _) => {
                headers.insert(name.clone(), value);
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
        let SecureHeaders { headers } = SecureHeaders::new(ContentPolicy::Documents);
        Add { prepared: headers.data.clone(), context: None }.amend(&mut response);
        assert_eq!(response.headers().get_all(header::SET_COOKIE).iter().count(), 2);
        assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "DENY");
        assert_eq!(response.headers()[header::X_XSS_PROTECTION], "0");
        assert!(!response.headers().contains_key(header::SERVER) && !response.headers().contains_key(X_POWERED_BY));
    }
}
