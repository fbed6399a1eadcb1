//! Who is asking: passwords, access tokens and their keys, and roles as argument types of handlers.

pub mod caller;
pub mod keys;
pub mod password;
pub mod role;
pub mod token;

pub use caller::{Accounts, Admin, Auth, Editor, RoleFuture, SignedIn};
pub use keys::Keys;
pub use password::Passwords;
pub use role::Role;
pub use token::{Claims, Tokens};
