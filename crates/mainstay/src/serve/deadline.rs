//! When a connection's time is up, and why: one pure function over what is known about the connection.

use super::limits::Limits;

/// Milliseconds since the connection was accepted, at least 1; 0 stands for "not".
pub(crate) type Ms = u64;

/// Why a connection was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No byte came after the accept.
    FirstByte,
    /// A head was begun and not finished in time.
    Head,
    /// Nothing in flight for too long.
    Idle,
    /// The client does not read.
    WriteStall,
    /// The client was given its time to read our last answer.
    Linger,
    /// A drain, and nothing in flight.
    DrainIdle,
    /// The same, and another process goes on with the connection.
    PassedOn,
    /// A drain, and a request body that has stopped coming.
    DrainStalled,
    /// The hard phase of a drain.
    Cut,
    /// Another connection needed the place more.
    Evicted,
    /// The client broke the protocol or the connection.
    Broken,
}

impl Cause {
    /// The value of the `reason` label of the metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Cause::FirstByte => "first_byte_timeout",
            Cause::Head => "header_timeout",
            Cause::Idle => "idle",
            Cause::WriteStall => "write_stall",
            Cause::Linger => "linger",
            Cause::DrainIdle => "drain_idle",
            Cause::PassedOn => "passed_on",
            Cause::DrainStalled => "drain_stalled",
            Cause::Cut => "cut",
            Cause::Evicted => "evicted",
            Cause::Broken => "broken",
        }
    }
}

/// Bytes that wait for the client to read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stall {
    /// Since when there are any.
    pub(crate) since: Ms,
    /// The last that went.
    pub(crate) progress: Ms,
    /// Those that went since.
    pub(crate) bytes: u64,
}

/// What is known about a connection at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// Requests given to the service whose answer has not ended.
    pub(crate) in_flight: u32,
    /// Request bodies that have not been received in full.
    pub(crate) bodies_open: u32,
    /// Requests given to the service so far.
    pub(crate) served: u32,
    pub(crate) trusted: bool,
    pub(crate) head_began: Ms,
    pub(crate) idle_since: Ms,
    /// Bytes that the socket does not take.
    pub(crate) blocked: Stall,
    /// HTTP/2: bytes that the client's windows do not let through.
    pub(crate) unsent: Stall,
    pub(crate) linger_since: Ms,
    pub(crate) drain_began: Ms,
    /// Another process goes on with it if nobody is asking (HTTP/1.1).
    pub(crate) heir: bool,
    pub(crate) last_read: Ms,
}

/// The earliest moment at which the connection must end, and why. `None`: it is busy, nothing here limits it.
pub(crate) fn deadline(sight: &Sight, limits: &Limits) -> Option<(Ms, Cause)> {
    let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX / 4);
    if sight.linger_since != 0 {
        return Some((sight.linger_since + ms(limits.linger_timeout), Cause::Linger));
    }
    let stall = ms(limits.write_stall_timeout);
    let mut due: Option<(Ms, Cause)> = None;
    let mut earlier = |at: Ms, cause: Cause| {
        if due.is_none_or(|(known, _)| at < known) {
            due = Some((at, cause));
        }
    };
    for waits in [sight.blocked, sight.unsent].into_iter().filter(|waits| waits.since != 0) {
        earlier(waits.progress + stall, Cause::WriteStall);
        let earned = waits.bytes.saturating_mul(1000) / limits.write_rate_min_bytes_per_s.max(1);
        earlier((waits.since + stall).saturating_add(earned), Cause::WriteStall);
    }
    let draining = sight.drain_began != 0;
    let drain_stall = sight.last_read.max(sight.drain_began) + ms(limits.drain_stall);
    if sight.in_flight > 0 || sight.bodies_open > 0 {
        if draining && sight.bodies_open > 0 {
            earlier(drain_stall, Cause::DrainStalled);
        }
    } else if sight.head_began != 0 {
        earlier(sight.head_began + ms(limits.header_timeout), Cause::Head);
        if draining {
            earlier(drain_stall, Cause::Head);
        }
    } else if sight.blocked.since == 0 {
        if sight.served == 0 {
            earlier(ms(limits.header_timeout), Cause::FirstByte);
        } else {
            let earned = sight.trusted || sight.served > 1;
            let idle = if earned { limits.idle_timeout } else { limits.idle_timeout_fresh };
            earlier(sight.idle_since + ms(idle), Cause::Idle);
        }
        if draining && sight.heir {
            earlier(sight.drain_began, Cause::PassedOn);
        } else if draining {
            earlier(sight.idle_since.max(sight.drain_began) + ms(limits.drain_idle), Cause::DrainIdle);
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(sight: Sight) -> Option<(Ms, Cause)> {
        deadline(&sight, &Limits::default())
    }

    #[test]
    fn a_silent_connection_ends_after_ten_seconds() {
        assert_eq!(due(Sight::default()), Some((10_000, Cause::FirstByte)));
    }

    #[test]
    fn a_head_has_ten_seconds_from_its_first_byte_however_long_the_connection_was_idle() {
        let sight = Sight { served: 5, idle_since: 1_000, head_began: 70_000, ..Sight::default() };
        assert_eq!(due(sight), Some((80_000, Cause::Head)));
    }

    #[test]
    fn a_connection_earns_its_long_idle_time_with_a_second_request() {
        let once = Sight { served: 1, idle_since: 500, ..Sight::default() };
        assert_eq!(due(once), Some((30_500, Cause::Idle)));
        assert_eq!(due(Sight { served: 2, ..once }), Some((75_500, Cause::Idle)));
        assert_eq!(due(Sight { trusted: true, ..once }), Some((75_500, Cause::Idle)));
    }

    #[test]
    fn a_request_in_flight_has_no_deadline_here() {
        assert_eq!(due(Sight { in_flight: 1, served: 1, ..Sight::default() }), None);
        assert_eq!(due(Sight { in_flight: 1, served: 1, drain_began: 9, ..Sight::default() }), None);
    }

    #[test]
    fn a_reader_that_trickles_is_stalled_as_well_as_one_that_stops() {
        let busy = Sight { in_flight: 1, served: 1, ..Sight::default() };
        let stopped = Stall { since: 1_000, progress: 1_000, bytes: 0 };
        let trickle = Stall { progress: 20_900, bytes: 240, ..stopped };
        let honest = Stall { progress: 20_900, bytes: 10_000_000, ..stopped };
        for (stall, ends) in [(stopped, 21_000), (trickle, 22_000), (honest, 40_900)] {
            assert_eq!(due(Sight { blocked: stall, ..busy }), Some((ends, Cause::WriteStall)));
            assert_eq!(due(Sight { unsent: stall, ..busy }), Some((ends, Cause::WriteStall)));
        }
    }

    #[test]
    fn a_drain_closes_what_has_been_idle_for_a_second_since_it_began() {
        let idle = Sight { served: 9, idle_since: 100, drain_began: 50_000, ..Sight::default() };
        assert_eq!(due(idle), Some((51_000, Cause::DrainIdle)));
        assert_eq!(due(Sight { idle_since: 50_700, ..idle }), Some((51_700, Cause::DrainIdle)));
    }

    #[test]
    fn an_heir_gets_at_once_what_nobody_asks_on_and_nothing_else() {
        let idle = Sight { served: 9, idle_since: 100, drain_began: 50_000, heir: true, ..Sight::default() };
        assert_eq!(due(idle), Some((50_000, Cause::PassedOn)));
        assert_eq!(due(Sight { served: 0, ..idle }), Some((10_000, Cause::FirstByte)), "one that never spoke has had its time");
        assert_eq!(due(Sight { in_flight: 1, ..idle }), None);
        assert_eq!(due(Sight { head_began: 49_999, last_read: 49_999, ..idle }), Some((52_000, Cause::Head)));
        assert_eq!(due(Sight { heir: false, ..idle }), Some((51_000, Cause::DrainIdle)));
    }

    #[test]
    fn a_drain_gives_half_sent_requests_two_seconds_of_silence() {
        let body = Sight { in_flight: 1, bodies_open: 1, served: 1, drain_began: 5_000, last_read: 6_000, ..Sight::default() };
        assert_eq!(due(body), Some((8_000, Cause::DrainStalled)));
        let head = Sight { head_began: 4_000, drain_began: 5_000, last_read: 4_500, ..Sight::default() };
        assert_eq!(due(head), Some((7_000, Cause::Head)));
    }
}
