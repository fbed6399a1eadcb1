//! The panic barrier: a panic costs one request its answer, a 500, and nobody else anything.
//!
//! It stands twice. Around the router ([`crate::routes::Routes`]), so that the 500 of a handler leaves through every layer with all its headers;
//! and here, second from outside, for a fault in a layer of the stack itself.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::Request;

use super::{Layer, Outgoing};
use crate::context::Context;
use crate::error::{Error, codes};

/// The layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct PanicBarrier;

impl Layer for PanicBarrier {
    type Visit = ();

    fn request(&self, _: &mut Request<Body>, _: &Arc<Context>) -> ControlFlow<Response, ()> {
        ControlFlow::Continue(())
    }

    fn answer(&self, (): (), _: &mut Outgoing) {}

    fn guard<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        catch(work)
    }
}

/// Runs `work`; a panic becomes an error.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    // Unwind safe: what was being worked on is answered with the error and never looked at again, only dropped.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        metrics::counter!("mainstay_panics_total").increment(1);
        Error::new(&codes::INTERNAL).caused_by(format!("panic: {}", words(&*payload)))
    })
}

fn words(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "without words",
    }
}
