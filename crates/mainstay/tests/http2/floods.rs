//! Floods: frames that cost their sender little. Each ends the connection or is answered at the sender's pace, costs a bounded amount of memory, and others are
//! served meanwhile.

use std::time::{Duration, Instant};

use mainstay::serve::Limits;
use mainstay::testing::{TestServer, request};

use tokio::sync::Mutex;

use super::wire::code::{CANCEL, ENHANCE_YOUR_CALM, PROTOCOL_ERROR};
use super::wire::{
    Connection, Said, block, data, flag, frame, get_of, kind, post_of, pseudo, reset, serves_others, settings, start, start_with, window_update,
};

/// As much as the memory of the process may grow by a flood, the buffers of both sides of the test included.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

/// One flood at a time: the memory of the process is that of all of them.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The memory that this process holds, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Sends the flood without reading, and meanwhile asks as somebody else. Gives whether the server took it all.
async fn withstands(server: &TestServer, connection: &mut Connection, flood: &[u8]) -> bool {
    let before = resident();
    let others = async {
        for _ in 0..20 {
            let begun = Instant::now();
            let answer = server.exchange(request("GET", "/", &[], "")).await;
            assert_eq!(answer.status, 200);
            assert!(begun.elapsed() < Duration::from_secs(4), "others wait for {:?}", begun.elapsed());
        }
    };
    let (taken, ()) = tokio::join!(connection.flood(flood), others);
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB more", grown >> 20);
    taken
}

/// Short enough for a test: what does not read is cut after a second.
fn impatient() -> Limits {
    Limits { write_stall_timeout: Duration::from_secs(1), ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_the_connection() {
    let _alone = ALONE.lock().await;
    let server = start();
    let mut connection = Connection::open(&server).await;
    let flood: Vec<u8> = (0..20_000).flat_map(|number| [get_of(2 * number + 1, "/never"), reset(2 * number + 1, CANCEL)].concat()).collect();
    withstands(&server, &mut connection, &flood).await;
    connection.read_to_end().await;
    assert!(server.log().len() < 5_000, "{} requests were begun", server.log().len());
    serves_others(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_that_the_server_is_brought_to_end_the_connection() {
    let _alone = ALONE.lock().await;
    // CVE-2025-8671: the server resets what it has begun, because of an error of the client.
    let server = start();
    let mut connection = Connection::open(&server).await;
    let provoke = |stream: u32| [post_of(stream, &[("content-length", "1")]), data(stream, flag::END_STREAM, "test")].concat();
    let flood: Vec<u8> = (0..20_000).flat_map(|number| provoke(2 * number + 1)).collect();
    withstands(&server, &mut connection, &flood).await;
    let said = connection.read_to_end().await;
    let resets = said.iter().filter(|said| matches!(said, Said::Reset { .. })).count();
    assert!(resets <= 1_024 + 1, "{resets} resets");
    serves_others(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_of_fields_that_does_not_end_ends_the_connection() {
    let _alone = ALONE.lock().await;
    let server = start();
    for piece in [block(&[("a", "b")]).repeat(1_000), Vec::new()] {
        let mut connection = Connection::open(&server).await;
        let begun = frame(kind::HEADERS, flag::END_STREAM, 1, block(&pseudo("GET", "/")));
        let flood = [begun, frame(kind::CONTINUATION, flag::NONE, 1, piece).repeat(20_000)].concat();
        let taken = withstands(&server, &mut connection, &flood).await;
        let said = connection.read_to_end().await;
        assert!(!taken || said.iter().any(|said| matches!(said, Said::GoAway { .. })), "{said:?}");
    }
    assert!(server.log().iter().all(|line| line["status"] == 200), "none of it was a request");
    serves_others(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_fields_that_is_too_large_is_refused_even_when_it_is_small_on_the_wire() {
    let _alone = ALONE.lock().await;
    let server = start();
    // 4 KB, put into the table once and named 200 times by a byte each; then so often that it is meant to hurt.
    let bomb = |times: usize| {
        let value = "y".repeat(3_900);
        let entry = [&[0x40, 1, b'x', 0x7f], [0xbd, 0x1d].as_slice(), value.as_bytes()].concat();
        frame(kind::HEADERS, flag::WHOLE, 1, [block(&pseudo("GET", "/")), entry, vec![0xbe; times]].concat())
    };
    let mut connection = Connection::open(&server).await;
    connection.send(bomb(5)).await;
    assert_eq!(connection.fate(1).await, Said::Headers { stream: 1, status: 431 });
    connection.serves(3).await;
    let before = resident();
    for _ in 0..20 {
        let mut connection = Connection::open(&server).await;
        connection.send(bomb(10_000)).await;
        let said = connection.fate(1).await;
        assert!(matches!(said, Said::Headers { status: 431, .. } | Said::Reset { .. } | Said::GoAway { .. }), "{said:?}");
    }
    assert!(resident().saturating_sub(before) < GROWTH_BYTES_MAX);
    serves_others(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_pings_that_are_never_read_end_the_connection_and_gather_nowhere() {
    let _alone = ALONE.lock().await;
    for one in [settings(&[(3, 100)]), frame(kind::PING, flag::NONE, 0, [0; 8])] {
        let server = start_with(impatient());
        let mut connection = Connection::open(&server).await;
        // Their acknowledgements are more than the kernels hold between us.
        let taken = withstands(&server, &mut connection, &one.repeat(2_000_000)).await;
        assert!(!taken, "somebody holds two million acknowledgements");
        while connection.next().await != Said::Closed {}
        serves_others(&server).await;
    }
}

/// What becomes of a request with a body after a flood of this frame.
async fn behind(server: &TestServer, useless: &[u8]) -> Said {
    let mut connection = Connection::open(server).await;
    connection.send([get_of(1, "/never"), post_of(3, &[])].concat()).await;
    withstands(server, &mut connection, &useless.repeat(200_000)).await;
    connection.send(data(3, flag::END_STREAM, "test")).await;
    connection.fate(3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data_ends_the_connection() {
    let _alone = ALONE.lock().await;
    let server = start();
    for empty in [data(3, flag::NONE, []), data(3, flag::PADDED, [0])] {
        assert_eq!(behind(&server, &empty).await, Said::GoAway { code: ENHANCE_YOUR_CALM });
    }
    serves_others(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_effect_gather_nowhere() {
    let _alone = ALONE.lock().await;
    let server = start();
    for useless in [frame(kind::PRIORITY, flag::NONE, 1, [0, 0, 0, 0, 15]), frame(kind::UNKNOWN, flag::NONE, 0, "nothing"), window_update(1, 1)] {
        assert_eq!(behind(&server, &useless).await, Said::Headers { stream: 3, status: 200 }, "{useless:?}");
    }
    serves_others(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_again_and_again_are_an_error() {
    let _alone = ALONE.lock().await;
    let server = start();
    let mut connection = Connection::open(&server).await;
    let trailers = frame(kind::HEADERS, flag::END_HEADERS, 1, block(&[("x-sum", "1")]));
    withstands(&server, &mut connection, &[post_of(1, &[]), trailers.repeat(100_000)].concat()).await;
    let said = connection.until(|said| matches!(said, Said::Reset { .. })).await;
    assert!(matches!(said, Said::Reset { stream: 1, code: PROTOCOL_ERROR } | Said::GoAway { .. } | Said::Closed), "{said:?}");
    serves_others(&server).await;
}
