//! What several layers need of a request, worked out once at the door and handed on.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::client::ClientKey;
use crate::error::Form;
use crate::routes::Match;

/// The header under which a request's id comes in and goes out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request's id: the caller's if it is well formed, else our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id from `x-request-id` (1 to 128 letters, digits, `-`, `_`, `.`), else the trace id of `traceparent` (W3C Trace Context, 3.2), else `fresh`.
    pub fn from_headers(headers: &HeaderMap, fresh: impl FnOnce() -> u128) -> Self {
        if let Some(given) = headers.get(REQUEST_ID).filter(|id| well_formed(id.as_bytes())) {
            return Self(given.clone());
        }
        if let Some(trace) = headers.get(TRACEPARENT).and_then(|value| trace_id(value.as_bytes())) {
            return Self(HeaderValue::from_bytes(trace).unwrap_or(HeaderValue::from_static("-")));
        }
        let mut text = [0; 32];
        Uuid::from_u128(fresh()).simple().encode_lower(&mut text);
        Self(HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text)).unwrap_or(HeaderValue::from_static("-")))
    }

    /// The id as it is logged.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }

    /// The id as it is sent.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn well_formed(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The trace id of `00-<32 hex>-<16 hex>-<2 hex>`, unless it is all zeros.
fn trace_id(value: &[u8]) -> Option<&[u8]> {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = version.len() == 2 && trace.len() == 32 && parent.len() == 16 && flags.len() == 2;
    let valid = lengths && hex(version) && hex(trace) && hex(parent) && hex(flags) && version != b"ff" && trace.iter().any(|byte| *byte != b'0');
    valid.then_some(trace)
}

/// A request's facts. One allocation, shared by the layers and the extractors.
#[derive(Debug)]
pub struct Context {
    /// The id.
    pub id: RequestId,
    /// When the head was complete.
    pub started: Instant,
    /// The client's address: the peer's, or the one a trusted proxy vouches for.
    pub client: IpAddr,
    /// What the table of routes says of the target.
    pub route: Match,
    /// The form that errors take for this client.
    pub form: Form,
    deadline: OnceLock<Instant>,
    account: OnceLock<Uuid>,
    headers: OnceLock<Arc<HeaderMap>>,
    headers_taken: AtomicBool,
}

impl Context {
    /// The facts of a request that begins now.
    pub fn new(id: RequestId, started: Instant, client: IpAddr, route: Match, form: Form) -> Self {
        Self {
            id,
            started,
            client,
            route,
            form,
            deadline: OnceLock::new(),
            account: OnceLock::new(),
            headers: OnceLock::new(),
            headers_taken: AtomicBool::new(false),
        }
    }

    /// When the answer must be on its way. Later waits, such as the one for a database connection, end there.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }

    /// Sets the deadline; the first one stands.
    pub fn set_deadline(&self, deadline: Instant) {
        let _ = self.deadline.set(deadline);
    }

    /// Offers the headers that every answer carries to whoever makes the answer.
    pub(crate) fn offer_headers(&self, headers: Arc<HeaderMap>) {
        let _ = self.headers.set(headers);
    }

    /// The headers offered, noting that an answer began with them.
    pub(crate) fn take_headers(&self) -> Option<&HeaderMap> {
        let headers = self.headers.get()?;
        self.headers_taken.store(true, Ordering::Relaxed);
        Some(headers)
    }

    /// Did an answer begin with the headers offered?
    pub(crate) fn headers_taken(&self) -> bool {
        self.headers_taken.load(Ordering::Relaxed)
    }

    /// Who is asking, once that is known, for the log.
    pub fn account(&self) -> Option<Uuid> {
        self.account.get().copied()
    }

    /// Notes who is asking.
    pub fn set_account(&self, account: Uuid) {
        let _ = self.account.set(account);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Context>>> = const { RefCell::new(None) };
}

/// Runs `work` as part of the request: log lines written meanwhile carry its id.
pub fn during<T>(context: &Arc<Context>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<Context>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with(|current| *current.borrow_mut() = self.0.take());
        }
    }
    let _restore = Restore(CURRENT.with(|current| current.borrow_mut().replace(context.clone())));
    work()
}

/// The request that this thread works on at the moment.
pub fn current() -> Option<Arc<Context>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// The client of that request: whose turn it is where turns are taken.
pub fn client() -> Option<ClientKey> {
    current().map(|context| context.client.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pairs: &[(&'static str, &'static str)]) -> String {
        let headers = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        RequestId::from_headers(&headers, || 0xabc).as_str().to_owned()
    }

    #[test]
    fn a_well_formed_id_is_kept_and_any_other_replaced() {
        let fresh = format!("{:032x}", 0xabc);
        assert_eq!(id(&[("x-request-id", "deploy-7.a_b")]), "deploy-7.a_b");
        for wrong in ["", "a b", "a\"b", "a;b", "<script>"] {
            let headers = [(REQUEST_ID, HeaderValue::from_str(wrong).unwrap())].into_iter().collect();
            assert_eq!(RequestId::from_headers(&headers, || 0xabc).as_str(), fresh, "{wrong}");
        }
        let long = [(REQUEST_ID, HeaderValue::from_str(&"a".repeat(129)).unwrap())].into_iter().collect();
        assert_eq!(RequestId::from_headers(&long, || 0xabc).as_str(), fresh);
    }

    #[test]
    fn a_trace_gives_its_id() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(id(&[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]), trace);
        assert_eq!(id(&[("x-request-id", "mine"), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]), "mine");
        for wrong in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-short-00f067aa0ba902b7-01",
            "-",
            "",
        ] {
            let headers = [(TRACEPARENT, HeaderValue::from_str(wrong).unwrap())].into_iter().collect();
            assert_eq!(RequestId::from_headers(&headers, || 0xabc).as_str(), format!("{:032x}", 0xabc), "{wrong}");
        }
    }
}
