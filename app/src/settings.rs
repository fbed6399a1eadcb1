//! The settings of the service beside those of the foundation.

use mainstay::auth::{PasswordContext, Passwords};
use mainstay::config::{self, Entry, Knob, Problems, Reader, Setting};
use secrecy::SecretString;

use crate::first_start::ADMIN_NAME;
use crate::users::SERVICE_NAME;

/// Who may open an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Everybody.
    Open,
    /// Administrators create accounts.
    Closed,
}

impl Setting for Registration {
    const KIND: &'static str = "choice";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            _ => Err(format!("is `{text}`; it must be one of `open`, `closed`")),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Open => "open".to_owned(),
            Self::Closed => "closed".to_owned(),
        }
    }
}

/// Every setting.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Those of the foundation.
    pub stack: config::Settings,
    /// Who may open an account.
    pub registration: Registration,
    /// The first administrator.
    pub admin_email: Option<String>,
    /// The first administrator's password.
    pub admin_password: Option<SecretString>,
    /// Is the bundled sample loaded into a new database?
    pub sample: bool,
}

impl Settings {
    /// Reads all settings from the process's environment and the file.
    ///
    /// # Errors
    /// Every problem of every setting.
    pub fn load() -> Result<(Self, Vec<Entry>), Problems> {
        Self::read(Reader::from_process())
    }

    /// Reads all settings from `reader`.
    ///
    /// # Errors
    /// Every problem of every setting.
    pub fn read(mut reader: Reader) -> Result<(Self, Vec<Entry>), Problems> {
        let stack = config::Settings::read(&mut reader);
        let settings = Self {
            registration: reader.read(
                Knob::new("REGISTRATION", "Who may open an account: `open` to everybody, or `closed`: administrators create them").default("open"),
            ),
            admin_email: reader
                .read(Knob::new("ADMIN_EMAIL", "E-mail of the first administrator, made at the first start").default_says("made up in development")),
            admin_password: reader
                .read(Knob::new("ADMIN_PASSWORD", "Password of the first administrator").default_says("made up and printed once in development")),
            sample: reader.read(
                Knob::new("SAMPLE", "Load the bundled sample of products into a new database")
                    .default(if stack.production() { "false" } else { "true" })
                    .default_says("`true` in development, `false` in production"),
            ),
            stack,
        };
        if settings.admin_email.is_some() != settings.admin_password.is_some() {
            reader.problem("ADMIN_EMAIL", "and ADMIN_PASSWORD belong together: set both or none");
        }
        if let Some(Err(flaw)) = settings.admin_email.as_deref().map(crate::users::Email::parse) {
            reader.problem("ADMIN_EMAIL", flaw.message);
        }
        let context = PasswordContext { email: settings.admin_email.as_deref(), name: Some(ADMIN_NAME), service: SERVICE_NAME };
        if let Some(Err(flaw)) = settings.admin_password.as_ref().map(|password| Passwords::check(password, &context)) {
            reader.problem("ADMIN_PASSWORD", flaw.message);
        }
        reader.finish().map(|entries| (settings, entries))
    }
}
