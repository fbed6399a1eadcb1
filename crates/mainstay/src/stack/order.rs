//! The one legal order of the layers, outermost first. It is written here and nowhere else.

use super::{BodyLimit, Compress, Conform, Cors, Deadline, Layer, Observe, Overload, PanicBarrier, RateLimit, SecureHeaders};

/// Says that a layer may stand directly inside `Outer`.
///
/// A layer of your own finds its place by two lines: `impl InsideOf<Deadline> for Mine {}` and `impl InsideOf<Mine> for Overload {}`.
#[diagnostic::on_unimplemented(
    message = "the layer `{Self}` may not stand directly inside `{Outer}`",
    label = "wrong place in the stack",
    note = "the one legal order is written in stack/order.rs: observe, panic barrier, security headers, CORS, compression, conformance, deadline, overload, rate limit, body limit"
)]
pub trait InsideOf<Outer>: Layer {}

/// Where requests come in: the outside of the outermost layer.
#[derive(Debug, Clone, Copy)]
pub struct Street;

// First of all, so that whatever happens has an id, is logged once and counted once.
impl InsideOf<Street> for Observe {}
// A panic in a layer below costs one answer and nothing else.
impl InsideOf<Observe> for PanicBarrier {}
// Outside of everything that may answer early: a refusal carries the headers too.
impl InsideOf<PanicBarrier> for SecureHeaders {}
// A browser cannot read a refusal without these; preflights end here and meet no limit.
impl InsideOf<SecureHeaders> for Cors {}
// Outside of the deadline: what is compressed is the answer, whoever gave it.
impl InsideOf<Cors> for Compress {}
// A request that is not HTTP is refused before any budget is spent on it.
impl InsideOf<Compress> for Conform {}
// The clock runs for everything below, waiting included.
impl InsideOf<Conform> for Deadline {}
// Before the limiter: a refusal for overload costs the client nothing of its quota.
impl InsideOf<Deadline> for Overload {}
// Before any byte of the body is read and before anyone asks who it is.
impl InsideOf<Overload> for RateLimit {}
// Innermost: every byte that a handler reads has passed here.
impl InsideOf<RateLimit> for BodyLimit {}

/// Says that a stack may be closed around the routes inside this layer.
///
/// A layer of your own that stands inside the body limit takes its place as the innermost with `impl InsideOf<BodyLimit> for Mine {}` and
/// `impl Innermost for Mine {}`.
#[diagnostic::on_unimplemented(
    message = "the stack is not complete: `{Self}` is not its innermost layer",
    label = "layers are missing between `{Self}` and the routes",
    note = "the one legal order is written in stack/order.rs: observe, panic barrier, security headers, CORS, compression, conformance, deadline, overload, rate limit, body limit"
)]
pub trait Innermost {}

impl Innermost for BodyLimit {}
