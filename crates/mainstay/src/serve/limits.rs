//! Every limit of the transport in one place, each with the origin of its figure.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Says whether an address belongs to a trusted proxy.
pub(crate) type Trusted = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// What a connection may do. `Default` holds the figures of production.
#[derive(Clone)]
pub struct Limits {
    /// Open connections in all. 10,000: a few tens of KiB each stay under half a gigabyte; one that has sent a long body holds up to 160 KiB more while it is open.
    pub connections_max: usize,
    /// Open connections of one address (IPv6: one /64). 5,000: an office behind one address fits, and half of the total
    /// is always left to others. Over it the longest waiting connection of the address gives way.
    pub connections_per_address_max: usize,
    /// From the first byte of a head to its end, and from the accept to the first byte. 10 s, a third of what
    /// slowloris tools count on, and many round trips for the worst mobile network.
    pub header_timeout: Duration,
    /// Idle time of a connection that has earned it (a second request, or a trusted proxy). 75 s, above the 60 s after
    /// which common balancers drop their side, so that the balancer closes first and never reuses a dead one.
    pub idle_timeout: Duration,
    /// Idle time after the first request only. 30 s: most clients that come back do so within seconds.
    pub idle_timeout_fresh: Duration,
    /// A write without any progress. 20 s covers a mobile hand-over; the client that stopped reading is cut.
    pub write_stall_timeout: Duration,
    /// Average rate below which a blocked reader counts as stalled after `write_stall_timeout`. 240 bytes a second is
    /// Kestrel's `MinResponseDataRate`.
    pub write_rate_min_bytes_per_s: u64,
    /// Request line and fields together. 16 KiB, what node, Apache (8 KiB a line) and nginx (4 x 8 KiB) suggest.
    pub header_bytes_max: usize,
    /// Fields of one head. 100 is also what hyper keeps on its stack: another figure costs an allocation a request.
    pub header_count_max: usize,
    /// The request target. 8 KiB: RFC 9110 section 4.1 wants at least 8,000 bytes.
    pub target_bytes_max: usize,
    /// How long, after our last byte, what the client still sends is read and thrown away, so that it can read the
    /// answer instead of a reset (RFC 9112 section 9.6). 2 s.
    pub linger_timeout: Duration,
    /// How much of it at once; what comes then is read slowly. 256 KiB: beside it lie what the kernel buffers on both sides and the body limit, and a client that looks for an answer while it sends
    /// is to find it before it has sent 4 MB.
    pub linger_bytes_max: usize,
    /// How long a kept connection must have been idle, counted from the beginning of a drain, before it is closed. 1 s:
    /// a client that was about to use it does so, and is told to close.
    pub drain_idle: Duration,
    /// How long a half-sent request may be silent during a drain. 2 s.
    pub drain_stall: Duration,
    /// Streams of one HTTP/2 connection at a time. 100, the least RFC 9113 section 6.5.2 recommends.
    pub http2_streams_max: u32,
    /// Addresses that the cap per address does not concern and that earn the long idle time at once: trusted proxies.
    pub trusted: Trusted,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 10_000,
            connections_per_address_max: 5_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            idle_timeout_fresh: Duration::from_secs(30),
            write_stall_timeout: Duration::from_secs(20),
            write_rate_min_bytes_per_s: 240,
            header_bytes_max: 16 * 1024,
            header_count_max: 100,
            target_bytes_max: 8 * 1024,
            linger_timeout: Duration::from_secs(2),
            linger_bytes_max: 256 * 1024,
            drain_idle: Duration::from_secs(1),
            drain_stall: Duration::from_secs(2),
            http2_streams_max: 100,
            trusted: Arc::new(|_| false),
        }
    }
}

impl Limits {
    /// The longest a connection may go unlooked at: no deadline that begins later can fall due earlier than this.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.header_timeout.min(self.idle_timeout).min(self.idle_timeout_fresh).min(self.write_stall_timeout)
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("connections_max", &self.connections_max)
            .field("connections_per_address_max", &self.connections_per_address_max)
            .field("header_timeout", &self.header_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}
