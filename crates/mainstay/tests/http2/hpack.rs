//! RFC 7541: fields as HPACK has them. What cannot be decoded leaves the two sides with different tables, so it ends the connection. (h2 says PROTOCOL_ERROR where the
//! RFC has COMPRESSION_ERROR: see [`deviations`](super::deviations).)

use super::wire::code::COMPRESSION_ERROR;
use super::wire::{Connection, Said, block, connection_error_in_general, fine, flag, frame, kind, pseudo, settings, start};

/// A good request, and these bytes behind it in its block.
fn ending(bytes: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::WHOLE, 1, [block(&pseudo("GET", "/")).as_slice(), bytes].concat())
}

#[tokio::test]
async fn section_2_3_3_an_index_beyond_the_tables_is_an_error() {
    // Indexed; a literal whose name is.
    connection_error_in_general(&[ending(&[0xff, 0x10])], COMPRESSION_ERROR).await;
    connection_error_in_general(&[ending(&[0x7f, 0x10, 1, b'x'])], COMPRESSION_ERROR).await;
}

#[tokio::test]
async fn section_4_2_a_size_update_behind_a_field_is_an_error() {
    connection_error_in_general(&[ending(&[0x20])], COMPRESSION_ERROR).await;
}

#[tokio::test]
async fn section_4_2_a_size_update_before_all_fields_is_taken() {
    fine(&[frame(kind::HEADERS, flag::WHOLE, 1, [&[0x20], block(&pseudo("GET", "/")).as_slice()].concat())]).await;
}

#[tokio::test]
async fn section_5_1_an_integer_without_an_end_is_an_error() {
    connection_error_in_general(&[ending(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f])], COMPRESSION_ERROR).await;
}

#[tokio::test]
async fn section_5_2_a_text_longer_than_the_block_is_an_error() {
    connection_error_in_general(&[ending(&[0x00, 1, b'x', 100, b'y'])], COMPRESSION_ERROR).await;
}

#[tokio::test]
async fn section_5_2_padding_of_more_than_7_bits_of_zeros_or_with_the_end_symbol_is_an_error() {
    // The name `x`, and as its value in Huffman's code: `1` with 11 ones behind it, `1` with zeros, the symbol for the end.
    for value in [[0x82, 0x0f, 0xff].as_slice(), &[0x81, 0x08], &[0x84, 0xff, 0xff, 0xff, 0xff]] {
        connection_error_in_general(&[ending(&[&[0x00, 1, b'x'], value].concat())], COMPRESSION_ERROR).await;
    }
}

#[tokio::test]
async fn section_5_2_huffman_with_good_padding_is_taken() {
    // `1` in five bits and three ones.
    fine(&[ending(&[0x00, 1, b'x', 0x81, 0x0f])]).await;
}

#[tokio::test]
async fn section_6_1_index_0_is_an_error() {
    connection_error_in_general(&[ending(&[0x80])], COMPRESSION_ERROR).await;
}

#[tokio::test]
async fn section_6_1_and_6_2_every_form_of_a_field_is_understood() {
    // Indexed in the static table, put into the dynamic one, and then indexed there.
    let authority = [0x41, 1, b'a'];
    let first = frame(kind::HEADERS, flag::WHOLE, 1, [&[0x82, 0x86, 0x84], authority.as_slice(), &[0x10, 1, b'x', 1, b'y']].concat());
    let second = frame(kind::HEADERS, flag::WHOLE, 3, [0x82, 0x86, 0x84, 0xbe]);
    fine(&[first, second]).await;
}

#[tokio::test]
async fn section_6_3_a_table_greater_than_the_settings_allow_is_an_error() {
    connection_error_in_general(
        &[frame(kind::HEADERS, flag::WHOLE, 1, [&[0x3f, 0xff, 0xff, 0x07], block(&pseudo("GET", "/")).as_slice()].concat())],
        COMPRESSION_ERROR,
    )
    .await;
}

#[tokio::test]
async fn section_6_3_a_smaller_table_of_ours_is_kept_to() {
    const HEADER_TABLE_SIZE: u16 = 1;
    let server = start();
    let mut connection = Connection::open(&server).await;
    connection.send(settings(&[(HEADER_TABLE_SIZE, 0)])).await;
    for _ in 0..2 {
        assert_eq!(connection.until(|said| *said == Said::SettingsAck).await, Said::SettingsAck);
    }
    // With an empty table every answer spells out what it says, so that its status can be read.
    for stream in [1, 3, 5] {
        connection.serves(stream).await;
    }
}
