//! Compression by zstd, brotli or gzip, as `Accept-Encoding` has it (RFC 9110, 12.5.3): bodies over 1,024 bytes, of types that shrink.
//!
//! `x-no-compression` opts out. Answers that hold a secret ([`Never`]) are not compressed: next to input that an attacker chooses, their length would
//! tell the secret (BREACH).

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use futures_util::future::Either;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{Compression, ResponseFuture};

const X_NO_COMPRESSION: HeaderName = HeaderName::from_static("x-no-compression");
/// Up to this a body fits into a packet as it is: nothing is gained by making it smaller.
const PLAIN_BYTES_MAX: u64 = 1024;

/// Marks an answer, in its extensions, that must not be compressed because it holds a secret.
#[derive(Debug, Clone, Copy)]
pub struct Never;

/// The layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compress;

impl<S: Clone> Layer<S> for Compress {
    type Service = Compressing<S>;
    fn layer(&self, inner: S) -> Compressing<S> {
        Compressing { plain: inner.clone(), compressed: Compression::new(inner).compress_when(Worthwhile) }
    }
}

/// The service of [`Compress`].
#[derive(Clone)]
pub struct Compressing<S> {
    plain: S,
    compressed: Compression<S, Worthwhile>,
}

impl<S: fmt::Debug> fmt::Debug for Compressing<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressing").field("inner", &self.plain).finish()
    }
}

impl<S> Service<Request<Body>> for Compressing<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = CompressFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.plain.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match coding(request.headers()) {
            None => Either::Left(self.plain.call(request)),
            Some(coding) => {
                // One coding, chosen here: the library answers 406 to `identity;q=0`, and a 406 helps nobody.
                request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding));
                let head = (request.method() == Method::HEAD).then_some(coding);
                Either::Right(Smaller { future: self.compressed.call(request), head })
            }
        }
    }
}

/// The best coding that the client accepts; among equals the one that costs us least for what it gains.
fn coding(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(X_NO_COMPRESSION) {
        return None;
    }
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    let quality = |name: &str| -> f32 {
        let mut any = 0.0;
        for item in accepted.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let (coding, weight) = (parts.next().unwrap_or_default(), parts.find_map(|part| part.strip_prefix("q=")));
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if coding.eq_ignore_ascii_case(name) {
                return weight;
            }
            if coding == "*" {
                any = weight;
            }
        }
        any
    };
    let mut best = None;
    for name in ["zstd", "br", "gzip"] {
        let weight = quality(name);
        if weight > 0.0 && best.is_none_or(|(_, most)| weight > most) {
            best = Some((name, weight));
        }
    }
    best.map(|(name, _)| name)
}

/// Which answers are compressed.
#[derive(Debug, Clone, Copy)]
pub struct Worthwhile;

impl Predicate for Worthwhile {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        // `SizeAbove` means from this size on.
        shrinks(response) && SizeAbove::new(PLAIN_BYTES_MAX + 1).should_compress(response)
    }
}

/// Is it of a type that shrinks, and no secret?
fn shrinks<B: http_body::Body>(response: &http::Response<B>) -> bool {
    let types = NotForContentType::IMAGES.and(NotForContentType::GRPC).and(NotForContentType::SSE);
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let svg = media.starts_with("image/svg");
    let packed = ["font/", "video/", "audio/", "application/zip", "application/gzip", "application/zstd", "application/octet-stream"];
    let shrinks = svg || (!media.is_empty() && !packed.iter().any(|prefix| media.starts_with(prefix)) && types.should_compress(response));
    shrinks && response.extensions().get::<Never>().is_none()
}

/// Gives the answer to HEAD the fields of GET: its coding, and no length, because that is known only after compressing (RFC 9110, 8.6 forbids any other).
fn describe_get(response: &mut Response, coding: &'static str) {
    let headers = response.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let as_it_is = headers.contains_key(header::CONTENT_ENCODING) || headers.contains_key(header::CONTENT_RANGE);
    if !as_it_is && length.is_none_or(|bytes| bytes > PLAIN_BYTES_MAX) && shrinks(response) {
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// An answer that is on its way, perhaps smaller than it was.
pub type CompressFuture<F> = Either<F, Smaller<F>>;

pin_project! {
    /// An answer that is compressed if that is worthwhile.
    pub struct Smaller<F> {
        #[pin]
        future: ResponseFuture<F, Worthwhile>,
        head: Option<&'static str>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Smaller<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.future.poll(task));
        let mut response = response.map(Body::new);
        if let Some(coding) = *this.head {
            describe_get(&mut response, coding);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &'static str) -> Option<&'static str> {
        coding(&[(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))].into_iter().collect())
    }

    #[test]
    fn the_clients_weights_decide_and_then_ours() {
        assert_eq!(chosen("gzip, deflate, br, zstd"), Some("zstd"));
        assert_eq!(chosen("gzip, br"), Some("br"));
        assert_eq!(chosen("gzip;q=1.0, br;q=0.5"), Some("gzip"));
        assert_eq!(chosen("*"), Some("zstd"));
        assert_eq!(chosen("zstd;q=0, *"), Some("br"));
        assert_eq!(chosen("GZIP"), Some("gzip"));
        assert_eq!(chosen("gzip;q=nonsense"), None);
        assert_eq!(chosen("identity;q=0"), None);
        assert_eq!(chosen(""), None);
        let opted_out = [(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip")), (X_NO_COMPRESSION, HeaderValue::from_static("1"))];
        assert_eq!(coding(&opted_out.into_iter().collect()), None);
    }
}
