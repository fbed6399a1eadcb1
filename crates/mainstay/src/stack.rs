//! The stack: every measure between the socket and a handler, in one order that cannot be wrong.
//!
//! ```text
//! observe > panic barrier > security headers > CORS > compression > conformance > deadline > overload > rate limit > body limit > routes
//! ```
//!
//! [`from_the_street`] opens a stack, [`Stack::enter`] adds the next layer inside the last one, [`Stack::around`] closes it around the routes
//! once the innermost layer is in. The order is written in `stack/order.rs`, once. All layers are one concrete service type: nothing is
//! boxed between the socket and the router.

pub mod body_limit;
pub mod compress;
pub mod conform;
pub mod cors;
pub mod deadline;
pub mod observe;
mod order;
pub mod overload;
pub mod panic;
pub mod rate_limit;
pub mod secure;
pub(crate) mod shortcut;

use std::marker::PhantomData;

use tower::Layer;
use tower::layer::util::{Identity, Stack as Nested};
use tower::util::Either;

use crate::routes::Routes;

pub use body_limit::BodyLimit;
pub use compress::Compress;
pub use conform::Conform;
pub use cors::Cors;
pub use deadline::Deadline;
pub use observe::Observe;
pub use order::{Innermost, InsideOf, Street};
pub use overload::Overload;
pub use panic::PanicBarrier;
pub use rate_limit::RateLimit;
pub use secure::SecureHeaders;

/// A stack under construction: its layers so far, and the last one in the type.
#[derive(Debug, Clone)]
pub struct Stack<Layers, Last> {
    layers: Layers,
    last: PhantomData<Last>,
}

/// Opens a stack where requests come in.
pub fn from_the_street() -> Stack<Identity, Street> {
    Stack { layers: Identity::new(), last: PhantomData }
}

impl<Layers, Last> Stack<Layers, Last> {
    /// Adds the next layer, inside the last one.
    pub fn enter<Next>(self, layer: Next) -> Stack<Nested<Next, Layers>, Next>
    where
        Next: InsideOf<Last>,
    {
        Stack { layers: Nested::new(layer, self.layers), last: PhantomData }
    }

    /// Adds the next layer, or leaves it out because the configuration says so. A layer may be switched off, but never forgotten.
    pub fn enter_if<Next>(self, layer: Option<Next>) -> Stack<Nested<Either<Next, Identity>, Layers>, Next>
    where
        Next: InsideOf<Last>,
    {
        let layer = layer.map_or_else(|| Either::Right(Identity::new()), Either::Left);
        Stack { layers: Nested::new(layer, self.layers), last: PhantomData }
    }

    /// Closes the stack around the routes, once its innermost layer is in.
    pub fn around(self, routes: Routes) -> Layers::Service
    where
        Last: Innermost,
        Layers: Layer<Routes>,
    {
        self.layers.layer(routes)
    }
}
