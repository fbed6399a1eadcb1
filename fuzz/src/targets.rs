//! One file a target.

pub(crate) mod account;
pub(crate) mod chunks;
pub(crate) mod cursor;
pub(crate) mod fields;
pub(crate) mod forwarded;
pub(crate) mod head;
pub(crate) mod import;
pub(crate) mod json;
pub(crate) mod listing;
pub(crate) mod password;
pub(crate) mod price;
pub(crate) mod query;
pub(crate) mod redis_answers;
pub(crate) mod search;
pub(crate) mod secrets;
pub(crate) mod settings;
pub(crate) mod stored_hash;
pub(crate) mod tier;
pub(crate) mod token;
