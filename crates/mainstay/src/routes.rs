//! The table of routes: what the router serves, known to every layer before the router runs.
//!
//! It is made from the OpenAPI document, which is made from the handlers, so the three cannot drift apart. It gives the log and the metrics the
//! route's pattern, tells an unknown route (404) from a known one with another method (405 with `Allow`), and says which routes no limit may refuse.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use http::{HeaderValue, Method, Request, StatusCode, header};
use pin_project_lite::pin_project;
use tower::Service;
use utoipa::openapi::OpenApi;

use crate::context::Context;
use crate::error::{Error, codes};
use crate::stack::panic;

/// One path of the table.
#[derive(Debug, Clone)]
pub struct Route {
    /// As in the document: `/api/products/{id}`.
    pub pattern: String,
    /// The methods it answers, `HEAD` beside each `GET`.
    pub methods: Vec<Method>,
    /// May no limit refuse it? Health must be seen above all when the service is busy.
    pub unlimited: bool,
    /// What requests with some methods cost, where it is not what one would think ([`Cost`]).
    costs: Vec<(Method, Cost)>,
    /// Its number in the table, for what is kept per route.
    pub index: usize,
    allow: HeaderValue,
}

/// What a request costs the service: who has to wait when not everybody can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// It is answered from memory at once, and waits for nobody: no place is counted for it.
    Memory,
    /// It may be answered from what [`Cache::answer`](crate::cache::Cache::answer) keeps, and holds a place only where that has to make the answer or to wait for it.
    Kept,
    /// A read, unless it was declared otherwise.
    Cheap,
    /// A write, unless it was declared otherwise: refused before a cheap one.
    Dear,
}

/// What the table says of a target.
#[derive(Debug, Clone)]
pub enum Match {
    /// A route that answers this method.
    Found(Arc<Route>),
    /// A route that answers other methods.
    OtherMethod(Arc<Route>),
    /// No route.
    Unknown,
}

impl Match {
    /// The route, whatever the method.
    pub fn route(&self) -> Option<&Arc<Route>> {
        match self {
            Self::Found(route) | Self::OtherMethod(route) => Some(route),
            Self::Unknown => None,
        }
    }

    /// The pattern, or a word that stands for all unknown routes, so that no stranger chooses the labels of our metrics.
    pub fn pattern(&self) -> &str {
        self.route().map_or("unknown", |route| route.pattern.as_str())
    }

    /// What a request with this method costs. One that no route answers is refused at once.
    pub fn cost(&self, method: &Method) -> Cost {
        let Self::Found(route) = self else { return Cost::Memory };
        let declared = route.costs.iter().find(|(declared, _)| declared == method).map(|(_, cost)| *cost);
        declared.unwrap_or(if method.is_safe() { Cost::Cheap } else { Cost::Dear })
    }

    /// May no limit refuse this request?
    pub fn unlimited(&self) -> bool {
        matches!(self, Self::Found(route) if route.unlimited)
    }
}

/// The table.
#[derive(Clone, Default)]
pub struct RouteTable {
    matcher: Arc<matchit::Router<Arc<Route>>>,
    /// Every route, in the order of its number.
    pub all: Arc<[Arc<Route>]>,
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|route| &route.pattern)).finish()
    }
}

impl RouteTable {
    fn of(all: Vec<Route>) -> Self {
        let mut matcher = matchit::Router::new();
        let all: Arc<[Arc<Route>]> = all.into_iter().map(Arc::new).collect();
        for route in all.iter() {
            matcher.insert(route.pattern.clone(), route.clone()).unwrap_or_else(|error| panic!("{}: {error}", route.pattern));
        }
        Self { matcher: Arc::new(matcher), all }
    }

    /// Looks a target up.
    pub fn find(&self, method: &Method, path: &str) -> Match {
        match self.matcher.at(path) {
            Err(_) => Match::Unknown,
            Ok(found) if found.value.methods.contains(method) => Match::Found(found.value.clone()),
            Ok(found) => Match::OtherMethod(found.value.clone()),
        }
    }
}

/// A router together with its table: what the stack is put around.
#[derive(Clone)]
pub struct Routes {
    router: axum::Router,
    table: RouteTable,
}

impl Routes {
    /// A router and the document that was made of the same handlers. `beside` lists patterns that the document leaves out (its own page, say), all of them `GET`.
    ///
    /// # Panics
    /// When two patterns of the document exclude each other, which the router refuses as well: a mistake in the source, found at the first start.
    pub fn new(router: axum::Router, document: &OpenApi, beside: &[&str], unlimited: &[&str]) -> Self {
        let mut methods: BTreeMap<String, Vec<Method>> = BTreeMap::new();
        for (pattern, item) in &document.paths.paths {
            let has = [
                (Method::GET, item.get.is_some()),
                (Method::POST, item.post.is_some()),
                (Method::PUT, item.put.is_some()),
                (Method::PATCH, item.patch.is_some()),
                (Method::DELETE, item.delete.is_some()),
            ];
            methods.entry(pattern.clone()).or_default().extend(has.into_iter().filter(|(_, has)| *has).map(|(method, _)| method));
        }
        for pattern in beside {
            methods.entry((*pattern).to_owned()).or_default().push(Method::GET);
        }
        let mut all = Vec::new();
        for (index, (pattern, mut methods)) in methods.into_iter().enumerate() {
            if methods.contains(&Method::GET) {
                methods.push(Method::HEAD);
            }
            let allow = methods.iter().chain([&Method::OPTIONS]).map(Method::as_str).collect::<Vec<_>>().join(", ");
            let allow = HeaderValue::from_str(&allow).unwrap_or(HeaderValue::from_static("OPTIONS"));
            all.push(Route { unlimited: unlimited.contains(&pattern.as_str()), pattern, methods, costs: Vec::new(), index, allow });
        }
        Self { router: router.with_state(()), table: RouteTable::of(all) }
    }

    /// What these requests cost, each a method and a pattern (`GET /products/search`): for those of which one would think otherwise. `GET` is also `HEAD`.
    ///
    /// # Panics
    /// When a line names no route: a mistake in the source, found at the first start.
    #[must_use]
    pub fn costing(self, cost: Cost, listed: &[&str]) -> Self {
        let mut all: Vec<Route> = self.table.all.iter().map(|route| Route::clone(route)).collect();
        for line in listed {
            let found = line
                .split_once(' ')
                .and_then(|(method, pattern)| Some((method.parse().ok()?, all.iter_mut().find(|route| route.pattern == pattern)?)));
            let Some((method, route)) = found.filter(|(method, route): &(Method, _)| route.methods.contains(method)) else {
                panic!("{line}: no such route")
            };
            if method == Method::GET {
                route.costs.push((Method::HEAD, cost));
            }
            route.costs.push((method, cost));
        }
        Self { table: RouteTable::of(all), ..self }
    }

    /// The table, for the layers.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }
}

pin_project! {
    /// What the routes make of a request.
    #[project = RoutedNow]
    pub(crate) enum Routed {
        /// No handler was asked.
        Answered { response: Option<Response> },
        /// A handler works on it.
        Handled { #[pin] future: RouteFuture<Infallible> },
    }
}

impl Routed {
    fn at_once(answer: impl IntoResponse) -> Self {
        Self::Answered { response: Some(answer.into_response()) }
    }

    /// The answer. A panic of the handler is one too: caught here, it leaves through every layer.
    pub(crate) fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Response> {
        match self.project() {
            // Polled after completion, which no caller does.
            RoutedNow::Answered { response } => response.take().map_or(Poll::Pending, Poll::Ready),
            RoutedNow::Handled { future } => match panic::catch(|| future.poll(task)) {
                Ok(polled) => polled.map(|Ok(response)| response),
                Err(error) => Poll::Ready(error.into_response()),
            },
        }
    }
}

impl Routes {
    /// The innermost of all: not-found, method-not-allowed, and the router behind a panic barrier of its own.
    pub(crate) fn call(&mut self, request: Request<Body>, context: &Context) -> Routed {
        match &context.route {
            Match::Found(_) => match panic::catch(|| self.router.call(request)) {
                Ok(future) => Routed::Handled { future },
                Err(error) => Routed::at_once(error),
            },
            Match::OtherMethod(route) if context.method == Method::OPTIONS => {
                Routed::at_once((StatusCode::NO_CONTENT, [(header::ALLOW, route.allow.clone())]))
            }
            Match::OtherMethod(route) => Routed::at_once(Error::new(&codes::METHOD_NOT_ALLOWED).with_header(header::ALLOW, route.allow.clone())),
            Match::Unknown => {
                // The target is the caller's text: shortened, and JSON escapes the rest.
                let path: String = context.path().chars().take(200).collect();
                let message = format!("Route {} {path} not found", context.method);
                Routed::at_once(Error::new(&codes::ROUTE_NOT_FOUND).with_message(message))
            }
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
    }
}
