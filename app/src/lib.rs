//! The Mainstay service: accounts, tokens, products and product search behind the production stack of the crate `mainstay`.
//!
//! [`app`] is the table of contents. A resource is one file: its routes, wire types and handlers, with its SQL beside it.

pub mod api_keys;
pub mod app;
pub mod audit;
pub mod cli;
pub mod codes;
pub mod credentials;
pub mod docs;
pub mod errands;
pub mod first_start;
pub mod health;
pub mod import;
pub mod jwks;
pub mod life;
pub mod links;
pub mod mail;
pub mod management;
pub mod migrations;
pub mod one_time;
pub mod own_account;
pub mod page;
pub mod products;
pub mod search;
pub mod second_factor;
pub mod sessions;
pub mod settings;
pub mod sign_in;
pub mod sweep;
pub mod users;
