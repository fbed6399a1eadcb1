//! RFC 9113, sections 6 and 7: every type of frame, and the codes of errors.

use super::wire::code::{CANCEL, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR};
use super::wire::{
    Connection, Said, block, connection_error, connection_error_in_general, data, fine, flag, frame, get_of, kind, post_of, pseudo, reset,
    serves_others, settings, start, stream_error, window_update,
};

/// The identifiers of settings (section 6.5.2).
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const WINDOW_MAX: u32 = (1 << 31) - 1;

// --- 6.1: DATA ---

#[tokio::test]
async fn section_6_1_data_on_stream_0_is_a_connection_error() {
    connection_error(&[data(0, flag::NONE, "x")], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_1_padding_as_long_as_the_frame_is_a_connection_error() {
    connection_error(&[post_of(1, &[]), data(1, flag::END_STREAM | flag::PADDED, [4, b'x', 0, 0])], PROTOCOL_ERROR).await;
    connection_error(&[post_of(1, &[]), data(1, flag::END_STREAM | flag::PADDED, [])], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_1_padding_is_no_part_of_the_body() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send([post_of(1, &[("content-length", "2")]), data(1, flag::END_STREAM | flag::PADDED, [3, b'h', b'i', 0, 0, 0])].concat()).await;
    assert_eq!(connection.fate(1).await, Said::Headers { stream: 1, status: 200 });
    assert_eq!(connection.until(|said| matches!(said, Said::Data { .. })).await, Said::Data { stream: 1, bytes: b"hi".to_vec() });
}

// --- 6.2, 6.3: HEADERS, PRIORITY ---

#[tokio::test]
async fn section_6_2_headers_on_stream_0_are_a_connection_error() {
    connection_error(&[get_of(0, "/")], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_2_padding_as_long_as_the_frame_is_a_connection_error() {
    let mut padded = vec![200];
    padded.extend(block(&pseudo("GET", "/")));
    connection_error(&[frame(kind::HEADERS, flag::WHOLE | flag::PADDED, 1, padded)], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_2_padding_and_priority_are_passed_over() {
    let block = [&[2, 0, 0, 0, 0, 15], block(&pseudo("GET", "/")).as_slice(), &[0, 0]].concat();
    fine(&[frame(kind::HEADERS, flag::WHOLE | flag::PADDED | flag::PRIORITY, 1, block)]).await;
}

#[tokio::test]
async fn section_6_3_priority_on_stream_0_is_a_connection_error() {
    connection_error(&[frame(kind::PRIORITY, flag::NONE, 0, [0, 0, 0, 0, 15])], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_3_priority_of_an_idle_stream_is_ignored() {
    fine(&[frame(kind::PRIORITY, flag::NONE, 3, [0, 0, 0, 0, 15]), get_of(1, "/")]).await;
}

// --- 6.4: RST_STREAM ---

#[tokio::test]
async fn section_6_4_rst_stream_on_stream_0_is_a_connection_error() {
    connection_error(&[reset(0, CANCEL)], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_4_rst_stream_of_another_length_is_a_connection_error() {
    for length in [0, 3, 5] {
        connection_error_in_general(&[get_of(1, "/never"), frame(kind::RST_STREAM, flag::NONE, 1, vec![0; length])], FRAME_SIZE_ERROR).await;
    }
}

// --- 6.5: SETTINGS ---

#[tokio::test]
async fn section_6_5_an_acknowledgement_with_a_payload_is_a_connection_error() {
    connection_error_in_general(&[frame(kind::SETTINGS, flag::ACK, 0, [0; 6])], FRAME_SIZE_ERROR).await;
}

#[tokio::test]
async fn section_6_5_settings_on_a_stream_are_a_connection_error() {
    connection_error(&[frame(kind::SETTINGS, flag::NONE, 1, [0, 3, 0, 0, 0, 100])], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_5_settings_of_another_length_are_a_connection_error() {
    for length in [1, 5, 7] {
        connection_error_in_general(&[frame(kind::SETTINGS, flag::NONE, 0, vec![0; length])], FRAME_SIZE_ERROR).await;
    }
}

#[tokio::test]
async fn section_6_5_2_values_out_of_range_are_a_connection_error() {
    connection_error(&[settings(&[(ENABLE_PUSH, 2)])], PROTOCOL_ERROR).await;
    connection_error_in_general(&[settings(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX + 1)])], FLOW_CONTROL_ERROR).await;
    connection_error(&[settings(&[(MAX_FRAME_SIZE, 16_383)])], PROTOCOL_ERROR).await;
    connection_error(&[settings(&[(MAX_FRAME_SIZE, 1 << 24)])], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_5_2_an_unknown_setting_is_ignored() {
    fine(&[settings(&[(0xff, 0xff)]), get_of(1, "/")]).await;
}

#[tokio::test]
async fn section_6_5_3_values_count_in_their_order_and_are_acknowledged() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send([settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]), get_of(1, "/")].concat()).await;
    // One for the first SETTINGS, one for these.
    for _ in 0..2 {
        assert_eq!(connection.until(|said| *said == Said::SettingsAck).await, Said::SettingsAck);
    }
    let said = connection.until(|said| matches!(said, Said::Data { .. })).await;
    assert_eq!(said, Said::Data { stream: 1, bytes: b"f".to_vec() });
}

// --- 6.6: PUSH_PROMISE ---

#[tokio::test]
async fn section_6_6_a_client_promises_nothing() {
    let promise = [&[0, 0, 0, 2], block(&pseudo("GET", "/")).as_slice()].concat();
    connection_error(&[get_of(1, "/never"), frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, promise)], PROTOCOL_ERROR).await;
}

// --- 6.7, 6.8: PING, GOAWAY ---

#[tokio::test]
async fn section_6_7_a_ping_comes_back_and_an_answer_to_none_is_ignored() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send([frame(kind::PING, flag::ACK, 0, "unasked!"), frame(kind::PING, flag::NONE, 0, "h2 works")].concat()).await;
    let said = connection.until(|said| matches!(said, Said::PingAck { .. })).await;
    assert_eq!(said, Said::PingAck { payload: b"h2 works".to_vec() });
    connection.serves(1).await;
}

#[tokio::test]
async fn section_6_7_a_ping_on_a_stream_or_of_another_length_is_a_connection_error() {
    connection_error(&[frame(kind::PING, flag::NONE, 1, [0; 8])], PROTOCOL_ERROR).await;
    for length in [0, 6, 9] {
        connection_error_in_general(&[frame(kind::PING, flag::NONE, 0, vec![0; length])], FRAME_SIZE_ERROR).await;
    }
}

#[tokio::test]
async fn section_6_8_goaway_on_a_stream_is_a_connection_error() {
    connection_error(&[frame(kind::GOAWAY, flag::NONE, 1, [0; 8])], PROTOCOL_ERROR).await;
    connection_error_in_general(&[frame(kind::GOAWAY, flag::NONE, 0, [0; 4])], FRAME_SIZE_ERROR).await;
}

#[tokio::test]
async fn section_6_8_a_client_that_goes_gets_its_answer_first() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send([get_of(1, "/"), frame(kind::GOAWAY, flag::NONE, 0, [0; 8])].concat()).await;
    assert_eq!(connection.fate(1).await, Said::Headers { stream: 1, status: 200 });
    connection.read_to_end().await;
}

// --- 6.9: WINDOW_UPDATE and flow control ---

#[tokio::test]
async fn section_6_9_an_increment_of_0_is_an_error_of_what_it_is_for() {
    connection_error(&[window_update(0, 0)], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_6_9_a_window_update_of_another_length_is_a_connection_error() {
    for length in [0, 3, 5] {
        connection_error_in_general(&[frame(kind::WINDOW_UPDATE, flag::NONE, 0, vec![0; length])], FRAME_SIZE_ERROR).await;
    }
}

#[tokio::test]
async fn section_6_9_1_no_more_is_sent_than_the_window_takes_and_the_rest_when_it_opens() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send([settings(&[(INITIAL_WINDOW_SIZE, 1)]), get_of(1, "/")].concat()).await;
    let mut body = Vec::new();
    while body.len() < 4 {
        match connection.until(|said| matches!(said, Said::Data { .. })).await {
            Said::Data { bytes, .. } => {
                assert_eq!(bytes.len(), 1, "{bytes:?}");
                body.extend(bytes);
            }
            said => panic!("{said:?}"),
        }
        // Nothing comes until it opens: a PING overtakes what waits.
        connection.send(frame(kind::PING, flag::NONE, 0, "are you?")).await;
        let said = connection.until(|said| matches!(said, Said::Data { .. } | Said::PingAck { .. })).await;
        assert!(matches!(said, Said::PingAck { .. }) || body.len() == 4, "{said:?}");
        connection.send(window_update(1, 1)).await;
    }
    assert_eq!(body, b"fine");
}

#[tokio::test]
async fn section_6_9_1_a_window_beyond_the_greatest_is_an_error_of_what_it_is_for() {
    connection_error(&[window_update(0, WINDOW_MAX), window_update(0, WINDOW_MAX)], FLOW_CONTROL_ERROR).await;
    stream_error(&[get_of(1, "/never"), window_update(1, WINDOW_MAX), window_update(1, WINDOW_MAX)], FLOW_CONTROL_ERROR).await;
}

#[tokio::test]
async fn section_6_9_2_a_new_initial_window_moves_those_that_are_open_below_0_too() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send([settings(&[(INITIAL_WINDOW_SIZE, 3)]), get_of(1, "/")].concat()).await;
    let first = connection.until(|said| matches!(said, Said::Data { .. })).await;
    assert_eq!(first, Said::Data { stream: 1, bytes: b"fin".to_vec() });
    // Two below nothing, and one above after the update.
    connection.send([settings(&[(INITIAL_WINDOW_SIZE, 1)]), frame(kind::PING, flag::NONE, 0, "are you?")].concat()).await;
    let said = connection.until(|said| matches!(said, Said::Data { .. } | Said::PingAck { .. })).await;
    assert!(matches!(said, Said::PingAck { .. }), "{said:?}");
    connection.send(window_update(1, 3)).await;
    let rest = connection.until(|said| matches!(said, Said::Data { .. })).await;
    assert_eq!(rest, Said::Data { stream: 1, bytes: b"e".to_vec() });
}

#[tokio::test]
async fn section_6_9_2_an_initial_window_that_lets_one_overflow_is_an_error() {
    let frames = [get_of(1, "/never"), window_update(1, WINDOW_MAX - 65_535), settings(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)])];
    connection_error(&frames, FLOW_CONTROL_ERROR).await;
}

#[tokio::test]
async fn section_6_9_1_more_than_our_window_takes_is_an_error() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    // Nobody reads the body of a GET that is never answered, so nothing gives the window back.
    let open = frame(kind::HEADERS, flag::END_HEADERS, 1, block(&pseudo("GET", "/never")));
    let flood: Vec<u8> = (0..200).flat_map(|_| data(1, flag::NONE, [0; 16_384])).collect();
    connection.flood(&[open, flood].concat()).await;
    let said = connection.read_to_end().await;
    assert!(said.contains(&Said::GoAway { code: FLOW_CONTROL_ERROR }), "{said:?}");
    serves_others(&server).await;
}

// --- 6.10: CONTINUATION ---

#[tokio::test]
async fn section_6_10_a_block_in_many_pieces_is_one() {
    let block = block(&pseudo("GET", "/"));
    let (first, rest) = block.split_at(5);
    let mut frames = vec![frame(kind::HEADERS, flag::END_STREAM, 1, first)];
    frames.extend(rest.chunks(9).map(|piece| frame(kind::CONTINUATION, flag::NONE, 1, piece)));
    frames.push(frame(kind::CONTINUATION, flag::END_HEADERS, 1, []));
    fine(&frames).await;
}

#[tokio::test]
async fn section_6_10_a_continuation_of_nothing_is_a_connection_error() {
    let end = frame(kind::CONTINUATION, flag::END_HEADERS, 1, []);
    let begun = frame(kind::HEADERS, flag::END_STREAM, 1, block(&pseudo("GET", "/never")));
    connection_error(&[begun.clone(), end.clone(), end.clone()], PROTOCOL_ERROR).await;
    connection_error(&[get_of(1, "/never"), end.clone()], PROTOCOL_ERROR).await;
    connection_error(&[post_of(1, &[]), data(1, flag::NONE, "x"), end], PROTOCOL_ERROR).await;
    connection_error(&[begun.clone(), frame(kind::CONTINUATION, flag::END_HEADERS, 0, [])], PROTOCOL_ERROR).await;
    connection_error(&[begun, frame(kind::CONTINUATION, flag::END_HEADERS, 3, [])], PROTOCOL_ERROR).await;
}

// --- 7: codes of errors ---

#[tokio::test]
async fn section_7_a_code_that_nobody_knows_is_as_good_as_any() {
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send([get_of(1, "/never"), reset(1, 0xff)].concat()).await;
    connection.serves(3).await;
    connection.send(frame(kind::GOAWAY, flag::NONE, 0, [0, 0, 0, 0, 0, 0, 0, 0xff])).await;
    connection.read_to_end().await;
    serves_others(&server).await;
}
