//! RFC 9113, sections 3 to 5: the preface, frames, blocks of fields, streams.

use super::wire::code::{CANCEL, COMPRESSION_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED};
use super::wire::{
    Connection, FRAME_BYTES_MAX, Said, block, connection_error, connection_error_in_general, data, fine, flag, frame, get_of, kind, post_of, pseudo,
    reset, serves_others, settings, start, stream_error, window_update,
};

// --- 3.4: the preface ---

#[tokio::test]
async fn section_3_4_the_server_begins_with_settings() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    assert_eq!(connection.next().await, Said::Settings);
    connection.serves(1).await;
}

#[tokio::test]
async fn section_3_4_a_broken_preface_is_no_http2() {
    let server = start();
    for broken in ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n"] {
        let answer = server.exchange(broken).await;
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{broken:?}");
    }
}

// --- 4.1, 4.2: frames ---

#[tokio::test]
async fn section_4_1_an_unknown_type_an_unknown_flag_and_the_reserved_bit_are_ignored() {
    let reserved = 1 << 31;
    fine(&[
        frame(kind::UNKNOWN, 0xff, 0, [0; 8]),
        frame(kind::UNKNOWN, 0xff, 1, [0; 8]),
        frame(kind::PING, 0xfe, reserved, [0; 8]),
        frame(kind::HEADERS, flag::WHOLE | 0x40 | 0x80, 1, block(&pseudo("GET", "/"))),
    ])
    .await;
}

#[tokio::test]
async fn section_4_2_data_of_the_greatest_size_is_taken() {
    fine(&[post_of(1, &[]), data(1, flag::END_STREAM, [b'x'; FRAME_BYTES_MAX])]).await;
}

#[tokio::test]
async fn section_4_2_a_frame_beyond_the_greatest_size_is_a_connection_error() {
    let large = vec![0; FRAME_BYTES_MAX + 1];
    connection_error(&[post_of(1, &[]), data(1, flag::END_STREAM, &large)], FRAME_SIZE_ERROR).await;
    connection_error(&[frame(kind::HEADERS, flag::WHOLE, 1, &large)], FRAME_SIZE_ERROR).await;
    connection_error(&[frame(kind::UNKNOWN, flag::NONE, 0, &large)], FRAME_SIZE_ERROR).await;
}

// --- 4.3: blocks of fields ---

#[tokio::test]
async fn section_4_3_a_block_that_cannot_be_decoded_is_a_connection_error() {
    connection_error_in_general(&[frame(kind::HEADERS, flag::WHOLE, 1, [0x00, 0xff, 0xff, 0xff])], COMPRESSION_ERROR).await;
}

#[tokio::test]
async fn section_4_3_nothing_stands_inside_a_block() {
    for between in [
        frame(kind::PRIORITY, flag::NONE, 1, [0, 0, 0, 0, 15]),
        frame(kind::HEADERS, flag::WHOLE, 3, block(&pseudo("GET", "/"))),
        frame(kind::PING, flag::NONE, 0, [0; 8]),
        settings(&[]),
        window_update(0, 1),
        data(1, flag::END_STREAM, "x"),
    ] {
        let begun = frame(kind::HEADERS, flag::END_STREAM, 1, block(&pseudo("GET", "/")));
        connection_error(&[begun, between, frame(kind::CONTINUATION, flag::END_HEADERS, 1, [])], PROTOCOL_ERROR).await;
    }
}

// --- 5.1: the states of a stream ---

#[tokio::test]
async fn section_5_1_idle_data_is_a_connection_error() {
    connection_error(&[data(1, flag::END_STREAM, "x")], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_1_idle_rst_stream_is_a_connection_error() {
    connection_error(&[reset(1, CANCEL)], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_1_idle_window_update_is_a_connection_error() {
    connection_error(&[window_update(1, 100)], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_1_idle_continuation_is_a_connection_error() {
    connection_error(&[frame(kind::CONTINUATION, flag::END_HEADERS, 1, block(&pseudo("GET", "/")))], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_1_half_closed_continuation_is_a_connection_error() {
    connection_error(&[get_of(1, "/never"), frame(kind::CONTINUATION, flag::END_HEADERS, 1, [])], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_1_half_closed_window_update_and_priority_are_taken() {
    fine(&[get_of(1, "/"), window_update(1, 100), frame(kind::PRIORITY, flag::NONE, 1, [0, 0, 0, 0, 15])]).await;
}

#[tokio::test]
async fn section_5_1_closed_continuation_is_a_connection_error() {
    let frames = [get_of(1, "/never"), reset(1, CANCEL), frame(kind::CONTINUATION, flag::END_HEADERS, 1, [])];
    connection_error(&frames, PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_1_closed_data_is_a_stream_error() {
    stream_error(&[post_of(1, &[]), reset(1, CANCEL), data(1, flag::END_STREAM, "x")], STREAM_CLOSED).await;
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.serves(1).await;
    connection.send(data(1, flag::END_STREAM, "x")).await;
    let said = connection.until(|said| matches!(said, Said::Reset { .. })).await;
    assert_eq!(said, Said::Reset { stream: 1, code: STREAM_CLOSED });
}

#[tokio::test]
async fn section_5_1_closed_window_update_and_rst_stream_are_ignored() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.serves(1).await;
    connection.send([window_update(1, 1), reset(1, CANCEL), frame(kind::PRIORITY, flag::NONE, 1, [0, 0, 0, 0, 15])].concat()).await;
    connection.serves(3).await;
}

// --- 5.1.1, 5.1.2: identifiers, and how many at once ---

#[tokio::test]
async fn section_5_1_1_a_stream_of_an_even_number_is_a_connection_error() {
    connection_error(&[get_of(2, "/")], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_1_1_a_number_below_an_earlier_one_is_a_connection_error() {
    connection_error(&[get_of(5, "/"), get_of(3, "/")], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_1_2_a_stream_beyond_the_greatest_number_at_once_is_refused() {
    const STREAMS_MAX: u32 = 100;
    let server = start();
    let mut connection = Connection::open(&server).await;
    let frames: Vec<u8> = (0..=STREAMS_MAX).flat_map(|number| get_of(2 * number + 1, "/never")).collect();
    // The limit counts from its acknowledgement on.
    assert_eq!(connection.next().await, Said::Settings);
    connection.send([frame(kind::SETTINGS, flag::ACK, 0, []), frames].concat()).await;
    let last = 2 * STREAMS_MAX + 1;
    assert_eq!(connection.fate(last).await, Said::Reset { stream: last, code: REFUSED_STREAM });
    connection.send(reset(1, CANCEL)).await;
    connection.serves(last + 2).await;
    serves_others(&server).await;
}

// --- 5.3.1 of RFC 7540: a stream that depends on itself ---

#[tokio::test]
async fn section_5_3_1_a_stream_that_depends_on_itself_is_a_stream_error() {
    let itself = [0, 0, 0, 1, 15];
    let headers = [itself.as_slice(), &block(&pseudo("GET", "/"))].concat();
    stream_error(&[frame(kind::HEADERS, flag::WHOLE | flag::PRIORITY, 1, headers)], PROTOCOL_ERROR).await;
    stream_error(&[get_of(1, "/never"), frame(kind::PRIORITY, flag::NONE, 1, itself)], PROTOCOL_ERROR).await;
}

// --- 5.4, 5.5: errors, extensions ---

#[tokio::test]
async fn section_5_4_1_a_connection_error_is_told_and_the_connection_closed() {
    connection_error(&[frame(kind::PING, flag::NONE, 1, [0; 8])], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_5_5_a_frame_of_an_extension_is_ignored_but_not_inside_a_block() {
    fine(&[frame(kind::UNKNOWN, flag::NONE, 1, "whatever"), get_of(1, "/")]).await;
    let begun = frame(kind::HEADERS, flag::END_STREAM, 1, block(&pseudo("GET", "/")));
    connection_error(&[begun, frame(kind::UNKNOWN, flag::NONE, 1, "whatever")], PROTOCOL_ERROR).await;
}
