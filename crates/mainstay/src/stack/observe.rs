//! The outermost layer: gives every request its id, and every answer its log line, its count and, if it is an error, its body.
//!
//! Nothing leaves the stack unseen: an answer, a panic that became one, and a request whose client left before its answer (499) are each logged
//! once and counted once.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::client::{self, Networks};
use crate::clock::Clock;
use crate::context::{self, Context, REQUEST_ID, RequestId};
use crate::error::{Detail, Error, Form, Report, codes};
use crate::log::{Access, Sink};
use crate::metrics::{Metrics, Requests};
use crate::routes::RouteTable;
use crate::serve::Peer;

/// The layer.
#[derive(Debug, Clone)]
pub struct Observe {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: RouteTable,
    trusted: Networks,
    detail: Detail,
    log: Sink,
    requests: Arc<Requests>,
    clock: Clock,
}

impl Observe {
    /// Observes the requests for these routes. `trusted` are the proxies whose word on the client's address counts.
    pub fn new(table: RouteTable, trusted: Networks, detail: Detail, log: Sink, metrics: Metrics, clock: Clock) -> Self {
        let requests = metrics.requests(&table);
        Self { shared: Arc::new(Shared { table, trusted, detail, log, requests, clock }) }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;
    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, shared: self.shared.clone() }
    }
}

/// The service of [`Observe`].
#[derive(Debug, Clone)]
pub struct Observed<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ObservedFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        let peer = request.extensions().get::<Peer>().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.addr.ip());
        let headers = request.headers();
        let context = Arc::new(Context::new(
            RequestId::from_headers(headers, || uuid::Uuid::new_v4().as_u128()),
            Instant::now(),
            client::address(peer, headers, &shared.trusted),
            shared.table.find(request.method(), request.uri().path()),
            Form::accepted(headers.get(header::ACCEPT)),
        ));
        request.extensions_mut().insert(context.clone());
        shared.requests.begin();
        let seen = Seen { method: request.method().clone(), target: request.uri().path_and_query().cloned(), context, shared, ended: false };
        let future = self.inner.call(request);
        ObservedFuture { future, seen }
    }
}

/// A request that was seen to begin. It is seen to end exactly once: by its answer, or by being dropped without one.
struct Seen {
    method: Method,
    target: Option<PathAndQuery>,
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
            method: &self.method,
            path: self.target.as_ref().map_or("", PathAndQuery::path),
            route: self.context.route.pattern(),
            client: self.context.client,
            account: self.context.account(),
            status,
            duration,
            error,
        };
        access.write(&self.shared.log);
    }

    fn answer(&mut self, mut response: Response) -> Response {
        let mut report = response.extensions_mut().remove::<Report>();
        let status = response.status();
        if report.is_none() && (status.is_client_error() || status.is_server_error()) {
            // Someone below answered in words of their own: the status stands, the words become ours.
            let error = Error::new(codes::for_status(status));
            let foreign = std::mem::replace(&mut response, error.into_response());
            *response.status_mut() = status;
            keep_fields(response.headers_mut(), foreign.into_parts().0.headers);
            report = response.extensions_mut().remove::<Report>();
        }
        if let Some(Report(error)) = &report {
            let body = error.render(status, self.context.form, self.shared.detail, self.context.id.as_str(), self.shared.clock.now());
            response.headers_mut().insert(header::CONTENT_TYPE, self.context.form.content_type());
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            // The answer to HEAD has the header fields of GET and no body (RFC 9110, 9.3.2).
            *response.body_mut() = if self.method == Method::HEAD { Body::empty() } else { Body::from(body) };
        }
        if self.context.account().is_some() && !response.headers().contains_key(header::CACHE_CONTROL) {
            // What one caller may see, no shared cache may keep for the next (RFC 9111, 3.5 would allow it under some headers).
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response.headers_mut().insert(REQUEST_ID, self.context.id.header());
        self.end(Some(status), report.as_ref().map(|report| &*report.0));
        response
    }
}

/// The fields of an answer whose words are replaced, all values of each: they stand, unless they describe those words (RFC 9110, 8).
fn keep_fields(headers: &mut HeaderMap, foreign: HeaderMap) {
    let words = [header::TRANSFER_ENCODING, header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES];
    let mut last = None;
    for (name, value) in foreign {
        match (name, &last) {
            (Some(name), _) => {
                last = None;
                if !words.contains(&name) && !name.as_str().starts_with("content-") {
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

pin_project! {
    /// An answer on its way out.
    pub struct ObservedFuture<F> {
        #[pin] future: F,
        seen: Seen,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for ObservedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let seen = this.seen;
        match context::during(&seen.context, || this.future.poll(task)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(seen.answer(response))),
        }
    }
}
