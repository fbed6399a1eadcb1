//! What anybody may ask for about an address: an account, a link to prove it, a way to a new password. Done out of sight.
//!
//! The request only writes down what was asked, the same for an address that has an account and for one that has none, and answers. What is to be done is found
//! out by a job afterwards and told by mail. So neither the answer nor its time tells anything, and nothing has to be made to look alike.

use std::time::{Duration, Instant};

use mainstay::auth::{AccountKey, Asker};
use mainstay::clock::Clock;
use mainstay::error::{Error, Result};
use mainstay::jobs::{Enqueued, Failure, Job, Kinds, Running, enqueue};
use mainstay::stack::rate_limit::{Quota, Together};
use mainstay::store::{Database, Session};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{self, Actor, Entry, actions};
use crate::mail::{self, Letter, To};
use crate::one_time::registrations::{self, Registration};
use crate::one_time::{self, Purpose};
use crate::sessions::Device;
use crate::users::{self, Email, NewAccount};

/// The kind of these jobs.
pub const KIND: &str = "errand";
/// An hour or so: whoever waits longer for a letter asks again.
const ATTEMPTS_MAX: i64 = 12;
/// A few statements.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Letters that strangers can make the service write to one mailbox within an hour: who does not find the third one does not find the sixth.
const LETTERS_MAX: u32 = 5;
const LETTERS_WINDOW: Duration = Duration::from_secs(60 * 60);

/// What is asked for.
#[derive(Serialize, Deserialize)]
#[serde(tag = "errand", rename_all = "snake_case")]
enum Errand {
    Register { name: String, password_hash: String },
    Verify,
    Reset,
}

/// What a job of this kind holds.
#[derive(Serialize, Deserialize)]
struct Order {
    email: String,
    device: Device,
    #[serde(flatten)]
    errand: Errand,
}

/// What everybody is told, whatever becomes of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// In words, for people.
    #[schema(max_length = 200, example = "If it can be done, a letter is on its way")]
    message: String,
}

impl Accepted {
    /// The words.
    pub fn said() -> Self {
        Self { message: "If it can be done, a letter is on its way".to_owned() }
    }
}

/// Letters to one mailbox that strangers caused.
#[must_use]
pub fn quota(together: Option<Together>) -> Quota<AccountKey> {
    Quota::new("letters", LETTERS_MAX, LETTERS_WINDOW).together(together)
}

/// May one more letter be caused to this mailbox?
pub async fn may_write(app: &App, email: &Email) -> bool {
    let may = app.letters.count(AccountKey::of(email.folded()), Instant::now()).await.is_ok();
    if !may {
        metrics::counter!("mainstay_letters_refused_total").increment(1);
    }
    may
}

/// Asks for an account, which comes into being when its address is proven.
///
/// # Errors
/// When too many hash passwords or wait, and what the database can meet.
pub async fn register(app: &App, account: NewAccount, device: Device) -> Result<()> {
    // Before the quota is asked, so that the time tells nothing of it either.
    let password_hash = app.passwords.hash(account.password, Asker::Stranger(mainstay::context::client())).await?;
    ask(app, &account.email, device, Errand::Register { name: account.name.as_str().to_owned(), password_hash }).await
}

/// Asks for another link to prove an address.
///
/// # Errors
/// When too many jobs wait, and what the database can meet.
pub async fn verify(app: &App, email: &Email, device: Device) -> Result<()> {
    ask(app, email, device, Errand::Verify).await
}

/// Asks for a way to a new password.
///
/// # Errors
/// When too many jobs wait, and what the database can meet.
pub async fn reset(app: &App, email: &Email, device: Device) -> Result<()> {
    ask(app, email, device, Errand::Reset).await
}

async fn ask(app: &App, email: &Email, device: Device, errand: Errand) -> Result<()> {
    if !may_write(app, email).await {
        // Said to nobody: it would tell that somebody else asked.
        return Ok(());
    }
    let job = Job::new(KIND, &Order { email: email.given().to_owned(), device, errand })?.secret();
    let (database, now, deadline) = (app.database.clone(), app.clock().now(), app.deadline());
    let write = async move {
        let mut transaction = database.begin(deadline).await?;
        enqueue(&mut transaction, &job, now).await?;
        Ok::<_, Error>(transaction.commit().await?)
    };
    app.writes.finish(write).await
}

/// The kinds of jobs with this one.
#[must_use]
pub fn add_to(kinds: Kinds, database: Database, clock: Clock) -> Kinds {
    kinds.on(KIND, ATTEMPTS_MAX, TIMEOUT, move |running| {
        let (database, clock) = (database.clone(), clock.clone());
        async move { run(&database, &clock, &running).await }
    })
}

async fn run(database: &Database, clock: &Clock, running: &Running) -> Result<(), Failure> {
    let Order { email, device, errand } = running.payload()?;
    let email = Email::parse(&email).map_err(|_| Failure::never("the address is none"))?;
    let mut transaction = database.begin(None).await.map_err(Error::from)?;
    let errand = Work { session: &mut transaction, email: &email, device: &device, event: running.id(), now: clock.now() }.run(errand).await?;
    // A letter of this job that is there already was committed with everything else by a try that nobody heard of again.
    match errand {
        Some(Enqueued::Already) => transaction.rollback().await.map_err(Error::from)?,
        _ => transaction.commit().await.map_err(Error::from)?,
    }
    Ok(())
}

/// One errand in its transaction.
struct Work<'a> {
    session: &'a mut Session,
    email: &'a Email,
    device: &'a Device,
    event: Uuid,
    now: jiff::Timestamp,
}

impl Work<'_> {
    async fn run(&mut self, errand: Errand) -> Result<Option<Enqueued>> {
        match errand {
            Errand::Register { name, password_hash } => self.register(name, password_hash).await,
            Errand::Verify => self.verify().await,
            Errand::Reset => self.reset().await,
        }
    }

    async fn register(&mut self, name: String, password_hash: String) -> Result<Option<Enqueued>> {
        if let Some(user) = users::sql::lock_by_email(self.session, self.email).await? {
            let entry = Entry::new(Actor::Stranger, actions::USER_REGISTERED_TWICE).about(user.id).from(self.device);
            audit::record(self.session, entry, self.now).await?;
            return self.send(&To::address(&user.email), &Letter::AccountExists).await.map(Some);
        }
        let registration = Registration { email: self.email.given().to_owned(), name, password_hash };
        let token = registrations::keep(self.session, &registration, self.email, self.now, &SystemRandom::new()).await?;
        self.send(&To::address(self.email.given()), &Letter::VerifyAddress { token }).await.map(Some)
    }

    async fn verify(&mut self) -> Result<Option<Enqueued>> {
        if let Some(user) = users::sql::lock_by_email(self.session, self.email).await? {
            if user.verified || user.disabled {
                return Ok(None);
            }
            let token = one_time::issue(self.session, user.id, Purpose::VerifyAddress, None, self.now, &SystemRandom::new()).await?;
            return self.send(&To::address(&user.email), &Letter::VerifyAddress { token }).await.map(Some);
        }
        let Some(token) = registrations::renew(self.session, self.email, self.now, &SystemRandom::new()).await? else { return Ok(None) };
        self.send(&To::address(self.email.given()), &Letter::VerifyAddress { token }).await.map(Some)
    }

    async fn reset(&mut self) -> Result<Option<Enqueued>> {
        let user = users::sql::lock_by_email(self.session, self.email).await?;
        let Some(user) = user.filter(|user| !user.disabled) else { return Ok(None) };
        let token = one_time::issue(self.session, user.id, Purpose::ResetPassword, None, self.now, &SystemRandom::new()).await?;
        let entry = Entry::new(Actor::Stranger, actions::PASSWORD_RESET_REQUESTED).about(user.id).from(self.device);
        audit::record(self.session, entry, self.now).await?;
        self.send(&To::person(&user.email, &user.name), &Letter::ResetPassword { token }).await.map(Some)
    }

    /// One letter of one errand, however often it is tried.
    async fn send(&mut self, to: &To, letter: &Letter) -> Result<Enqueued> {
        mail::send(self.session, to, letter, &self.event.to_string(), self.now).await
    }
}
