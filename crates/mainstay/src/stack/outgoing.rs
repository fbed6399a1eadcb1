//! An answer on its way out through the layers.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::HeaderMap;
use http::{Extensions, StatusCode};

use crate::serve::{Lines, Reply};

/// An answer on its way out.
///
/// Nearly every answer of the routes [begins](Outgoing::begun) with the usual fields of all layers, as lines of bytes beside its map. A layer of a team's own need not know: the map that it asks for holds everything.
#[derive(Debug)]
pub struct Outgoing(Reply<Body>);

impl Outgoing {
    /// An answer from anywhere: a layer, a panic, a handler that says what a layer would say.
    pub(super) fn new(response: impl IntoResponse) -> Self {
        Self(response.into_response().into())
    }

    /// An answer of the routes that has the usual fields, these lines among them.
    pub(super) fn with_usual_fields(response: Response, lines: Lines) -> Self {
        Self(Reply { response, lines: Some(lines) })
    }

    /// Did it begin with the usual fields of all layers, and has nobody asked for its whole map since? Then no layer need put in its own.
    pub fn begun(&self) -> bool {
        self.0.lines.is_some()
    }

    /// Puts another answer in its place, and gives back the one that was there.
    pub fn replace(&mut self, response: Response) -> Response {
        std::mem::replace(&mut self.0, response.into()).into_response()
    }

    /// Puts other words in the place of its own; the lines stand. Gives back the rest of what was there.
    pub(super) fn exchange(&mut self, response: Response) -> Response {
        std::mem::replace(&mut self.0.response, response)
    }

    /// The answer without the fields that stand in lines.
    pub(super) fn response_mut(&mut self) -> &mut Response {
        &mut self.0.response
    }

    /// As the transport takes it.
    pub(super) fn into_reply(self) -> Reply<Body> {
        self.0
    }

    /// The answer with all its fields.
    pub fn into_response(self) -> Response {
        self.0.into_response()
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.0.response.status()
    }

    /// Its header fields, to be read or changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        if let Some(lines) = self.0.lines.take() {
            lines.append_to(self.0.response.headers_mut());
        }
        self.0.response.headers_mut()
    }

    /// What its makers noted on it.
    pub fn extensions(&self) -> &Extensions {
        self.0.response.extensions()
    }

    /// What its makers noted on it, to be changed.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        self.0.response.extensions_mut()
    }

    /// Its body, to be changed.
    pub fn body_mut(&mut self) -> &mut Body {
        self.0.response.body_mut()
    }
}
