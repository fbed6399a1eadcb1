//! Requests that are not HTTP as the RFC has it leave here, in the one error form.
//!
//! The transport sees the faults of a head ([`crate::serve`]) and notes them on the request; this layer answers, inside the layers that give every
//! answer its id and its headers, and before any budget is spent. An answer leaves it as the RFC has it, too.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode, header};

use super::{Layer, Outgoing};
use crate::context::Context;
use crate::error::{Error, codes};

/// The layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conform;

impl Layer for Conform {
    type Visit = ();

    fn request(&self, _: &mut Request<Body>, context: &Arc<Context>) -> ControlFlow<Response, ()> {
        match context.fault {
            None => ControlFlow::Continue(()),
            // What follows a malformed head cannot be told from the next request (RFC 9112, 2.2 and 6.3): the connection ends.
            Some(fault) => ControlFlow::Break(
                Error::new(codes::for_status(fault.status))
                    .with_message(fault.message)
                    .with_field("head", fault.code, fault.message)
                    .closing()
                    .into_response(),
            ),
        }
    }

    fn answer(&self, (): (), answer: &mut Outgoing) {
        let response = answer.response_mut();
        if response.status() == StatusCode::NOT_MODIFIED {
            // The router gives an answer to HEAD the length of its body, which is none. In a 304 it would be that of the whole (RFC 9110, 8.6).
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
    }
}
