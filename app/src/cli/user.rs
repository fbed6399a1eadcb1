//! `mainstay user`: accounts from the command line, for the first editor and for emergencies.

use std::io::{BufRead, IsTerminal};
use std::sync::Arc;

use clap::Subcommand;
use mainstay::auth::{Asker, Passwords, Role};
use mainstay::error::{Error, Result};
use mainstay::store::{Database, Session};
use secrecy::SecretString;
use serde_json::json;

use crate::audit::{self, Actor, Entry, actions};
use crate::settings::Settings;
use crate::users::{Email, NewAccount, User, sql, standing};
use crate::{codes, first_start, life};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an account; its password is read from standard input
    Create {
        /// E-mail
        email: String,
        /// The person's name
        #[arg(long, default_value = "Unnamed")]
        name: String,
        /// `user`, `editor` or `admin`
        #[arg(long, default_value = "user")]
        role: Role,
    },
    /// Change what an account may do
    Role {
        /// E-mail
        email: String,
        /// `user`, `editor` or `admin`
        role: Role,
    },
    /// Keep an account from signing in, and end its sessions
    Disable {
        /// E-mail
        email: String,
    },
    /// Let an account sign in again
    Enable {
        /// E-mail
        email: String,
    },
}

pub(super) async fn run(settings: &Settings, command: Command) -> Result<u8> {
    let settings = Arc::new(settings.clone());
    let database = life::open_database(&settings).await?;
    first_start::migrate(&database).await?;
    match command {
        Command::Create { email, name, role } => {
            let account = NewAccount::parse(&email, &name, read_password()?)?;
            let password_hash = Passwords::new(1)?.hash(account.password, Asker::Known(None)).await?;
            let now = super::clock().now();
            let user = User { id: uuid::Uuid::new_v4(), email, name, role, verified: true, disabled: false, created_at: now, updated_at: now };
            let mut transaction = database.begin(None).await?;
            sql::insert(&mut transaction, &user, &account.email, &password_hash).await?;
            let entry = Entry::new(Actor::CommandLine, actions::USER_CREATED).about(user.id).with(json!({"role": role.as_str()}));
            audit::record(&mut transaction, entry, now).await?;
            transaction.commit().await?;
            super::print(&format!("{} {}\n", user.id, user.role));
        }
        Command::Role { email, role } => {
            let mut transaction = database.begin(None).await?;
            let User { id, role: current, .. } = locked(&mut transaction, &email).await?;
            if current == Role::Admin && role != Role::Admin {
                sql::another_admin(&mut transaction, id).await?;
            }
            let now = super::clock().now();
            sql::set_role(&mut transaction, id, role, now).await?;
            let detail = json!({"from": current.as_str(), "to": role.as_str()});
            audit::record(&mut transaction, Entry::new(Actor::CommandLine, actions::USER_ROLE_CHANGED).about(id).with(detail), now).await?;
            transaction.commit().await?;
            super::print(&format!("{id} {role}\n"));
        }
        Command::Disable { email } => set_disabled(&database, &email, true).await?,
        Command::Enable { email } => set_disabled(&database, &email, false).await?,
    }
    Ok(0)
}

async fn locked(session: &mut Session, email: &str) -> Result<User> {
    let not_found = || Error::new(&codes::USER_NOT_FOUND);
    let email = Email::parse(email).map_err(|_| not_found())?;
    let id = sql::id_of(session, &email).await?.ok_or_else(not_found)?;
    sql::lock_with_admins(session, id).await?.ok_or_else(not_found)
}

async fn set_disabled(database: &Database, email: &str, disabled: bool) -> Result<()> {
    let mut transaction = database.begin(None).await?;
    let user = locked(&mut transaction, email).await?;
    if user.disabled != disabled {
        let entry = |action| Entry::new(Actor::CommandLine, action);
        standing::set_disabled(&mut transaction, &user, disabled, entry, super::clock().now()).await?;
    }
    transaction.commit().await?;
    super::print(&format!("{} {}\n", user.id, if disabled { "disabled" } else { "enabled" }));
    Ok(())
}

/// The first line of standard input. Never an argument: those are seen by every process of the machine.
fn read_password() -> Result<SecretString> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprint!("Password (it will be seen): ");
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(|error| Error::new(&mainstay::error::codes::INTERNAL).caused_by(error))?;
    Ok(SecretString::from(line.trim_end_matches(['\r', '\n']).to_owned()))
}
