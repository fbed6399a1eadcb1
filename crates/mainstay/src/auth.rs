//! Who is asking: passwords, second factors, access tokens and their keys, API keys, and permission as argument types of handlers.

pub mod caller;
pub mod keys;
pub mod password;
pub mod permission;
mod random;
pub mod recovery;
pub mod role;
pub mod scope;
pub mod seal;
pub mod secret;
mod standing;
pub mod throttle;
pub mod token;
pub mod totp;

pub use caller::{Accounts, Auth, CHANNEL, KeyFuture, KnownKey, RoleFuture};
pub use keys::Keys;
pub use password::{Asker, PasswordContext, Passwords, Verified};
pub use permission::{Admin, AdminPerson, Editor, Person, SignedIn, Via};
pub use recovery::RecoveryCode;
pub use role::Role;
pub use scope::{Scope, Scopes};
pub use seal::Sealer;
pub use secret::{ApiKey, KeyKind, Kind, Secret};
pub use standing::Change;
pub use throttle::{AccountKey, Allowance, Pass, Throttle, ThrottleLimits};
pub use token::{Claims, Tokens};
pub use totp::Totp;
