//! A stack that does not begin with the layer that sees every request.
use mainstay::stack::{PanicBarrier, from_the_street};

pub fn stack() {
    let _ = from_the_street().enter(PanicBarrier);
}
