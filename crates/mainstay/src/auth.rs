//! Who is asking: passwords, access tokens, and roles as argument types of handlers.

pub mod caller;
pub mod password;
pub mod role;
mod standing;
pub mod token;
mod told;

pub use caller::{Accounts, Admin, Auth, Editor, RoleFuture, SignedIn};
pub use password::Passwords;
pub use role::Role;
pub use standing::Change;
pub use token::{Claims, Tokens};
pub use told::{CHANNEL, Hearing};
