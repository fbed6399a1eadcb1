//! Mails: queued in the transaction of what caused them, written from templates, and handed to a mail server or put into a folder.
//!
//! [`send`] writes a job; the handler of [`KIND`] composes the message and delivers it. Of one event there is one mail. Into the folder it comes exactly once.
//! To a mail server it goes at most once: a mail whose server never said whether it took it is `uncertain` and left to an operator
//! (docs/decisions/0013-a-mail-goes-at-most-once.md). Every try carries the same `Message-ID`, which is the job's id.

mod folder;
mod letter;
mod message;
pub mod read;
mod smtp;
mod words;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay::error::{Error, Result, codes};
use mainstay::jobs::{Enqueued, Failure, Job, Kinds, Running, enqueue};
use mainstay::store::Session;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::message::{Sender, compose};
use self::smtp::Smtp;
use crate::settings::Settings;

pub use folder::{Entry, Folder, KEPT_MAX};
pub use letter::{Letter, To, Token};
pub use smtp::{Security, Server};

/// The kind of the jobs that are mails.
pub const KIND: &str = "mail";

/// With the waits between them about five hours on average: longer than the maintenance of a mail server, and longer than most links live.
const ATTEMPTS_MAX: i64 = 18;
/// A try with every step at its limit ends before this.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// What a mail's job holds.
#[derive(Serialize, Deserialize)]
struct Order {
    to: To,
    #[serde(flatten)]
    letter: Letter,
}

/// Queues a letter in the caller's transaction. `event_key` names what happened, the id of a token or of a change say: the same event sends one mail, however
/// often this is called.
///
/// # Errors
/// [`codes::OVERLOADED`] when the queue is full, and what the database can meet.
pub async fn send(session: &mut Session, to: &To, letter: &Letter, event_key: &str, now: Timestamp) -> Result<Enqueued> {
    let order = Order { to: to.clone(), letter: letter.clone() };
    let job = Job::new(KIND, &order)?.once(format!("{}:{event_key}", letter.name()));
    let job = if letter.secret() { job.secret() } else { job };
    enqueue(session, &job, now).await
}

/// Delivers mails. Clones share it.
#[derive(Clone)]
pub struct Mailer(Arc<Inner>);

struct Inner {
    sender: Sender,
    public_url: String,
    transport: Transport,
    /// Does the log tell what a developer wants to see, links included?
    telling: bool,
}

enum Transport {
    Folder(Folder),
    Smtp(Smtp),
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mailer").field(&self.transport()).finish()
    }
}

impl Mailer {
    /// What the settings ask for: a mail server, or a folder.
    ///
    /// # Errors
    /// When TLS is not possible.
    pub fn new(settings: &Settings) -> Result<Self> {
        let internal = |words: String| Error::new(&codes::INTERNAL).with_message(words);
        let sender = Sender::parse(&settings.mail_from).map_err(|words| internal(format!("MAIL_FROM {words}")))?;
        let transport = match &settings.smtp_url {
            Some(url) => {
                let server = Server::parse(url.expose_secret()).map_err(|words| internal(format!("SMTP_URL {words}")))?;
                Transport::Smtp(Smtp::new(server, sender.domain()).map_err(internal)?)
            }
            None => Transport::Folder(Folder::new(&settings.mail_dir)),
        };
        Ok(Self(Arc::new(Inner { sender, public_url: settings.public_url.clone(), transport, telling: !settings.stack.production() })))
    }

    /// `smtp` or `folder`.
    pub fn transport(&self) -> &'static str {
        match self.0.transport {
            Transport::Folder(_) => "folder",
            Transport::Smtp(_) => "smtp",
        }
    }

    /// The kinds of jobs with the one that delivers mails.
    #[must_use]
    pub fn add_to(&self, kinds: Kinds) -> Kinds {
        let mailer = self.clone();
        kinds.on(KIND, ATTEMPTS_MAX, TIMEOUT, move |running| {
            let mailer = mailer.clone();
            async move { mailer.deliver(&running).await }
        })
    }

    async fn deliver(&self, running: &Running) -> Result<(), Failure> {
        let Order { to, letter } = running.payload()?;
        let inner = &self.0;
        let words = words::write(&letter, &to, inner.sender.service(), &inner.public_url);
        let message = compose(&words, &to.address, &inner.sender, running.id(), running.created_at())?;
        match &inner.transport {
            Transport::Smtp(smtp) => smtp.send(&message, running).await?,
            Transport::Folder(folder) => {
                let (folder, id, written_at) = (folder.clone(), running.id(), running.created_at());
                let put = tokio::task::spawn_blocking(move || folder.put(id, written_at, &message.bytes)).await;
                let failed = |error: std::io::Error| Failure::again(format!("the folder of mails cannot be written: {}", error.kind()));
                put.map_err(|_| Failure::again("the folder of mails cannot be written"))?.map_err(failed)?;
            }
        }
        if inner.telling {
            let link = words.link.as_ref().map_or("none", ExposeSecret::expose_secret);
            tracing::info!(letter = letter.name(), subject = words.subject, link, job = %running.id(), "mail sent");
        } else {
            tracing::info!(letter = letter.name(), job = %running.id(), "mail sent");
        }
        Ok(())
    }
}

/// The key of an event that somebody can make happen over and over: of one account there is one in ten minutes. The address of an account may not be its owner's,
/// and nobody's mailbox is to be flooded by us.
pub fn now_and_then(what: &str, account: Uuid, now: Timestamp) -> String {
    const SPAN_S: i64 = 10 * 60;
    format!("{what}:{account}:{}", now.as_second().div_euclid(SPAN_S))
}

/// What the service is called, by letters and elsewhere: the name in `MAIL_FROM`, or the domain of its address.
pub fn service_name(mail_from: &str) -> String {
    // Settings are checked at the start; a service without a name is still one.
    Sender::parse(mail_from).map_or_else(|_| "API".to_owned(), |sender| sender.service().to_owned())
}

/// Checks `MAIL_FROM`.
///
/// # Errors
/// What is wrong, in words that follow the setting's name.
pub fn check_sender(text: &str) -> Result<(), String> {
    Sender::parse(text).map(drop)
}
