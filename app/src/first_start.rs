//! What a new database needs before anyone can use it: the schema, an administrator, and in development the sample of the catalogue.

use mainstay::auth::keys::Directory;
use mainstay::auth::{Keys, Role, Sealer};
use mainstay::clock::Clock;
use mainstay::error::{Error, Result, codes};
use mainstay::store::{self, Database};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use std::io::Write;
use std::path::Path;

use crate::app::{Address, App};
use crate::audit::{Actor, Entry, actions};
use crate::import::{self, Report};
use crate::migrations::MIGRATIONS;
use crate::settings::Settings;
use crate::users::{self, NewAccount};

/// The bundled sample of a real catalogue; source and licences in `app/data/README.md`.
static SAMPLE: &[u8] = include_bytes!("../data/catalog-sample.ndjson.zst");
/// The address of the administrator that is made up in development.
const MADE_UP_ADMIN: &str = "admin@example.com";

/// The name of the first administrator.
pub(crate) const ADMIN_NAME: &str = "Administrator";

/// An administrator that was made up, to be shown once.
#[derive(Debug)]
pub struct MadeUpAdmin {
    /// The address.
    pub email: String,
    /// The password; it is printed once and kept nowhere.
    pub password: SecretString,
}

/// Brings the schema up to date.
///
/// # Errors
/// When a migration fails, or the database has a history that is not ours.
pub async fn migrate(database: &Database) -> Result<()> {
    let applied = store::migrate(database, &MIGRATIONS).await.map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
    if !applied.versions.is_empty() {
        tracing::info!(versions = ?applied.versions, "migrations applied");
    }
    if !applied.newer.is_empty() {
        tracing::warn!(versions = ?applied.newer, "the database has migrations of a newer release; this one goes on beside it");
    }
    Ok(())
}

/// The keys of access tokens: those of the settings, or in development a secret that is made at the first start and kept in the data folder.
///
/// # Errors
/// When the folder of keys has none that can sign, or the file of the secret can be neither read nor written.
pub fn keys(settings: &Settings) -> Result<Keys> {
    let given = &settings.stack.token_keys;
    let secret = given.secret.as_ref().map(|secret| SecretSlice::from(secret.expose_secret().as_bytes().to_vec()));
    match (&given.folder, secret) {
        (Some(folder), secret) => Keys::open(Directory::new(folder, settings.stack.production()), secret.as_ref()),
        (None, Some(secret)) => Ok(Keys::from_secret(&secret)),
        (None, None) => Ok(Keys::from_secret(&made_up_secret(settings, "development-jwt-secret")?)),
    }
}

/// Seals the secrets of authenticators: under the secrets of the settings, or in development under one that is made at the first start and kept in the data
/// folder. Production makes nothing up, and takes no other secret in its stead: an operator who exchanges that one would lock out everybody with a second factor.
///
/// # Errors
/// When the file of the secret can be neither read nor written.
pub fn sealer(settings: &Settings) -> Result<Option<Sealer>> {
    let mut secrets = settings.seal_secrets();
    if secrets.is_empty() && !settings.stack.production() {
        secrets.push(made_up_secret(settings, "development-seal-secret")?);
    }
    if secrets.is_empty() { Ok(None) } else { Sealer::new(&secrets).map(Some) }
}

/// Makes sure that the second factors in the database can be checked.
///
/// # Errors
/// In production when they cannot: an instance that would lock people out does not start, and those that run go on.
pub async fn check_second_factors(app: &App) -> Result<()> {
    let production = app.settings.stack.production();
    match app.second_factors.unreadable(&app.database).await? {
        Some(words) if production => Err(Error::new(&codes::INTERNAL).with_message(words)),
        Some(words) => {
            tracing::warn!("{words}");
            Ok(())
        }
        None => Ok(()),
    }
}

fn made_up_secret(settings: &Settings, name: &str) -> Result<SecretSlice<u8>> {
    let path = settings.stack.data_dir.join(name);
    kept_key(&path).map_err(|error| Error::new(&codes::INTERNAL).with_message(format!("{} cannot be used", path.display())).caused_by(error))
}

fn kept_key(path: &Path) -> std::io::Result<SecretSlice<u8>> {
    match std::fs::read(path) {
        Ok(key) if key.len() >= 32 => return Ok(SecretSlice::from(key)),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key = random_text(48)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(key.expose_secret().as_bytes())?;
    Ok(SecretSlice::from(key.expose_secret().as_bytes().to_vec()))
}

/// Letters and digits that look different from each other, about 5.9 bits each.
fn random_text(chars: usize) -> std::io::Result<SecretString> {
    const ALPHABET: &[u8; 56] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz2345678";
    let mut text = String::with_capacity(chars);
    while text.len() < chars {
        let mut bytes = [0; 64];
        SystemRandom::new().fill(&mut bytes).map_err(|_| std::io::Error::other("the system has no randomness to give"))?;
        // Values beyond the last whole multiple of the alphabet would make its first letters likelier.
        let letters = bytes.iter().filter(|byte| **byte < 224).map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()]);
        text.extend(letters.take(chars - text.len()).map(char::from));
    }
    Ok(SecretString::from(text))
}

/// Makes the first administrator if there is no account yet: the one of the settings, or in development a made-up one.
///
/// # Errors
/// When the database fails.
pub async fn administrator(app: &App) -> Result<Option<MadeUpAdmin>> {
    if users::sql::any(&mut *app.read().await?).await? {
        return Ok(None);
    }
    let settings = &app.settings;
    let (email, password, made_up) = match (&settings.admin_email, &settings.admin_password) {
        (Some(email), Some(password)) => (email.clone(), password.clone(), false),
        _ if settings.stack.production() => return Ok(None),
        _ => (MADE_UP_ADMIN.to_owned(), random_text(16).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?, true),
    };
    let account = NewAccount::parse(&email, ADMIN_NAME, password.clone())?;
    match app.open_account(account, Role::Admin, Address::Vouched, Entry::new(Actor::System, actions::USER_CREATED)).await {
        Ok(_) => Ok(made_up.then_some(MadeUpAdmin { email, password })),
        // Another instance was first.
        Err(error) if error.code() == &crate::codes::EMAIL_TAKEN => Ok(None),
        Err(error) => Err(error),
    }
}

/// Loads the bundled sample.
///
/// # Errors
/// When the database fails.
pub async fn sample(database: &Database, clock: &Clock) -> Result<Report> {
    let source = import::Source::from_bytes(SAMPLE).map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
    import::run(source, database, clock, |_| {}, |_| {}).await
}
