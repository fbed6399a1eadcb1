//! The claims of a token: what they must say, read once, and what is asked of the clock each time.
//!
//! Read without a tree of values in between, because every request comes by here. As strict as bodies are: no member twice, none of ours missing or of
//! another type. What is not known here is passed over if it is JSON, so that a release may add a claim while an older one still serves.

use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use uuid::Uuid;

use super::{Claims, Refused};
use crate::auth::Role;

/// Clocks of two instances differ; a token from the future by more than this is none of ours.
const LEEWAY_S: i64 = 5;

/// What a token says, apart from the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    subject: Uuid,
    session: Uuid,
    role: Role,
    id: Uuid,
    issued_s: i64,
    valid_from_s: i64,
    expires_s: i64,
    expires: Timestamp,
}

impl Said {
    /// Reads the claims of a payload that we signed.
    pub(super) fn read(payload: &[u8], issuer: &str, audience: &str) -> Result<Self, Refused> {
        let mut json = serde_json::Deserializer::from_slice(payload);
        let found = json.deserialize_map(Members { issuer, audience }).and_then(|found| json.end().map(|()| found));
        let found = found.map_err(|_| Refused("malformed claims"))?;
        if found.issuer != Some(true) {
            return Err(Refused("wrong issuer"));
        }
        if found.audience != Some(true) {
            return Err(Refused("wrong audience"));
        }
        let expires_s = found.expires_s.ok_or(Refused("no expiry"))?;
        Ok(Self {
            subject: found.subject.flatten().ok_or(Refused("no subject"))?,
            session: found.session.flatten().ok_or(Refused("no session"))?,
            role: found.role.flatten().ok_or(Refused("unknown role"))?,
            id: found.id.flatten().ok_or(Refused("no id"))?,
            issued_s: found.issued_s.ok_or(Refused("no issue time"))?,
            valid_from_s: found.valid_from_s.ok_or(Refused("no start"))?,
            expires_s,
            expires: Timestamp::from_second(expires_s).map_err(|_| Refused("expiry out of range"))?,
        })
    }

    /// Is it valid at this moment?
    pub(super) fn judge(&self, now: Timestamp) -> Result<Claims, Refused> {
        let now = now.as_second();
        if self.expires_s <= now {
            return Err(Refused("expired"));
        }
        if self.issued_s > now + LEEWAY_S || self.valid_from_s > now + LEEWAY_S {
            return Err(Refused("not yet valid"));
        }
        Ok(Claims { subject: self.subject, session: self.session, role: self.role, id: self.id, expires: self.expires })
    }
}

/// What was found: nothing, or something; of what is parsed further, something that may still be wrong.
#[derive(Default)]
struct Found {
    issuer: Option<bool>,
    audience: Option<bool>,
    subject: Option<Option<Uuid>>,
    session: Option<Option<Uuid>>,
    role: Option<Option<Role>>,
    id: Option<Option<Uuid>>,
    issued_s: Option<i64>,
    valid_from_s: Option<i64>,
    expires_s: Option<i64>,
}

#[derive(Debug, Clone)]
enum Name {
    Issuer,
    Audience,
    Subject,
    Session,
    Role,
    Id,
    Issued,
    ValidFrom,
    Expires,
    Other(String),
}

impl Name {
    fn of(text: &str) -> Self {
        match text {
            "iss" => Self::Issuer,
            "aud" => Self::Audience,
            "sub" => Self::Subject,
            "sid" => Self::Session,
            "role" => Self::Role,
            "jti" => Self::Id,
            "iat" => Self::Issued,
            "nbf" => Self::ValidFrom,
            "exp" => Self::Expires,
            other => Self::Other(other.to_owned()),
        }
    }
}

struct Members<'a> {
    issuer: &'a str,
    audience: &'a str,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the claims of an access token")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let id = || Text::new(|text| Uuid::try_parse(text).ok());
        let mut found = Found::default();
        let mut others = Vec::new();
        while let Some(name) = members.next_key_seed(Text::new(Name::of))? {
            match name {
                Name::Issuer => once(&mut found.issuer, members.next_value_seed(Text::new(|text| text == self.issuer))?)?,
                Name::Audience => once(&mut found.audience, members.next_value_seed(Text::new(|text| text == self.audience))?)?,
                Name::Subject => once(&mut found.subject, members.next_value_seed(id())?)?,
                Name::Session => once(&mut found.session, members.next_value_seed(id())?)?,
                Name::Role => once(&mut found.role, members.next_value_seed(Text::new(|text| text.parse().ok()))?)?,
                Name::Id => once(&mut found.id, members.next_value_seed(id())?)?,
                Name::Issued => once(&mut found.issued_s, members.next_value()?)?,
                Name::ValidFrom => once(&mut found.valid_from_s, members.next_value()?)?,
                Name::Expires => once(&mut found.expires_s, members.next_value()?)?,
                // Compared one by one: whoever could put many here holds our key.
                Name::Other(name) if others.contains(&name) => return Err(A::Error::custom("repeated")),
                Name::Other(name) => {
                    // To pass over a value the parser would not look into it: no text, no number, no depth would be wrong.
                    members.next_value::<serde_json::Value>()?;
                    others.push(name);
                }
            }
        }
        Ok(found)
    }
}

fn once<T, E: Error>(place: &mut Option<T>, value: T) -> Result<(), E> {
    if place.replace(value).is_some() { Err(E::custom("repeated")) } else { Ok(()) }
}

/// A text, and what is made of it without keeping it.
struct Text<F, T>(F, PhantomData<T>);

impl<T, F: FnOnce(&str) -> T> Text<F, T> {
    fn new(make: F) -> Self {
        Self(make, PhantomData)
    }
}

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Text<F, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Text<F, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}
