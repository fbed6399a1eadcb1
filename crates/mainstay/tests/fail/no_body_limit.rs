//! The innermost layer is missing: bodies would have no bound.
use std::time::Duration;

use mainstay::client::Networks;
use mainstay::config::{ContentPolicy, Origins};
use mainstay::routes::Routes;
use mainstay::stack::{Compress, Conform, Cors, Deadline, Observe, Overload, PanicBarrier, RateLimit, SecureHeaders, from_the_street};

pub fn stack(trusted: Networks, observe: Observe, origins: Origins, routes: Routes) {
    let _ = from_the_street(trusted)
        .enter(observe)
        .enter(PanicBarrier)
        .enter(SecureHeaders::new(ContentPolicy::Documents))
        .enter(Cors::new(origins, true))
        .enter(Compress)
        .enter(Conform)
        .enter(Deadline::new(Duration::from_secs(30)))
        .enter(Overload::new(1000))
        .enter(RateLimit::new(100, Duration::from_secs(900), Networks::default()))
        .around(routes);
}
