//! The settings of the service beside those of the foundation.

use std::path::PathBuf;
use std::time::Duration;

use mainstay::auth::{PasswordContext, Passwords};
use mainstay::config::{self, Entry, Knob, Problems, Reader, Setting};
use secrecy::{ExposeSecret, SecretString};

use crate::mail;

use crate::first_start::ADMIN_NAME;
use crate::users::SERVICE_NAME;

/// A client that tries again does so well within a minute; a longer window would only be a longer time for a thief.
pub const REFRESH_REUSE_WINDOW_MAX: Duration = Duration::from_secs(60);
/// What one account may have of sessions at most: a list that a person can read, and a hundred times what anybody needs.
pub const SESSIONS_MAX_MOST: u32 = 1_000;

/// No shorter: the triggers of the audit trail keep this much whatever the setting says.
const AUDIT_RETENTION_MIN: Duration = Duration::from_secs(31 * 86_400);

/// Who may open an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Everybody, at once.
    Open,
    /// Everybody who reads the mailbox of the address.
    Verified,
    /// Administrators create accounts.
    Closed,
}

impl Setting for Registration {
    const KIND: &'static str = "choice";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "verified" => Ok(Self::Verified),
            "closed" => Ok(Self::Closed),
            _ => Err(format!("is `{text}`; it must be one of `open`, `verified`, `closed`")),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Open => "open".to_owned(),
            Self::Verified => "verified".to_owned(),
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
    /// How long entries of the audit trail are kept.
    pub audit_retention: Duration,
    /// The first administrator.
    pub admin_email: Option<String>,
    /// The first administrator's password.
    pub admin_password: Option<SecretString>,
    /// Is the bundled sample loaded into a new database?
    pub sample: bool,
    /// Where the pages of the team's front end are, without a slash at the end.
    pub public_url: String,
    /// The mail server; without one mails go into a folder.
    pub smtp_url: Option<SecretString>,
    /// Who writes.
    pub mail_from: String,
    /// The folder of mails.
    pub mail_dir: PathBuf,
    /// Jobs at once.
    pub jobs_concurrency: usize,
    /// A job of an instance that is silent for so long is another's.
    pub jobs_lease: Duration,
}

/// Where nobody receives mail (RFC 2606): a sender that is only good for the folder.
const NO_SENDER: &str = "Mainstay <no-reply@mainstay.invalid>";

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
                Knob::new("REGISTRATION", "Who may open an account: `open` to everybody at once; `verified`: everybody, when the address is proven by mail, and nobody learns who has an account; `closed`: administrators create them").default("open"),
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
            audit_retention: reader.read(
                Knob::new("AUDIT_RETENTION", "How long the audit trail is kept").default("365d").within(AUDIT_RETENTION_MIN, 10 * year),
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
            public_url: reader.read::<String>(
                Knob::new("PUBLIC_URL", "Where your front end is. Links in mails lead to its pages `/verify-email`, `/reset-password` and `/confirm-address`, with the token behind `#token=`")
                    .default("http://127.0.0.1:3000"),
            ),
            smtp_url: reader.read(
                Knob::new("SMTP_URL", "Mail server: `smtp://user:password@host:587` (STARTTLS is required but on loopback) or `smtps://user:password@host:465`")
                    .default_says("none: mails are written to MAIL_DIR"),
            ),
            mail_from: reader.read(Knob::new("MAIL_FROM", "Sender of mails; the name is what letters call the service").default(NO_SENDER)),
            mail_dir: reader
                .read::<Option<PathBuf>>(
                    Knob::new("MAIL_DIR", "Folder for mails while there is no SMTP_URL; the last 1000 are kept").default_says("`mail` in DATA_DIR"),
                )
                .unwrap_or_else(|| stack.data_dir.join("mail")),
            jobs_concurrency: reader.read(
                Knob::new("JOBS_CONCURRENCY", "Jobs (mails, for instance) that this instance does at once; 0 leaves them to others").default("4").between(0, 64),
            ),
            jobs_lease: reader.read(
                Knob::new("JOBS_LEASE", "A job of an instance that is silent for so long is taken over by another; clocks of instances must agree better than this")
                    .default("60s")
                    .within(Duration::from_secs(1), Duration::from_secs(3600)),
            ),
            stack,
        };
        settings.judge_mail(&mut reader);
        settings.judge_accounts(&mut reader);
        reader.finish().map(|entries| (settings, entries))
    }

    /// Rules of sessions and of the first administrator.
    fn judge_accounts(&self, reader: &mut Reader) {
        // Else the session would end before the access token that was given with it.
        for (name, life) in [("REFRESH_EXPIRY", self.refresh_expiry), ("SESSION_MAX_AGE", self.session_max_age)] {
            if life < self.stack.jwt_expiry {
                reader.problem(name, format!("is {}, less than JWT_EXPIRY, which is {}", life.written(), self.stack.jwt_expiry.written()));
            }
        }
        if self.admin_email.is_some() != self.admin_password.is_some() {
            reader.problem("ADMIN_EMAIL", "and ADMIN_PASSWORD belong together: set both or none");
        }
        if let Some(Err(flaw)) = self.admin_email.as_deref().map(crate::users::Email::parse) {
            reader.problem("ADMIN_EMAIL", flaw.message);
        }
        let context = PasswordContext { email: self.admin_email.as_deref(), name: Some(ADMIN_NAME), service: SERVICE_NAME };
        if let Some(Err(flaw)) = self.admin_password.as_ref().map(|password| Passwords::check(password, &context)) {
            reader.problem("ADMIN_PASSWORD", flaw.message);
        }
    }

    /// Rules of mails.
    fn judge_mail(&self, reader: &mut Reader) {
        let url = &self.public_url;
        let page = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if page.is_none_or(|page| page.is_empty() || page.starts_with('/')) || url.ends_with('/') || url.contains(['#', '?', ' ', '"', '<', '>']) {
            reader.problem("PUBLIC_URL", "must be an address such as `https://app.example.com`, without `/`, `?` or `#` at its end");
        }
        if let Some(Err(words)) = self.smtp_url.as_ref().map(|url| mail::Server::parse(url.expose_secret())) {
            reader.problem("SMTP_URL", words);
        }
        match mail::check_sender(&self.mail_from) {
            Err(words) => reader.problem("MAIL_FROM", words),
            Ok(()) if self.smtp_url.is_some() && self.mail_from == NO_SENDER => reader.problem("MAIL_FROM", "is required with SMTP_URL"),
            Ok(()) => {}
        }
    }
}
