//! A forgotten layer: requests would be refused for overload only after they have cost the client its quota.
use mainstay::stack::{Deadline, RateLimit, Stack};

pub fn stack<Layers>(stack: Stack<Layers, Deadline>, limit: RateLimit) {
    let _ = stack.enter(limit);
}
