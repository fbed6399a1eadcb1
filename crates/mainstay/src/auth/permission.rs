//! Permission as the type of a handler's argument: a handler that takes [`Editor`] cannot be reached by anybody who is none.
//!
//! | argument | who | which scope an API key needs |
//! |---|---|---|
//! | [`SignedIn`] | everybody with an account | `read` for GET and HEAD, `account:write` for the rest |
//! | [`Editor`] | editors and administrators | `products:write` |
//! | [`Admin`] | administrators | `admin` |
//! | [`Person`] | everybody in a session | none will do: whatever people sign in with is changed by people |
//! | [`AdminPerson`] | administrators in a session | none will do |
//!
//! The role of whoever comes by a key is the account's, and never more than the key's scopes need ([`super::Scopes::role_max`]).

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderValue, Method, header};
use uuid::Uuid;

use super::{Auth, Role, Scope, Scopes};
use crate::error::{Error, Result, codes};

/// How a caller came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By an access token of this session.
    Session(Uuid),
    /// By an API key.
    Key {
        /// The key.
        id: Uuid,
        /// What it may be used for.
        scopes: Scopes,
    },
}

/// Somebody who is signed in, or a machine with a key of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedIn {
    /// The account.
    pub account: Uuid,
    /// How the caller came.
    pub via: Via,
    /// The account's role, as the database has it; of a key no more than its scopes need.
    pub role: Role,
}

impl SignedIn {
    /// Passes for the account itself and for administrators.
    ///
    /// # Errors
    /// [`codes::FORBIDDEN`] for everyone else.
    pub fn itself_or_admin(self, account: Uuid) -> Result<Self> {
        if self.account == account || self.role >= Role::Admin { Ok(self) } else { Err(Error::new(&codes::FORBIDDEN)) }
    }

    fn at_least(self, role: Role) -> Result<Self> {
        if self.role >= role { Ok(self) } else { Err(Error::new(&codes::FORBIDDEN)) }
    }

    fn with_scope(self, scope: Scope) -> Result<Self> {
        match self.via {
            Via::Key { scopes, .. } if !scopes.contains(scope) => Err(insufficient(scope)),
            _ => Ok(self),
        }
    }

    fn in_person(self) -> Result<Person> {
        match self.via {
            Via::Session(session) => Ok(Person { account: self.account, session, role: self.role }),
            Via::Key { .. } => Err(Error::new(&codes::PERSON_REQUIRED)),
        }
    }
}

/// RFC 6750, 3.1, wants the scope named.
fn insufficient(scope: Scope) -> Error {
    let challenge = match scope {
        Scope::Read => r#"Bearer error="insufficient_scope", scope="read""#,
        Scope::AccountWrite => r#"Bearer error="insufficient_scope", scope="account:write""#,
        Scope::ProductsWrite => r#"Bearer error="insufficient_scope", scope="products:write""#,
        Scope::Admin => r#"Bearer error="insufficient_scope", scope="admin""#,
    };
    let error = Error::new(&codes::INSUFFICIENT_SCOPE).with_message(format!("The API key lacks the scope `{scope}`"));
    error.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

async fn caller<S: Send + Sync>(parts: &Parts, state: &S) -> Result<SignedIn>
where
    Auth: FromRef<S>,
{
    Auth::from_ref(state).caller(&parts.headers).await
}

impl<S: Send + Sync> FromRequestParts<S> for SignedIn
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        caller(parts, state).await?.with_scope(if reads { Scope::Read } else { Scope::AccountWrite })
    }
}

/// Somebody who is signed in, not by a key: for whatever people sign in with, or see of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// The account.
    pub account: Uuid,
    /// The session.
    pub session: Uuid,
    /// The account's role, as the database has it.
    pub role: Role,
}

impl From<Person> for SignedIn {
    fn from(person: Person) -> Self {
        Self { account: person.account, via: Via::Session(person.session), role: person.role }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Person
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        caller(parts, state).await?.in_person()
    }
}

/// Somebody who may change products: an editor or an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Editor(pub SignedIn);

impl<S: Send + Sync> FromRequestParts<S> for Editor
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        caller(parts, state).await?.with_scope(Scope::ProductsWrite)?.at_least(Role::Editor).map(Self)
    }
}

/// An administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admin(pub SignedIn);

impl<S: Send + Sync> FromRequestParts<S> for Admin
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        caller(parts, state).await?.with_scope(Scope::Admin)?.at_least(Role::Admin).map(Self)
    }
}

/// An administrator in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminPerson(pub Person);

impl<S: Send + Sync> FromRequestParts<S> for AdminPerson
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let person = caller(parts, state).await?.in_person()?;
        SignedIn::from(person).at_least(Role::Admin).map(|_| Self(person))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_which_scope_it_lacks_and_a_session_lacks_none() {
        let by = |via| SignedIn { account: Uuid::nil(), via, role: Role::Admin };
        for scope in Scope::ALL {
            assert!(by(Via::Session(Uuid::nil())).with_scope(scope).is_ok());
            for held in Scope::ALL {
                let outcome = by(Via::Key { id: Uuid::nil(), scopes: [held].into_iter().collect() }).with_scope(scope);
                match outcome {
                    Ok(_) => assert_eq!(held, scope),
                    Err(error) => {
                        assert!(held != scope && error.code() == &codes::INSUFFICIENT_SCOPE);
                        assert!(error.message().contains(scope.as_str()), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_is_no_person_whatever_its_scopes() {
        let key = SignedIn { account: Uuid::nil(), via: Via::Key { id: Uuid::nil(), scopes: Scope::ALL.into_iter().collect() }, role: Role::Admin };
        assert_eq!(key.in_person().unwrap_err().code(), &codes::PERSON_REQUIRED);
        let person = SignedIn { via: Via::Session(Uuid::max()), ..key };
        assert_eq!(SignedIn::from(person.in_person().unwrap()), person);
    }
}
