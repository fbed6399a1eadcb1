//! RFC 9113, section 8: what a request is made of. A malformed one reaches no handler. It is an error of its stream; of those that h2 sees while it still decodes
//! fields it makes an error of the connection, as section 5.4.1 allows for any; and what only the transport sees is answered with 400 (section 8.1.1).

use super::wire::code::PROTOCOL_ERROR;
use super::wire::{block, connection_error, data, fine, flag, frame, get_of, kind, post_of, pseudo, refused, stream_error};

/// A request without a body of these fields.
fn whole(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flag::WHOLE, 1, block(fields))
}

/// A good request, and these fields behind its pseudo-fields.
fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    whole(&[&pseudo("GET", "/"), fields].concat())
}

#[tokio::test]
async fn section_8_1_a_body_and_trailers_are_taken() {
    fine(&[post_of(1, &[]), data(1, flag::NONE, "x"), frame(kind::HEADERS, flag::WHOLE, 1, block(&[("x-sum", "1")]))]).await;
}

#[tokio::test]
async fn section_8_1_trailers_that_do_not_end_the_stream_are_malformed() {
    let trailers = frame(kind::HEADERS, flag::END_HEADERS, 1, block(&[("x-sum", "1")]));
    stream_error(&[post_of(1, &[]), data(1, flag::NONE, "x"), trailers], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_8_2_1_a_name_that_is_none_in_lower_case_is_malformed() {
    for name in ["X-Test", "x test", "x:test", "x\0test", "x\rtest", "x\ntest", "", "x\u{7f}", "x\u{e9}"] {
        connection_error(&[with(&[(name, "y")])], PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn section_8_2_1_a_value_with_a_line_end_or_a_nul_is_malformed() {
    for value in ["a\0b", "a\rb", "a\nb", "a\r\nx-smuggled: b"] {
        connection_error(&[with(&[("x-test", value)])], PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn section_8_2_2_fields_of_a_connection_are_malformed() {
    for field in
        [("connection", "keep-alive"), ("keep-alive", "1"), ("proxy-connection", "keep-alive"), ("transfer-encoding", "chunked"), ("upgrade", "h2c")]
    {
        stream_error(&[with(&[field])], PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn section_8_2_2_te_says_trailers_or_is_malformed() {
    fine(&[with(&[("te", "trailers")])]).await;
    for value in ["trailers, deflate", "chunked", ""] {
        stream_error(&[with(&[("te", value)])], PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn section_8_3_pseudo_fields_unknown_of_answers_or_behind_others_are_malformed() {
    connection_error(&[whole(&[&[(":test", "x")], pseudo("GET", "/").as_slice()].concat())], PROTOCOL_ERROR).await;
    stream_error(&[whole(&[&[(":status", "200")], pseudo("GET", "/").as_slice()].concat())], PROTOCOL_ERROR).await;
    let [method, scheme, path, authority] = pseudo("GET", "/");
    stream_error(&[whole(&[method, scheme, authority, ("x-test", "y"), path])], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_8_3_1_what_is_missing_makes_a_request_malformed() {
    for missing in [":method", ":scheme", ":path"] {
        let fields: Vec<_> = pseudo("GET", "/").into_iter().filter(|(name, _)| *name != missing).collect();
        stream_error(&[whole(&fields)], PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn section_8_3_1_what_is_there_twice_makes_a_request_malformed() {
    for twice in pseudo("GET", "/") {
        stream_error(&[whole(&[&[twice], pseudo("GET", "/").as_slice()].concat())], PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn section_8_3_1_a_path_is_not_empty_and_begins_with_a_slash() {
    for path in ["", "x", "/ x"] {
        stream_error(&[whole(&pseudo("GET", path))], PROTOCOL_ERROR).await;
    }
    for path in ["?x", "*"] {
        refused(&[whole(&pseudo("GET", path))]).await;
    }
}

#[tokio::test]
async fn section_8_3_1_who_is_asked_is_said_once_or_twice_the_same() {
    let [method, scheme, path, authority] = pseudo("GET", "/");
    fine(&[whole(&[method, scheme, path, authority, ("host", "A")])]).await;
    fine(&[whole(&[method, scheme, path, ("host", "a")])]).await;
    refused(&[whole(&[method, scheme, path, authority, ("host", "b")])]).await;
    refused(&[whole(&[method, scheme, path])]).await;
    refused(&[whole(&[method, scheme, path, (":authority", "user@a")])]).await;
    refused(&[whole(&[method, (":scheme", "ftp"), path, authority])]).await;
}

#[tokio::test]
async fn section_8_2_1_a_value_with_white_space_around_it_is_malformed() {
    for value in [" y", "y ", "\ty", "y\t", " "] {
        refused(&[with(&[("x-test", value)])]).await;
    }
}

#[tokio::test]
async fn section_8_1_1_a_length_that_is_not_that_of_the_body_is_malformed() {
    stream_error(&[post_of(1, &[("content-length", "1")]), data(1, flag::END_STREAM, "test")], PROTOCOL_ERROR).await;
    stream_error(&[post_of(1, &[("content-length", "1")]), data(1, flag::NONE, "te"), data(1, flag::END_STREAM, "st")], PROTOCOL_ERROR).await;
    stream_error(&[post_of(1, &[("content-length", "5")]), data(1, flag::END_STREAM, "test")], PROTOCOL_ERROR).await;
    stream_error(&[with(&[("content-length", "1")])], PROTOCOL_ERROR).await;
    fine(&[post_of(1, &[("content-length", "4")]), data(1, flag::NONE, "te"), data(1, flag::END_STREAM, "st")]).await;
}

#[tokio::test]
async fn section_8_1_1_a_length_that_is_no_number_or_is_two_is_malformed() {
    for value in ["+4", "-4", "4, 5", "x", ""] {
        stream_error(&[post_of(1, &[("content-length", value)]), data(1, flag::END_STREAM, "test")], PROTOCOL_ERROR).await;
    }
    stream_error(&[post_of(1, &[("content-length", "4"), ("content-length", "5")]), data(1, flag::END_STREAM, "test")], PROTOCOL_ERROR).await;
}

#[tokio::test]
async fn section_8_6_a_request_is_not_upgraded_and_many_are_served_at_once() {
    fine(&[get_of(1, "/"), get_of(3, "/"), get_of(5, "/")]).await;
}
