//! What an API key may be used for. Scopes only ever take away: whoever asks by a key may do what its account may and its scopes allow, and nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Role;

/// One use of an API key. None of them holds another: a key that reads and writes has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Reads what its account may read.
    #[serde(rename = "read")]
    Read,
    /// Changes its account, but none of what somebody signs in with.
    #[serde(rename = "account:write")]
    AccountWrite,
    /// Creates, changes and removes products.
    #[serde(rename = "products:write")]
    ProductsWrite,
    /// Does what is for administrators.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Read, Self::AccountWrite, Self::ProductsWrite, Self::Admin];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::AccountWrite => "account:write",
            Self::ProductsWrite => "products:write",
            Self::Admin => "admin",
        }
    }

    /// The least role with which it is of any use.
    pub fn role(self) -> Role {
        match self {
            Self::Read | Self::AccountWrite => Role::User,
            Self::ProductsWrite => Role::Editor,
            Self::Admin => Role::Admin,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Some scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Reads what `Display` wrote. A name that is not known, of a later release, gives nothing: a key never does more than is understood.
    pub fn parse(text: &str) -> Self {
        text.split(' ').filter_map(|name| Scope::ALL.into_iter().find(|scope| scope.as_str() == name)).collect()
    }

    /// Is it one of them?
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Each of them, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    /// The most that anybody is with these: an administrator's key that may only read sees what a user sees.
    pub fn role_max(self) -> Role {
        self.iter().map(Scope::role).max().unwrap_or(Role::User)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// Names with spaces between them (RFC 6749, 3.3).
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Scope::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_understood_gives_nothing() {
        assert_eq!(Scopes::parse("read orders:write"), [Scope::Read].into_iter().collect());
        assert_eq!(["", " ", "Read", "read,admin", "readadmin"].map(Scopes::parse), [Scopes::default(); 5]);
    }

    #[test]
    fn a_name_is_the_same_in_json_and_in_the_database() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
    }

    #[test]
    fn without_the_scope_of_a_role_nobody_has_it() {
        let most = |scopes: &[Scope]| scopes.iter().copied().collect::<Scopes>().role_max();
        assert_eq!(most(&[]), Role::User);
        assert_eq!(most(&[Scope::Read, Scope::AccountWrite]), Role::User);
        assert_eq!(most(&[Scope::Read, Scope::ProductsWrite]), Role::Editor);
        assert_eq!(most(&[Scope::Admin]), Role::Admin);
    }

    proptest! {
        #[test]
        fn scopes_are_read_back_as_they_were_written(bits in 0u8..16) {
            let scopes: Scopes = Scope::ALL.into_iter().filter(|scope| bits & scope.bit() != 0).collect();
            prop_assert_eq!(Scopes::parse(&scopes.to_string()), scopes);
            prop_assert_eq!(scopes.iter().collect::<Scopes>(), scopes);
        }
    }
}
