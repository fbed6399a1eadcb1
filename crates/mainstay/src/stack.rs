//! The stack: every measure between the socket and a handler, in one order that cannot be wrong.
//!
//! ```text
//! observe > panic barrier > security headers > CORS > compression > conformance > deadline > overload > rate limit > body limit > routes
//! ```
//!
//! [`from_the_street`] opens a stack, [`Stack::enter`] adds the next layer inside the last one, [`Stack::around`] closes it around the routes
//! once the innermost layer is in. The order is written in `stack/order.rs`, once. What a layer is stands in `stack/layer.rs`; all of them together
//! are one service with one future (`stack/closed.rs`).

pub mod body_limit;
mod closed;
pub mod compress;
pub mod conform;
pub mod cors;
pub mod deadline;
mod layer;
pub mod observe;
mod order;
mod outgoing;
pub mod overload;
pub mod panic;
pub mod rate_limit;
pub mod secure;

use std::marker::PhantomData;

use crate::client::Networks;
use crate::routes::Routes;
use crate::serve;

pub use body_limit::BodyLimit;
pub use compress::Compress;
pub use conform::Conform;
pub use cors::Cors;
pub use deadline::Deadline;
pub use layer::Layer;
use layer::{End, Nest};
pub use observe::Observe;
pub use order::{Innermost, InsideOf, Street};
pub use outgoing::Outgoing;
pub use overload::Overload;
pub use panic::PanicBarrier;
pub use rate_limit::RateLimit;
pub use secure::SecureHeaders;

/// A stack under construction: its layers so far, and the last one in the type.
#[derive(Debug, Clone)]
pub struct Stack<Layers, Last> {
    layers: Layers,
    trusted: Networks,
    last: PhantomData<Last>,
}

/// Opens a stack where requests come in. `trusted` are the proxies whose word on the client's address counts.
pub fn from_the_street(trusted: Networks) -> Stack<(), Street> {
    Stack { layers: (), trusted, last: PhantomData }
}

impl<Layers, Last> Stack<Layers, Last> {
    /// Adds the next layer, inside the last one.
    pub fn enter<Next>(self, layer: Next) -> Stack<(Layers, Next), Next>
    where
        Next: InsideOf<Last>,
    {
        Stack { layers: (self.layers, layer), trusted: self.trusted, last: PhantomData }
    }

    /// Adds the next layer, or leaves it out because the configuration says so. A layer may be switched off, but never forgotten.
    pub fn enter_if<Next>(self, layer: Option<Next>) -> Stack<(Layers, Option<Next>), Next>
    where
        Next: InsideOf<Last>,
    {
        Stack { layers: (self.layers, layer), trusted: self.trusted, last: PhantomData }
    }

    /// Closes the stack around the routes, once its innermost layer is in.
    pub fn around(self, routes: Routes) -> impl serve::Stack
    where
        Last: Innermost,
        Layers: Nest<End>,
    {
        closed::Closed::new(self.layers.nest(End), self.trusted, routes)
    }
}
