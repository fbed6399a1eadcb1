//! The dialogue with a mail server (RFC 5321), one step at a time, because it matters where it breaks: before the message is handed over nothing was sent and it
//! may be tried again; once it is being handed over, only the server's answer says.
//!
//! No step waits without a bound. Connections are kept for the next mail, a few, for a short time.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use mainstay::jobs::{Failure, Running};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::message::Composed;

/// For a step before the message. RFC 5321, 4.5.3.2 allows servers 5 minutes, for links of 1989; a server that takes longer than this is tried again later.
const STEP: Duration = Duration::from_secs(30);
/// For the answer to the message itself, which servers scan before they give it. Ending this wait leaves the outcome unknown, so it is as long as a mail may
/// take; 4.5.3.2.6 says 10 minutes.
const ANSWER: Duration = Duration::from_secs(5 * 60);
/// Kept connections: as many as mails are usually under way.
const IDLE_MAX: usize = 2;
/// Servers drop silent clients after 5 minutes at the earliest; a burst of mails comes closer together than this.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all: the server is on this machine.
    Plain,
    /// By an upgrade that the server must offer (RFC 3207).
    StartTls,
    /// From its first byte (RFC 8314).
    Tls,
}

/// A mail server, from `SMTP_URL`.
#[derive(Clone)]
pub struct Server {
    /// Its name, which its certificate must bear.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    credentials: Option<(String, SecretString)>,
}

impl Server {
    /// Reads `smtp://user:password@host:587` or `smtps://user:password@host:465`.
    ///
    /// # Errors
    /// What is wrong, in words that follow the setting's name and do not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (rest, tls, port) = match (url.strip_prefix("smtp://"), url.strip_prefix("smtps://")) {
            (Some(rest), _) => (rest, false, 587),
            (_, Some(rest)) => (rest, true, 465),
            _ => return Err("must begin with `smtp://` or `smtps://`".to_owned()),
        };
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let place = place.trim_end_matches('/');
        let (host, port) = match place.rsplit_once(':') {
            Some((host, number)) if !number.contains(']') => {
                (host, number.parse().map_err(|_| "has a port that is no number up to 65535".to_owned())?)
            }
            _ => (place, port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:_".contains(c)) {
            return Err("names no host, or has something behind it: write `smtp://user:password@host:587`".to_owned());
        }
        let decode =
            |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| "has credentials that are not UTF-8".to_owned());
        let credentials = match user {
            Some(user) => {
                let (name, password) = user.split_once(':').ok_or("has a user without a password")?;
                Some((decode(name)?, decode(password)?.into()))
            }
            None => None,
        };
        let loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let security = match (tls, loopback) {
            (true, _) => Security::Tls,
            (false, true) => Security::Plain,
            (false, false) => Security::StartTls,
        };
        Ok(Self { host: host.to_owned(), port, security, credentials })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("host", &self.host).field("port", &self.port).field("security", &self.security).finish_non_exhaustive()
    }
}

/// The way to a mail server.
pub(super) struct Smtp {
    server: Server,
    hello: ClientId,
    tls: Option<TlsParameters>,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl Smtp {
    /// The way to `server` for a client of this domain.
    ///
    /// # Errors
    /// When the certificates of the system cannot be used, in words.
    pub(super) fn new(server: Server, domain: &str) -> Result<Self, String> {
        let tls = match server.security {
            Security::Plain => None,
            _ => Some(TlsParameters::new(server.host.clone()).map_err(|error| format!("TLS to {} is not possible: {error}", server.host))?),
        };
        Ok(Self { server, hello: ClientId::Domain(domain.to_owned()), tls, idle: Mutex::default() })
    }

    /// Hands a message over, at most once.
    pub(super) async fn send(&self, message: &Composed, running: &Running) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        self.address(&mut connection, message).await?;
        // Everything that can fail without harm has not failed.
        running.begin().await?;
        step(STEP, "DATA", connection.command(Data)).await?;
        let answer = tokio::time::timeout(ANSWER, connection.message(&message.bytes)).await;
        match answer {
            Ok(Ok(_)) => {
                self.keep(connection);
                Ok(())
            }
            // An answer is an answer: the server did not take it.
            Ok(Err(error)) if error.status().is_some() => Err(refused(&error, "the message")),
            _ => Err(Failure::unknown("the mail server did not say whether it took the message")),
        }
    }

    /// From whom, to whom.
    async fn address(&self, connection: &mut AsyncSmtpConnection, message: &Composed) -> Result<(), Failure> {
        let mut parameters = Vec::new();
        if !message.bytes.is_ascii() {
            // Only an address can be: what is written is encoded.
            let offers = |extension| connection.server_info().supports_feature(extension);
            if !offers(Extension::SmtpUtfEight) || !offers(Extension::EightBitMime) {
                return Err(Failure::never("the address needs SMTPUTF8, which the mail server does not offer"));
            }
            parameters = vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)];
        }
        step(STEP, "MAIL", connection.command(Mail::new(message.envelope.from().cloned(), parameters))).await?;
        for to in message.envelope.to() {
            step(STEP, "RCPT", connection.command(Rcpt::new(to.clone(), Vec::new()))).await?;
        }
        Ok(())
    }

    /// A connection that is ready for a mail: a kept one that still answers, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, Failure> {
        while let Some((mut connection, since)) = self.with_idle(Vec::pop) {
            let fresh = since.elapsed() < IDLE_FOR;
            if fresh && tokio::time::timeout(STEP, connection.test_connected()).await.is_ok_and(|answers| answers) {
                return Ok(connection);
            }
        }
        let Server { host, port, security, credentials } = &self.server;
        let at_once = self.tls.clone().filter(|_| *security == Security::Tls);
        let connecting = AsyncSmtpConnection::connect_tokio1((host.as_str(), *port), Some(STEP), &self.hello, at_once, None);
        let mut connection = step(STEP, "the connection", connecting).await.map_err(later)?;
        if let (Security::StartTls, Some(tls)) = (security, &self.tls) {
            step(STEP, "STARTTLS", connection.starttls(tls.clone(), &self.hello)).await.map_err(later)?;
        }
        if let Some((name, password)) = credentials {
            let credentials = Credentials::new(name.clone(), password.expose_secret().to_owned());
            step(STEP, "AUTH", connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials)).await.map_err(later)?;
        }
        Ok(connection)
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        self.with_idle(|idle| {
            idle.retain(|(_, since)| since.elapsed() < IDLE_FOR);
            if idle.len() < IDLE_MAX {
                idle.push((connection, Instant::now()));
            }
        });
    }

    fn with_idle<T>(&self, act: impl FnOnce(&mut Vec<(AsyncSmtpConnection, Instant)>) -> T) -> T {
        // A panic while the list is held leaves it whole: every change to it is one call.
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One step of the dialogue, in which nothing is sent yet.
async fn step<T>(patience: Duration, name: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(patience, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(refused(&error, name)),
        Err(_) => Err(Failure::again(format!("the mail server did not answer to {name} in time"))),
    }
}

/// What a server says against a mail: 4xx passes, 5xx stays (RFC 5321, 4.2.1). Its words are left out, because they quote the address.
fn refused(error: &Error, name: &str) -> Failure {
    match error.status() {
        Some(code) if error.is_permanent() => Failure::never(format!("the mail server answered {code} to {name}")),
        Some(code) => Failure::again(format!("the mail server answered {code} to {name}")),
        None if error.is_tls() => Failure::again(format!("TLS failed at {name}")),
        None if error.is_client() => Failure::again(format!("the mail server does not offer {name}, or not as it is needed")),
        None => Failure::again(format!("the connection to the mail server broke at {name}")),
    }
}

/// What is wrong with the way there, a password say, is the operator's to mend and no mail's fault.
fn later(failure: Failure) -> Failure {
    Failure::again(failure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_protection_and_credentials() {
        let server = Server::parse("smtp://ada%40example.com:p%3Aw%2Fd@mail.example.com").unwrap();
        assert_eq!((server.host.as_str(), server.port, server.security), ("mail.example.com", 587, Security::StartTls));
        let (name, password) = server.credentials.clone().unwrap();
        assert_eq!((name.as_str(), password.expose_secret()), ("ada@example.com", "p:w/d"));
        assert!(!format!("{server:?}").contains("p:w"));
        let implicit = Server::parse("smtps://mail.example.com:4650/").unwrap();
        assert_eq!((implicit.port, implicit.security), (4650, Security::Tls));
        for local in ["smtp://localhost:25", "smtp://127.0.0.1:25", "smtp://[::1]:25"] {
            let server = Server::parse(local).unwrap();
            assert_eq!((server.port, server.security), (25, Security::Plain), "{local}");
        }
        assert_eq!(Server::parse("smtp://[2001:db8::1]").unwrap().host, "2001:db8::1");
    }

    #[test]
    fn a_url_that_cannot_work_is_refused_in_words_without_it() {
        for url in [
            "mail.example.com",
            "http://hunter2@host",
            "smtp://",
            "smtp://u:hunter2@host:99999",
            "smtp://hunter2@host",
            "smtp://u:hunter2@ho st",
            "smtp://u:hunter2@host/x",
        ] {
            let words = Server::parse(url).unwrap_err();
            assert!(!words.contains("hunter2"), "{words}");
        }
    }

    #[tokio::test]
    async fn a_server_without_starttls_gets_no_password() {
        use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut server = Server::parse(&format!("smtp://ada:hunter2@{}", listener.local_addr().unwrap())).unwrap();
        server.security = Security::StartTls;
        let listening = tokio::spawn(async move {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let mut heard = String::new();
            stream.write_all(b"220 test ESMTP\r\n").await.unwrap();
            stream.read_line(&mut heard).await.unwrap();
            stream.write_all(b"250-test\r\n250 AUTH PLAIN\r\n").await.unwrap();
            stream.read_to_string(&mut heard).await.unwrap();
            heard
        });
        let failure = Smtp::new(server, "example.com").unwrap().connection().await.err().unwrap();
        assert_eq!(failure.to_string(), "the mail server does not offer STARTTLS, or not as it is needed");
        let heard = listening.await.unwrap();
        assert!(heard.starts_with("EHLO example.com\r\n") && !heard.contains("AUTH"), "{heard}");
    }
}
