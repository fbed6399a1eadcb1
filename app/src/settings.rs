//! The settings of the service beside those of the foundation.

use std::time::Duration;

use mainstay::config::{self, Entry, Knob, Problems, Reader, Setting};
use secrecy::SecretString;

/// A client that tries again does so well within a minute; a longer window would only be a longer time for a thief.
pub const REFRESH_REUSE_WINDOW_MAX: Duration = Duration::from_secs(60);
/// What one account may have of sessions at most: a list that a person can read, and a hundred times what anybody needs.
pub const SESSIONS_MAX_MOST: u32 = 1_000;

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
    /// For this long after its use a refresh token gives the same successor again.
    pub refresh_reuse_window: Duration,
    /// A session that is not refreshed for this long ends.
    pub refresh_expiry: Duration,
    /// A session ends at this age, however often it is refreshed.
    pub session_max_age: Duration,
    /// Sessions of one account.
    pub sessions_max: u32,
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
        let (minute, year) = (Duration::from_secs(60), Duration::from_secs(365 * 86_400));
        let settings = Self {
            registration: reader.read(
                Knob::new("REGISTRATION", "Who may open an account: `open` to everybody, or `closed`: administrators create them").default("open"),
            ),
            refresh_reuse_window: reader.read(
                Knob::new(
                    "REFRESH_REUSE_WINDOW",
                    "For this long after its use a refresh token gives the same successor again; later it ends its session",
                )
                .default("10s")
                .within(Duration::ZERO, REFRESH_REUSE_WINDOW_MAX),
            ),
            refresh_expiry: reader
                .read(Knob::new("REFRESH_EXPIRY", "A session that is not refreshed for this long ends").default("30d").within(minute, year)),
            session_max_age: reader
                .read(Knob::new("SESSION_MAX_AGE", "A session ends at this age, however often it is refreshed").default("90d").within(minute, year)),
            sessions_max: reader.read(
                Knob::new("SESSIONS_MAX", "Sessions of one account; at one more the one used longest ago ends")
                    .default("100")
                    .between(1, SESSIONS_MAX_MOST.into()),
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
        // Else the session would end before the access token that was given with it.
        for (name, life) in [("REFRESH_EXPIRY", settings.refresh_expiry), ("SESSION_MAX_AGE", settings.session_max_age)] {
            if life < settings.stack.jwt_expiry {
                reader.problem(name, format!("is {}, less than JWT_EXPIRY, which is {}", life.written(), settings.stack.jwt_expiry.written()));
            }
        }
        if settings.admin_email.is_some() != settings.admin_password.is_some() {
            reader.problem("ADMIN_EMAIL", "and ADMIN_PASSWORD belong together: set both or none");
        }
        if let Some(Err(flaw)) = settings.admin_email.as_deref().map(crate::users::Email::parse) {
            reader.problem("ADMIN_EMAIL", flaw.message);
        }
        if let Some(Err(flaw)) = settings.admin_password.as_ref().map(mainstay::auth::Passwords::check) {
            reader.problem("ADMIN_PASSWORD", flaw.message);
        }
        reader.finish().map(|entries| (settings, entries))
    }
}
