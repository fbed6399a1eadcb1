//! The outermost layer: gives every request its id, and every answer its log line, its count and, if it is an error, its body.
//!
//! Nothing leaves the stack unseen: an answer, a panic that became one, and a request whose client left before its answer (499) are each logged
//! once and counted once.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};

use super::{Layer, Outgoing};
use crate::clock::Clock;
use crate::context::{self, Context, REQUEST_ID};
use crate::error::{Detail, Error, Report, codes};
use crate::log::{Access, Sink};
use crate::metrics::{Metrics, Requests};
use crate::routes::RouteTable;
use crate::serve::Lines;

/// The layer.
#[derive(Debug, Clone)]
pub struct Observe {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    detail: Detail,
    log: Sink,
    requests: Arc<Requests>,
    clock: Clock,
}

impl Observe {
    /// Observes the requests for these routes.
    pub fn new(table: &RouteTable, detail: Detail, log: Sink, metrics: Metrics, clock: Clock) -> Self {
        let requests = metrics.requests(table);
        Self { shared: Arc::new(Shared { detail, log, requests, clock }) }
    }
}

impl Layer for Observe {
    type Visit = Seen;

    fn request(&self, _: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Seen> {
        self.shared.requests.begin();
        ControlFlow::Continue(Seen { context: context.clone(), shared: self.shared.clone(), ended: false })
    }

    fn wait(&self, seen: &mut Seen, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        context::during(&seen.context, || inside(task))
    }

    fn answer(&self, mut seen: Seen, answer: &mut Outgoing) {
        seen.answer(answer);
    }

    fn names(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, HeaderValue::from_static(""));
    }

    fn fill(&self, seen: &Seen, lines: &mut Lines) {
        lines.put(&REQUEST_ID, &[seen.context.id.as_bytes()]);
    }
}

/// A request that was seen to begin. It is seen to end exactly once: by its answer, or by being dropped without one.
#[derive(Debug)]
pub struct Seen {
    context: Arc<Context>,
    shared: Arc<Shared>,
    ended: bool,
}

impl Seen {
    fn end(&mut self, status: Option<StatusCode>, error: Option<&Error>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let duration = self.context.started.elapsed();
        self.shared.requests.end(self.context.route.route().map(|route| route.index), status, duration);
        let access = Access {
            timestamp: self.shared.clock.now(),
            request_id: self.context.id.as_str(),
            method: &self.context.method,
            path: self.context.path(),
            route: self.context.route.pattern(),
            client: self.context.client,
            account: self.context.account(),
            status,
            duration,
            error,
        };
        access.write(&self.shared.log);
    }

    fn answer(&mut self, answer: &mut Outgoing) {
        let mut report = answer.extensions_mut().remove::<Report>();
        let status = answer.status();
        if report.is_none() && (status.is_client_error() || status.is_server_error()) {
            // Someone below answered in words of their own: the status stands, the words become ours.
            let error = Error::new(codes::for_status(status));
            let mut ours = error.into_response();
            *ours.status_mut() = status;
            let foreign = answer.exchange(ours);
            keep_fields(answer.response_mut().headers_mut(), foreign.into_parts().0.headers);
            report = answer.extensions_mut().remove::<Report>();
        }
        if let Some(Report(error)) = &report {
            let body = error.render(status, self.context.form, self.shared.detail, self.context.id.as_str(), self.shared.clock.now());
            let headers = answer.response_mut().headers_mut();
            headers.insert(header::CONTENT_TYPE, self.context.form.content_type());
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            // The answer to HEAD has the header fields of GET and no body (RFC 9110, 9.3.2).
            *answer.body_mut() = if self.context.method == Method::HEAD { Body::empty() } else { Body::from(body) };
        }
        let headers = answer.response_mut().headers_mut();
        if self.context.account().is_some() && !headers.contains_key(header::CACHE_CONTROL) {
            // What one caller may see, no shared cache may keep for the next (RFC 9111, 3.5 would allow it under some headers).
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if !answer.begun() {
            answer.headers_mut().insert(REQUEST_ID, self.context.id.header());
        }
        self.end(Some(status), report.as_ref().map(|report| &*report.0));
    }
}

/// The fields of an answer whose words are replaced, all values of each: they stand, unless they describe those words (RFC 9110, 8).
fn keep_fields(headers: &mut HeaderMap, foreign: HeaderMap) {
    let words = [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LOCATION,
        header::CONTENT_RANGE,
        header::CONTENT_DISPOSITION,
        header::TRANSFER_ENCODING,
        header::ETAG,
        header::LAST_MODIFIED,
        header::ACCEPT_RANGES,
    ];
    let mut last = None;
    for (name, value) in foreign {
        match (name, &last) {
            (Some(name), _) => {
                last = None;
                if !words.contains(&name) {
                    headers.insert(name.clone(), value);
                    last = Some(name);
                }
            }
            // `None` means a further value of the last name.
            (None, Some(name)) => drop(headers.append(name.clone(), value)),
            (None, None) => {}
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.end(None, None);
    }
}
