//! A transport in front of a small service, and how a client reads what it says.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use mainstay::serve::{Drain, Limits, Peer, Plain, Report, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than any test should need: what is not there by then never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// A transport in front of a small service that counts what reaches it.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) drain: Drain,
    task: JoinHandle<Report>,
    hits: Arc<Hits>,
}

/// How often each path was asked for.
#[derive(Default)]
struct Hits {
    counts: Mutex<HashMap<String, usize>>,
    more: Notify,
}

impl Server {
    pub(crate) fn start(limits: Limits) -> Server {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (drain, hits) = (Drain::new(), Arc::<Hits>::default());
        let counted = Arc::clone(&hits);
        let service = tower::service_fn(move |request: Request<Body>| {
            let counted = Arc::clone(&counted);
            async move { Ok::<_, Infallible>(respond(request, &counted).await) }
        });
        let task = tokio::spawn(serve(listener, Plain(service), limits, drain.clone()));
        Server { addr, drain, task, hits }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    pub(crate) fn hits(&self, path: &str) -> usize {
        self.hits.counts.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// Waits until this path has been asked for.
    pub(crate) async fn reached(&self, path: &str) {
        let asked = async {
            loop {
                // Before the look, so that none comes in between.
                let more = self.hits.more.notified();
                if self.hits(path) > 0 {
                    return;
                }
                more.await;
            }
        };
        timeout(PATIENCE, asked).await.expect("a request for it");
    }

    /// Sends `bytes` and reads until the server closes.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // A server that has refused already may have closed.
        let _ = stream.write_all(bytes).await;
        to_end(&mut stream).await
    }

    pub(crate) async fn end(self, grace: Duration) -> Report {
        self.drain.begin(grace);
        timeout(PATIENCE, self.task).await.expect("the drain ends").unwrap()
    }
}

async fn respond(request: Request<Body>, hits: &Hits) -> Response<Body> {
    let peer = *request.extensions().get::<Peer>().expect("every request has its peer");
    if let Some(fault) = peer.fault {
        let body = format!("{{\"code\":\"{}\"}}", fault.code);
        return Response::builder().status(fault.status).header("x-request-id", "1").body(body.into()).unwrap();
    }
    let path = request.uri().path().to_owned();
    *hits.counts.lock().unwrap().entry(path.clone()).or_insert(0) += 1;
    hits.more.notify_waiters();
    match path.as_str() {
        "/echo" => match request.into_body().collect().await {
            Ok(body) => Response::new(Body::from(body.to_bytes())),
            Err(_) => answer(StatusCode::BAD_REQUEST, "bad body"),
        },
        "/measure" => {
            let (mut body, mut length) = (request.into_body(), 0);
            // Each piece is let go before the next one comes, so that the memory in which it was read serves again, and grows.
            while let Some(piece) = body.frame().await {
                length += piece.ok().and_then(|piece| piece.into_data().ok()).map_or(0, |piece| piece.len());
            }
            Response::new(length.to_string().into())
        }
        "/ignore" => answer(StatusCode::PAYLOAD_TOO_LARGE, "too large"),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(600)).await;
            answer(StatusCode::OK, "slow")
        }
        "/slower" => {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            answer(StatusCode::OK, "slower")
        }
        "/long" => Response::new(Body::from(vec![b'x'; 200_000])),
        "/never" => std::future::pending().await,
        "/endless" => {
            Response::new(Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 * 1024])))))
        }
        "/empty-400" => answer(StatusCode::BAD_REQUEST, ""),
        _ => answer(StatusCode::OK, "fine"),
    }
}

fn answer(status: StatusCode, text: &'static str) -> Response<Body> {
    Response::builder().status(status).body(text.into()).unwrap()
}

/// Everything until the server closes; a reset counts as an end.
pub(crate) async fn to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut piece = [0; 16 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut piece).await {
            all.extend_from_slice(&piece[..n]);
        }
    };
    timeout(PATIENCE, read).await.expect("the server closes the connection");
    String::from_utf8_lossy(&all).into_owned()
}

/// One answer with a `content-length`.
pub(crate) async fn one_answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = async {
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("an answer, not an end");
            all.push(byte[0]);
            if all.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = String::from_utf8_lossy(&all).into_owned();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        head + &String::from_utf8_lossy(&body)
    };
    timeout(PATIENCE, read).await.expect("an answer in time")
}

/// How long it takes until the server closes, reading as it goes.
pub(crate) async fn closed_after(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    to_end(stream).await;
    begun.elapsed()
}

/// Limits short enough for a test: 300 ms for what takes ten seconds.
pub(crate) fn short() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(1200),
        idle_timeout_fresh: Duration::from_millis(300),
        write_stall_timeout: Duration::from_millis(300),
        linger_timeout: Duration::from_millis(500),
        ..Limits::default()
    }
}

pub(crate) const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
pub(crate) const SECOND: &str = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";
