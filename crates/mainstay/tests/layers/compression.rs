//! Which answers come smaller, in which coding, and that they can be read.

use std::io::Read;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mainstay::stack::compress::Never;
use mainstay::testing::{Answer, StackSettings, TestServer, request, routes};

fn text(bytes: usize) -> String {
    "all work and no play makes Jack a dull boy. ".chars().cycle().take(bytes).collect()
}

async fn typed(Path(media): Path<String>) -> Response {
    let mut response = Response::new(Body::from(text(4000)));
    if media != "none" {
        response.headers_mut().insert(CONTENT_TYPE, media.replace('_', "/").parse().unwrap());
    }
    response
}

async fn secret() -> Response {
    let mut response = text(4000).into_response();
    response.extensions_mut().insert(Never);
    response
}

async fn streamed() -> Response {
    let pieces = (0..40).map(|_| Ok::<_, std::convert::Infallible>(Bytes::from(text(100))));
    ([(CONTENT_TYPE, "text/plain")], Body::from_stream(futures_util::stream::iter(pieces))).into_response()
}

fn start() -> TestServer {
    let router = Router::new()
        .route("/text/{bytes}", get(async |Path(bytes): Path<usize>| text(bytes)))
        .route("/typed/{media}", get(typed))
        .route("/secret", get(secret))
        .route("/streamed", get(streamed))
        .route("/packed", get(async || ([(CONTENT_ENCODING, "gzip"), (CONTENT_TYPE, "text/plain")], text(4000))));
    let listed = ["GET /text/{bytes}", "GET /typed/{media}", "GET /secret", "GET /streamed", "GET /packed"];
    TestServer::start(routes(router, &listed, &[]), StackSettings::default())
}

/// The content as it was before its coding.
fn decoded(answer: &Answer) -> String {
    let (body, mut text) = (answer.body.as_slice(), String::new());
    match answer.header("content-encoding") {
        None => return answer.text(),
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap(),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_string(&mut text).unwrap(),
        Some("zstd") => zstd::stream::read::Decoder::new(body).unwrap().read_to_string(&mut text).unwrap(),
        other => panic!("{other:?}"),
    };
    text
}

#[tokio::test]
async fn the_client_gets_the_best_coding_that_it_accepts_and_can_read_it() {
    let server = start();
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip, deflate, br", Some("br")),
        ("gzip, deflate", Some("gzip")),
        ("GZip", Some("gzip")),
        ("br;q=0.5, gzip;q=0.9", Some("gzip")),
        ("zstd;q=0, br;q=0, *", Some("gzip")),
        ("*", Some("zstd")),
        ("gzip;q=0", None),
        ("deflate", None),
        ("identity", None),
        ("identity;q=0", None),
        ("", None),
    ] {
        let answer = server.exchange(request("GET", "/text/4000", &[("Accept-Encoding", accept)], "")).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, coding), "{accept}");
        assert_eq!(decoded(&answer), text(4000), "{accept}");
        assert_eq!(answer.body.len() < 1000, coding.is_some(), "{accept}: {} bytes", answer.body.len());
        if coding.is_some() {
            assert!(answer.lists("vary", "Accept-Encoding") && answer.lists("vary", "Origin"), "{accept}: {:?}", answer.all("vary"));
            assert_ne!(answer.header("content-length"), Some("4000"), "{accept}");
        }
    }
    assert_eq!(server.exchange(request("GET", "/text/4000", &[], "")).await.header("content-encoding"), None, "unasked");
}

const ANY: (&str, &str) = ("Accept-Encoding", "zstd, br, gzip");

#[tokio::test]
async fn only_what_is_worth_it_is_compressed() {
    let server = start();
    for (target, compressed) in [
        ("/text/0", false),
        ("/text/1024", false),
        ("/text/1025", true),
        ("/streamed", true),
        ("/secret", false),
        ("/typed/application_json", true),
        ("/typed/application_problem+json", true),
        ("/typed/text_html", true),
        ("/typed/image_svg+xml", true),
        ("/typed/image_png", false),
        ("/typed/image_webp", false),
        ("/typed/video_mp4", false),
        ("/typed/font_woff2", false),
        ("/typed/application_zip", false),
        ("/typed/application_octet-stream", false),
        ("/typed/text_event-stream", false),
        ("/typed/none", false),
    ] {
        let answer = server.exchange(request("GET", target, &[ANY], "")).await;
        assert_eq!((answer.status, answer.header("content-encoding").is_some()), (200, compressed), "{target}");
        let plain = server.exchange(request("GET", target, &[ANY, ("x-no-compression", "1")], "")).await;
        assert_eq!(plain.header("content-encoding"), None, "{target}: opted out");
        assert_eq!(decoded(&answer), plain.text(), "{target}");
    }
}

#[tokio::test]
async fn what_comes_packed_is_not_packed_again() {
    let answer = start().exchange(request("GET", "/packed", &[ANY], "")).await;
    assert_eq!((answer.all("content-encoding"), answer.text()), (vec!["gzip"], text(4000)));
}

#[tokio::test]
async fn head_says_nothing_of_a_length_that_get_would_not_have() {
    let server = start();
    for (target, fields) in
        [("/text/4000", &[ANY][..]), ("/text/4000", &[]), ("/text/1024", &[ANY]), ("/typed/image_png", &[ANY]), ("/secret", &[ANY])]
    {
        let get = server.exchange(request("GET", target, fields, "")).await;
        let head = server.exchange(request("HEAD", target, fields, "")).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        // RFC 9110, 8.6: the length of GET, or none.
        if let Some(length) = head.header(CONTENT_LENGTH.as_str()) {
            assert_eq!(length, get.body.len().to_string(), "{target} {fields:?}");
        }
        assert_eq!(head.header("content-encoding"), get.header("content-encoding"), "{target} {fields:?}");
        assert_eq!(head.lists("vary", "Accept-Encoding"), get.lists("vary", "Accept-Encoding"), "{target} {fields:?}");
    }
}
