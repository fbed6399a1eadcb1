//! CORS outside of the security headers: a preflight would leave without them.
use mainstay::client::Networks;
use mainstay::config::{ContentPolicy, Origins};
use mainstay::stack::{Cors, Observe, PanicBarrier, SecureHeaders, from_the_street};

pub fn stack(trusted: Networks, observe: Observe, origins: Origins) {
    let _ = from_the_street(trusted)
        .enter(observe)
        .enter(PanicBarrier)
        .enter(Cors::new(origins, true))
        .enter(SecureHeaders::new(ContentPolicy::Documents));
}
