//! What tests of a service need.
mod fault_proxy;
pub use fault_proxy::{Fault, FaultProxy};
