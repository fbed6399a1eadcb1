//! A connection to one server, and what it means when there is none.

use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::address::{Address, Place};
use super::measure::Measured;

/// A connection that all requests share. It ends with its last copy, also when an answer never comes.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) connection: MultiplexedConnection,
    _driver: Arc<Driver>,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Line {
    /// Connects, and signs in.
    pub(super) async fn connect(place: &Place, address: &Address) -> Result<Self, String> {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await.map_err(|error| why_not(&error, &place.host))?;
        // Without it an answer waits for the one before.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &address.tls else { return Self::over(stream, place, address).await };
        let name = ServerName::try_from(place.host.clone()).map_err(|_| format!("`{}` is no name that a certificate can have", place.host))?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(|error| why_not(&error, &place.host))?;
        Self::over(stream, place, address).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, place: &Place, address: &Address) -> Result<Self, String> {
        // The waits are ours: theirs would be one timer more for each question.
        let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connecting = MultiplexedConnection::new_with_config(&address.account, Measured::new(stream), settings);
        let (connection, driver) = connecting.await.map_err(|error| words(&error, &place.host))?;
        Ok(Self { connection, _driver: Arc::new(Driver(tokio::spawn(driver))) })
    }
}

/// What an error is, without anything that somebody typed.
pub(super) fn words(error: &RedisError, host: &str) -> String {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return "the user or the password in REDIS_URL is not the right one, or the server has none".to_owned();
    }
    // The library keeps what the connection said behind a pointer of its own.
    let cause = error.source().and_then(|cause| cause.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    if let Some(error) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        return why_not(error, host);
    }
    match error.code() {
        Some("MOVED" | "ASK" | "CROSSSLOT") => "this is a node of a cluster: name several of its nodes in REDIS_URL".to_owned(),
        Some("NOAUTH") => "it asks for a password, and REDIS_URL has none (NOAUTH)".to_owned(),
        Some("NOPERM") => "the user in REDIS_URL may not do what is needed: EVAL, EVALSHA and the commands in them (NOPERM)".to_owned(),
        Some("READONLY") => "it is a replica, which does not count (READONLY)".to_owned(),
        Some("OOM") => "it is full (OOM)".to_owned(),
        Some("LOADING") => "it has started and still reads its data (LOADING)".to_owned(),
        Some("BUSY") => "it is busy with somebody's script (BUSY)".to_owned(),
        Some("CLUSTERDOWN") => "the cluster has lost a part of itself (CLUSTERDOWN)".to_owned(),
        Some(code) => format!("{} ({code})", error.category()),
        None => error.category().to_owned(),
    }
}

fn why_not(error: &io::Error, host: &str) -> String {
    if let Some(error) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        return why_no_tls(error, host);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        // A server with TLS ends what does not begin with it, and one without says something else.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            "the connection broke".to_owned()
        }
        _ => error.to_string(),
    }
}

fn why_no_tls(error: &rustls::Error, host: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => {
                "its certificate is of an authority that is not believed here: name the right one in REDIS_CA_FILE".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!("its certificate is not for `{host}`"),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".to_owned(),
            other => format!("its certificate cannot be believed: {other}"),
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it asks for a certificate of ours: name one in REDIS_CERT_FILE and REDIS_KEY_FILE".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("it ended TLS: {alert:?}"),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        other => format!("no TLS: {other}"),
    }
}
