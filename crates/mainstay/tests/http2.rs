//! HTTP/2 as RFC 9113 and HPACK as RFC 7541 have it, frame by frame against the whole stack: the cases of h2spec by their sections, what the library under the
//! transport does otherwise, and floods. After each of them others are served.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

#[path = "http2/deviations.rs"]
mod deviations;
#[path = "http2/floods.rs"]
mod floods;
#[path = "http2/frames.rs"]
mod frames;
#[path = "http2/hpack.rs"]
mod hpack;
#[path = "http2/messages.rs"]
mod messages;
#[path = "http2/raw.rs"]
mod raw;
#[path = "http2/streams.rs"]
mod streams;
#[path = "http2/wire.rs"]
mod wire;
