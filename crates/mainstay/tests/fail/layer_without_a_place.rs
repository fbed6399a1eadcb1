//! A layer of a team's own that does not say where it stands.
use mainstay::stack::{Deadline, Stack};

pub struct Tenancy;

pub fn stack<Layers>(stack: Stack<Layers, Deadline>) {
    let _ = stack.enter(Tenancy);
}
