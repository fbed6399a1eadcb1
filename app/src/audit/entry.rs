//! One entry of the audit trail, and how it is written.

use jiff::Timestamp;
use mainstay::auth::{Person, SignedIn, Via};
use mainstay::context;
use mainstay::error::{Error, Result, codes};
use mainstay::store::Session;
use serde_json::{Value, json};
use uuid::Uuid;

use super::sql;
use crate::sessions::Device;

/// A detail is a handful of words; what is longer belongs into a table of its own.
const DETAIL_BYTES_MAX: usize = 2048;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Somebody who is not signed in.
    Stranger,
    /// Somebody signed in to this account.
    Person(Uuid),
    /// A machine, by an API key; which one stands in the detail.
    Key {
        /// The account.
        account: Uuid,
        /// Its key.
        key: Uuid,
    },
    /// The service itself.
    System,
    /// An operator, by a command.
    CommandLine,
}

impl Actor {
    fn kind(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Person(_) => "person",
            Self::Key { .. } => "key",
            Self::System => "system",
            Self::CommandLine => "command_line",
        }
    }

    fn account(self) -> Option<Uuid> {
        match self {
            Self::Person(account) | Self::Key { account, .. } => Some(account),
            _ => None,
        }
    }
}

impl From<SignedIn> for Actor {
    fn from(caller: SignedIn) -> Self {
        match caller.via {
            Via::Session(_) => Self::Person(caller.account),
            Via::Key { id, .. } => Self::Key { account: caller.account, key: id },
        }
    }
}

impl From<Person> for Actor {
    fn from(caller: Person) -> Self {
        Self::Person(caller.account)
    }
}

/// What was done: two words of lower case letters with a dot between them. It never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(&'static str);

impl Action {
    /// An action of this name.
    ///
    /// # Panics
    /// At compile time, when the name has not the form.
    pub const fn new(name: &'static str) -> Self {
        assert!(formed(name.as_bytes()));
        Self(name)
    }

    /// Has this text the form of an action?
    pub(super) fn formed(text: &str) -> bool {
        formed(text.as_bytes())
    }
}

const fn formed(name: &[u8]) -> bool {
    let (mut rest, mut dots, mut letters) = (name, 0, 0);
    while let [first, others @ ..] = rest {
        match *first {
            b'.' if letters > 0 => {
                dots += 1;
                letters = 0;
            }
            b'a'..=b'z' | b'_' => letters += 1,
            _ => return false,
        }
        rest = others;
    }
    dots == 1 && letters > 0 && name.len() <= 64
}

/// The actions of accounts and sessions.
pub mod actions {
    use super::Action;

    /// Somebody opened an account.
    pub const USER_REGISTERED: Action = Action::new("user.registered");
    /// Somebody else opened an account for its owner.
    pub const USER_CREATED: Action = Action::new("user.created");
    /// A person's name was changed.
    pub const USER_RENAMED: Action = Action::new("user.renamed");
    /// What an account may do was changed.
    pub const USER_ROLE_CHANGED: Action = Action::new("user.role_changed");
    /// An account was removed.
    pub const USER_REMOVED: Action = Action::new("user.removed");
    /// Somebody tried to register with the address of this account.
    pub const USER_REGISTERED_TWICE: Action = Action::new("user.registered_twice");
    /// The owner of an account has shown that the address is his.
    pub const USER_VERIFIED: Action = Action::new("user.verified");
    /// An account was kept from signing in.
    pub const USER_DISABLED: Action = Action::new("user.disabled");
    /// An account may sign in again.
    pub const USER_ENABLED: Action = Action::new("user.enabled");
    /// A password was changed by whoever knew the one before.
    pub const PASSWORD_CHANGED: Action = Action::new("password.changed");
    /// Somebody asked for a way to a new password.
    pub const PASSWORD_RESET_REQUESTED: Action = Action::new("password.reset_requested");
    /// A password was set by whoever reads the mailbox.
    pub const PASSWORD_RESET: Action = Action::new("password.reset");
    /// Somebody asked for another address.
    pub const EMAIL_CHANGE_REQUESTED: Action = Action::new("email.change_requested");
    /// One of the two mailboxes confirmed; the detail says which.
    pub const EMAIL_CHANGE_CONFIRMED: Action = Action::new("email.change_confirmed");
    /// One of the two mailboxes refused; the detail says which.
    pub const EMAIL_CHANGE_REFUSED: Action = Action::new("email.change_refused");
    /// An account has another address.
    pub const EMAIL_CHANGED: Action = Action::new("email.changed");
    /// Somebody signed in.
    pub const SESSION_OPENED: Action = Action::new("session.opened");
    /// Somebody tried to sign in with a wrong password.
    pub const SESSION_DENIED: Action = Action::new("session.denied");
    /// A session was ended; the detail says why.
    pub const SESSION_ENDED: Action = Action::new("session.ended");
    /// All sessions of an account were ended; the detail says why, and how many there were.
    pub const SESSIONS_ENDED: Action = Action::new("session.all_ended");
    /// A refresh token was used twice, and its session was ended.
    pub const SESSION_REFUSED_REUSE: Action = Action::new("session.refused_reuse");
}

/// Something that happened.
#[derive(Debug, Clone)]
#[must_use = "it is written by `record`"]
pub struct Entry {
    pub(super) actor: Actor,
    pub(super) action: Action,
    pub(super) subject: Option<Uuid>,
    pub(super) device: Option<Device>,
    pub(super) detail: Value,
}

impl Entry {
    /// This was done.
    pub fn new(actor: impl Into<Actor>, action: Action) -> Self {
        Self { actor: actor.into(), action, subject: None, device: None, detail: json!({}) }
    }

    /// To this account.
    pub fn about(self, account: Uuid) -> Self {
        Self { subject: Some(account), ..self }
    }

    /// From there.
    pub fn from(self, device: &Device) -> Self {
        Self { device: Some(device.clone()), ..self }
    }

    /// What else is worth knowing: an object, never with a secret or an address in it.
    pub fn with(self, detail: Value) -> Self {
        Self { detail, ..self }
    }

    pub(super) fn actor_kind(&self) -> &'static str {
        self.actor.kind()
    }

    pub(super) fn actor_account(&self) -> Option<Uuid> {
        self.actor.account()
    }

    /// What was done, as it is written.
    pub(crate) fn action_name(&self) -> &'static str {
        self.action.0
    }
}

/// Writes an entry in the caller's transaction, with the id of the request that is being answered: it exists if what it tells was committed.
///
/// # Errors
/// When its detail is larger than 2 KiB, and what the database can meet.
pub async fn record(session: &mut Session, mut entry: Entry, now: Timestamp) -> Result<()> {
    if let (Actor::Key { key, .. }, Value::Object(detail)) = (entry.actor, &mut entry.detail) {
        detail.insert("key".to_owned(), json!(key));
    }
    let bytes = entry.detail.to_string().len();
    if bytes > DETAIL_BYTES_MAX {
        let cause = format!("the detail of {} has {bytes} bytes, more than {DETAIL_BYTES_MAX}", entry.action_name());
        return Err(Error::new(&codes::INTERNAL).caused_by(cause));
    }
    let request = context::current().map(|context| context.id.as_str().to_owned());
    sql::insert(session, &entry, request, now).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_two_words_with_a_dot_between_them() {
        for good in ["user.registered", "session.refused_reuse", "a.b"] {
            assert!(Action::formed(good), "{good}");
        }
        for bad in ["", ".", "user", "user.", ".registered", "user..x", "a.b.c", "User.x", "user.x y", "user.x'", &format!("a.{}", "b".repeat(63))] {
            assert!(!Action::formed(bad), "{bad}");
        }
    }
}
