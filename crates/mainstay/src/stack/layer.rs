//! What a layer is: two moments of a request, its way in and its way out. A few also watch the waiting in between.
//!
//! Layers are not services around services. All of them share one future, and the request stays where it is while they look at it: a tower of wrapped
//! services moved every request and every future once per layer, which cost more than what the layers do (decision 17).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{HeaderMap, HeaderValue, ValuesMut};
use http::{Extensions, Request, StatusCode};

use crate::context::Context;
use crate::error::Error;

/// One layer of the stack.
pub trait Layer: Send + Sync + 'static {
    /// What the layer keeps of a request until its answer. It is dropped without [`answer`](Layer::answer) when the client leaves first.
    type Visit: Send + 'static;

    /// A request on its way in. `Break` answers it here: nothing inside sees it, everything outside sees the answer.
    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Self::Visit>;

    /// The answer on its way out, wherever inside it came from.
    fn answer(&self, visit: Self::Visit, answer: &mut Outgoing);

    /// Waits for the answer from inside. For a layer with a clock; what it answers in place of the inside goes out like any other answer.
    fn wait(&self, _visit: &mut Self::Visit, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        inside(task)
    }

    /// Runs the work of the layers inside. For the barrier that turns a panic into an error.
    ///
    /// # Errors
    /// What becomes the answer in place of what the work would have made.
    fn guard<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        Ok(work())
    }

    /// Fields that nearly every answer carries because of this layer, with a value of their own each time: their names, with any value.
    ///
    /// The usual fields of all layers are laid under an answer of the routes in one copy, and the blanks filled in by their place; inserted one by
    /// one, each name hashed and looked up, they cost a third of all that the stack does. [`answer`](Layer::answer) takes out what does not apply, and
    /// puts everything into an answer that [did not begin](Outgoing::begun) so.
    fn blanks(&self, _headers: &mut HeaderMap) {}

    /// Values for the blanks, in their order.
    fn fill(&self, _visit: &Self::Visit, _blanks: &mut Blanks<'_>) {}

    /// Fields that nearly every answer carries because of this layer, always with the same value.
    fn constants(&self, _headers: &mut HeaderMap) {}
}

/// An answer on its way out.
#[derive(Debug)]
pub struct Outgoing {
    response: Response,
    begun: bool,
}

impl Outgoing {
    /// An answer from anywhere: a layer, a panic.
    pub(super) fn new(response: impl IntoResponse) -> Self {
        Self { response: response.into_response(), begun: false }
    }

    /// An answer of the routes, laid over the usual fields.
    pub(super) fn with_usual_fields(response: Response) -> Self {
        Self { response, begun: true }
    }

    /// Did it begin with the usual fields of all layers?
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Puts another answer in its place, and gives back the one that was there.
    pub fn replace(&mut self, response: Response) -> Response {
        self.begun = false;
        std::mem::replace(&mut self.response, response)
    }

    /// Changes the answer as a whole; its fields stay.
    pub(super) fn response_mut(&mut self) -> &mut Response {
        &mut self.response
    }

    /// The answer.
    pub fn into_response(self) -> Response {
        self.response
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Its header fields, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.response.headers_mut()
    }

    /// What its makers noted on it.
    pub fn extensions(&self) -> &Extensions {
        self.response.extensions()
    }

    /// What its makers noted on it, to be changed.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        self.response.extensions_mut()
    }

    /// Its body, to be changed.
    pub fn body_mut(&mut self) -> &mut Body {
        self.response.body_mut()
    }
}

/// The blanks of an answer's usual fields.
#[derive(Debug)]
pub struct Blanks<'a>(pub(super) ValuesMut<'a, HeaderValue>);

impl Blanks<'_> {
    /// Fills in the next one.
    pub fn set(&mut self, value: HeaderValue) {
        if let Some(blank) = self.0.next() {
            *blank = value;
        }
    }

    /// Leaves the next one as it is.
    pub fn skip(&mut self) {
        self.0.next();
    }
}

/// A layer that configuration switched off does nothing.
impl<L: Layer> Layer for Option<L> {
    type Visit = Option<L::Visit>;

    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, Self::Visit> {
        match self {
            Some(layer) => layer.request(request, context).map_continue(Some),
            None => ControlFlow::Continue(None),
        }
    }

    fn answer(&self, visit: Self::Visit, answer: &mut Outgoing) {
        if let (Some(layer), Some(visit)) = (self, visit) {
            layer.answer(visit, answer);
        }
    }

    fn wait(&self, visit: &mut Self::Visit, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        match (self, visit) {
            (Some(layer), Some(visit)) => layer.wait(visit, task, inside),
            _ => inside(task),
        }
    }

    fn guard<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        match self {
            Some(layer) => layer.guard(work),
            None => Ok(work()),
        }
    }

    fn blanks(&self, headers: &mut HeaderMap) {
        if let Some(layer) = self {
            layer.blanks(headers);
        }
    }

    fn fill(&self, visit: &Self::Visit, blanks: &mut Blanks<'_>) {
        if let (Some(layer), Some(visit)) = (self, visit) {
            layer.fill(visit, blanks);
        }
    }

    fn constants(&self, headers: &mut HeaderMap) {
        if let Some(layer) = self {
            layer.constants(headers);
        }
    }
}

/// Layers one inside the other, seen as a whole.
pub trait Chain: Send + Sync + 'static {
    /// What all of them keep of a request.
    type Visit: Send + 'static;

    /// In through all of them, or out again from the one that answers.
    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Outgoing, Self::Visit>;
    /// Out through all of them.
    fn answer(&self, visit: Self::Visit, answer: &mut Outgoing);
    /// Waits inside all of them.
    fn wait(&self, visit: &mut Self::Visit, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response>;
    /// The blanks of all of them.
    fn blanks(&self, headers: &mut HeaderMap);
    /// Fills them in.
    fn fill(&self, visit: &Self::Visit, blanks: &mut Blanks<'_>);
    /// The constants of all of them.
    fn constants(&self, headers: &mut HeaderMap);
}

/// The inside of the innermost layer.
#[derive(Debug, Clone, Copy)]
pub struct End;

impl Chain for End {
    type Visit = ();

    #[inline]
    fn request(&self, _: &mut Request<Body>, _: &Arc<Context>) -> ControlFlow<Outgoing, ()> {
        ControlFlow::Continue(())
    }

    #[inline]
    fn answer(&self, (): (), _: &mut Outgoing) {}

    #[inline]
    fn wait(&self, (): &mut (), task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        inside(task)
    }

    fn blanks(&self, _: &mut HeaderMap) {}

    #[inline]
    fn fill(&self, (): &(), _: &mut Blanks<'_>) {}

    fn constants(&self, _: &mut HeaderMap) {}
}

/// A layer and what is inside it.
#[derive(Debug)]
pub struct Within<L, C> {
    layer: L,
    inside: C,
}

impl<L: Layer, C: Chain> Chain for Within<L, C> {
    type Visit = (L::Visit, C::Visit);

    #[inline]
    fn request(&self, request: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Outgoing, Self::Visit> {
        let own = self.layer.request(request, context).map_break(Outgoing::new)?;
        let mut answer = match self.layer.guard(|| self.inside.request(request, context)) {
            Ok(ControlFlow::Continue(inside)) => return ControlFlow::Continue((own, inside)),
            Ok(ControlFlow::Break(answer)) => answer,
            Err(error) => Outgoing::new(error),
        };
        self.layer.answer(own, &mut answer);
        ControlFlow::Break(answer)
    }

    #[inline]
    fn answer(&self, (own, inside): Self::Visit, answer: &mut Outgoing) {
        if let Err(error) = self.layer.guard(|| self.inside.answer(inside, answer)) {
            answer.replace(error.into_response());
        }
        self.layer.answer(own, answer);
    }

    #[inline]
    fn wait(&self, (own, within): &mut Self::Visit, task: &mut Task<'_>, inside: impl FnOnce(&mut Task<'_>) -> Poll<Response>) -> Poll<Response> {
        self.layer.wait(own, task, |task| {
            let waited = self.layer.guard(|| self.inside.wait(within, task, inside));
            waited.unwrap_or_else(|error| Poll::Ready(error.into_response()))
        })
    }

    fn blanks(&self, headers: &mut HeaderMap) {
        self.layer.blanks(headers);
        self.inside.blanks(headers);
    }

    #[inline]
    fn fill(&self, (own, inside): &Self::Visit, blanks: &mut Blanks<'_>) {
        self.layer.fill(own, blanks);
        self.inside.fill(inside, blanks);
    }

    fn constants(&self, headers: &mut HeaderMap) {
        self.layer.constants(headers);
        self.inside.constants(headers);
    }
}

/// Layers that were gathered from outside to inside, to be put around something.
pub trait Nest<Inside> {
    /// The whole.
    type Whole: Chain;
    /// Puts them around `inside`.
    fn nest(self, inside: Inside) -> Self::Whole;
}

impl<Inside: Chain> Nest<Inside> for () {
    type Whole = Inside;
    fn nest(self, inside: Inside) -> Inside {
        inside
    }
}

impl<Inside, L, Outer> Nest<Inside> for (Outer, L)
where
    Outer: Nest<Within<L, Inside>>,
{
    type Whole = Outer::Whole;
    fn nest(self, inside: Inside) -> Self::Whole {
        self.0.nest(Within { layer: self.1, inside })
    }
}
