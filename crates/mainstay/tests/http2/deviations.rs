//! Where h2, the library under the transport, does otherwise than the RFC has it: each such case, what it does, and why that can stay. A case that does as the RFC
//! says one day fails here, and moves to the others.

use super::wire::code::{CANCEL, PROTOCOL_ERROR};
use super::wire::{Connection, Said, block, data, flag, frame, get_of, kind, post_of, pseudo, reset, serves_others, settings, start, window_update};

struct Deviation {
    section: &'static str,
    what: &'static str,
    rfc: &'static str,
    frames: fn() -> Vec<u8>,
    does: Said,
    reason: &'static str,
}

/// The whole connection ends, where the RFC would end a stream, or say it with another code.
const ENDS: Said = Said::GoAway { code: PROTOCOL_ERROR };
const SERVES: Said = Said::Headers { stream: 1, status: 200 };

/// Section 5.4.1 allows to treat any stream error as one of the connection; what the client loses are its own requests.
const HARSHER: &str = "harsher than it must be, as section 5.4.1 allows; only the code is not that of the RFC";
/// Codes are for who reads traces: no client acts on the difference.
const LESS_SPECIFIC: &str = "the connection ends as it must; only the code says less than the RFC wants";

const DEVIATIONS: &[Deviation] = &[
    Deviation {
        section: "9113, 3.4",
        what: "a preface without SETTINGS behind it",
        rfc: "PROTOCOL_ERROR of the connection",
        frames: || get_of(1, "/"),
        does: SERVES,
        reason: "settings that a client does not send are those by default; there is nothing to read in two ways",
    },
    Deviation {
        section: "9113, 4.2 and 6.4 to 6.9",
        what: "RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE of another length",
        rfc: "FRAME_SIZE_ERROR of the connection",
        frames: || [settings(&[]), frame(kind::PING, flag::NONE, 0, [0; 7])].concat(),
        does: ENDS,
        reason: LESS_SPECIFIC,
    },
    Deviation {
        section: "9113, 6.3",
        what: "PRIORITY of another length",
        rfc: "FRAME_SIZE_ERROR of the stream",
        frames: || [settings(&[]), get_of(1, "/never"), frame(kind::PRIORITY, flag::NONE, 1, [0; 4])].concat(),
        does: ENDS,
        reason: HARSHER,
    },
    Deviation {
        section: "9113, 6.5.2",
        what: "SETTINGS_INITIAL_WINDOW_SIZE above the greatest window",
        rfc: "FLOW_CONTROL_ERROR of the connection",
        frames: || settings(&[(4, 1 << 31)]),
        does: ENDS,
        reason: LESS_SPECIFIC,
    },
    Deviation {
        section: "7541, all of it",
        what: "a block that cannot be decoded",
        rfc: "COMPRESSION_ERROR of the connection",
        frames: || [settings(&[]), frame(kind::HEADERS, flag::WHOLE, 1, [0x80])].concat(),
        does: ENDS,
        reason: LESS_SPECIFIC,
    },
    Deviation {
        section: "9113, 5.1",
        what: "DATA on a stream that the client has half-closed",
        rfc: "STREAM_CLOSED of the stream",
        frames: || [settings(&[]), get_of(1, "/never"), data(1, flag::END_STREAM, "x")].concat(),
        does: ENDS,
        reason: HARSHER,
    },
    Deviation {
        section: "9113, 5.1",
        what: "HEADERS on a stream that the client has half-closed",
        rfc: "STREAM_CLOSED of the stream",
        frames: || [settings(&[]), get_of(1, "/never"), get_of(1, "/")].concat(),
        does: ENDS,
        reason: HARSHER,
    },
    Deviation {
        section: "9113, 5.1",
        what: "HEADERS on a stream that the client has reset",
        rfc: "STREAM_CLOSED of the stream",
        frames: || [settings(&[]), get_of(1, "/never"), reset(1, CANCEL), get_of(1, "/")].concat(),
        does: ENDS,
        reason: HARSHER,
    },
    Deviation {
        section: "9113, 6.9",
        what: "WINDOW_UPDATE of 0 on a stream",
        rfc: "PROTOCOL_ERROR of the stream",
        frames: || [settings(&[]), get_of(1, "/never"), window_update(1, 0)].concat(),
        does: ENDS,
        reason: "harsher than it must be, as section 5.4.1 allows; and so nobody has us reset streams that we began to serve (CVE-2025-8671)",
    },
    Deviation {
        section: "9113, 8.1",
        what: "pseudo-fields in trailers",
        rfc: "PROTOCOL_ERROR of the stream",
        frames: || {
            let trailers = frame(kind::HEADERS, flag::WHOLE, 1, block(&[(":method", "DELETE")]));
            [settings(&[]), post_of(1, &[]), data(1, flag::NONE, "x"), trailers].concat()
        },
        does: SERVES,
        reason: "they are dropped: no handler can see them, and the head decides alone what is asked for",
    },
    Deviation {
        section: "9113, 8.3.1",
        what: "a fragment in :path",
        rfc: "PROTOCOL_ERROR of the stream",
        frames: || [settings(&[]), frame(kind::HEADERS, flag::WHOLE, 1, block(&pseudo("GET", "/#x")))].concat(),
        does: SERVES,
        reason: "it is dropped before we see the path; what is served is the path without it, as any reader of a URI would have it",
    },
];

#[tokio::test]
async fn what_h2_does_otherwise_is_what_we_know_of_and_harms_nobody() {
    for Deviation { section, what, rfc, frames, does, reason } in DEVIATIONS {
        let server = start();
        let mut connection = Connection::silent(&server).await;
        connection.send([super::wire::PREFACE, &frames()].concat()).await;
        let said = connection.until(|said| matches!(said, Said::Headers { .. } | Said::Reset { .. })).await;
        assert_eq!(said, *does, "RFC {section}: {what}: the RFC has {rfc}; known is this, because {reason}");
        if *does == ENDS {
            connection.read_to_end().await;
        }
        serves_others(&server).await;
    }
}
