//! What a layer is: two moments of a request, its way in and its way out. A few also watch the waiting in between.
//!
//! Layers are not services around services. All of them share one future, and the request stays where it is while they look at it: a tower of wrapped
//! services moved every request and every future once per layer, which cost more than what the layers do (decision 17).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Request};

use super::Outgoing;
use crate::context::Context;
use crate::error::Error;
use crate::serve::Lines;

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

    /// Names of fields that nearly every answer carries because of this layer, and whose values differ: their names, with any value.
    ///
    /// An answer of the routes that has none of these names and none of the [constants](Layer::constants) [begins](Outgoing::begun) with the usual fields
    /// of all layers, laid on at once; others get them one by one, in [`answer`](Layer::answer).
    fn names(&self, _headers: &mut HeaderMap) {}

    /// Puts in the fields of these names.
    fn fill(&self, _visit: &Self::Visit, _lines: &mut Lines) {}

    /// How many sets of constants it has. A few: the stack keeps the lines of every combination.
    fn forms(&self) -> usize {
        1
    }

    /// Which of them is for this request.
    fn form(&self, _visit: &Self::Visit) -> usize {
        0
    }

    /// Fields that nearly every answer of this form carries because of this layer, always with the same values. They are not put into a map for each
    /// answer but written as lines: two dozen fields as entries of a map cost more than all else that the stack does.
    fn constants(&self, _form: usize, _headers: &mut HeaderMap) {}
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

    fn names(&self, headers: &mut HeaderMap) {
        if let Some(layer) = self {
            layer.names(headers);
        }
    }

    fn fill(&self, visit: &Self::Visit, lines: &mut Lines) {
        if let (Some(layer), Some(visit)) = (self, visit) {
            layer.fill(visit, lines);
        }
    }

    fn forms(&self) -> usize {
        self.as_ref().map_or(1, L::forms)
    }

    fn form(&self, visit: &Self::Visit) -> usize {
        self.as_ref().zip(visit.as_ref()).map_or(0, |(layer, visit)| layer.form(visit))
    }

    fn constants(&self, form: usize, headers: &mut HeaderMap) {
        if let Some(layer) = self {
            layer.constants(form, headers);
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
    /// The names of all of them.
    fn names(&self, headers: &mut HeaderMap);
    /// Puts in their fields.
    fn fill(&self, visit: &Self::Visit, lines: &mut Lines);
    /// The combinations of their forms.
    fn forms(&self) -> usize;
    /// Which of them is for this request.
    fn form(&self, visit: &Self::Visit) -> usize;
    /// The constants of all of them.
    fn constants(&self, form: usize, headers: &mut HeaderMap);
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

    fn names(&self, _: &mut HeaderMap) {}

    #[inline]
    fn fill(&self, (): &(), _: &mut Lines) {}

    #[inline]
    fn forms(&self) -> usize {
        1
    }

    #[inline]
    fn form(&self, (): &()) -> usize {
        0
    }

    fn constants(&self, _: usize, _: &mut HeaderMap) {}
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

    fn names(&self, headers: &mut HeaderMap) {
        self.layer.names(headers);
        self.inside.names(headers);
    }

    #[inline]
    fn fill(&self, (own, inside): &Self::Visit, lines: &mut Lines) {
        self.layer.fill(own, lines);
        self.inside.fill(inside, lines);
    }

    #[inline]
    fn forms(&self) -> usize {
        self.layer.forms() * self.inside.forms()
    }

    #[inline]
    fn form(&self, (own, inside): &Self::Visit) -> usize {
        self.layer.form(own) + self.layer.forms() * self.inside.form(inside)
    }

    fn constants(&self, form: usize, headers: &mut HeaderMap) {
        let forms = self.layer.forms().max(1);
        self.layer.constants(form % forms, headers);
        self.inside.constants(form / forms, headers);
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
