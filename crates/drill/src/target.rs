//! Whom a drill is done to: a service that it starts itself, or one that runs already.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client;

/// A release build starts in a second; a debug build on a busy machine takes this at most.
const START: Duration = Duration::from_secs(60);
/// What a service writes is kept up to here, for the words of a failure.
const OUTPUT_MAX: usize = 1 << 20;

/// A service that runs already.
#[derive(Clone, Debug)]
pub struct Running {
    /// What the report calls it.
    pub service: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process, whose memory is watched.
    pub pid: Option<u32>,
    /// A target of a cheap read that is answered with 200.
    pub reads: String,
    /// A target of a read that costs the service some milliseconds, to which a number is appended; or the same as `reads`.
    pub works: String,
    /// A target to which JSON can be posted, well-formed or not.
    pub posts: String,
    /// A target to which a text is appended as a search, if it has any.
    pub searches: Option<String>,
    /// Fields of every post: who asks.
    pub fields: Vec<(String, String)>,
}

impl Running {
    /// Reads a base URL: `http://127.0.0.1:3000`.
    ///
    /// # Errors
    /// When it is none, or names another machine than this one: drills do harm.
    pub fn address(url: &str) -> Result<SocketAddr, String> {
        let rest = url.strip_prefix("http://").ok_or("the URL must begin with http://")?;
        let authority = rest.trim_end_matches('/');
        let mut addresses = authority.to_socket_addrs().map_err(|_| "the URL must be http://host:port")?;
        let address = addresses.next().ok_or("the URL names nobody")?;
        if address.ip().is_loopback() { Ok(address) } else { Err("drills do harm: only services on loopback are drilled".to_owned()) }
    }
}

/// Settings of a service that is started.
pub(crate) type Settings = Vec<(String, String)>;

/// The program, and where its instances keep what they keep.
#[derive(Debug)]
pub(crate) struct Program {
    binary: PathBuf,
    folder: TempDir,
}

impl Program {
    /// This program.
    ///
    /// # Errors
    /// When there is no room for its files.
    pub(crate) fn new(binary: PathBuf) -> std::io::Result<Self> {
        Ok(Self { binary, folder: tempfile::Builder::new().prefix("mainstay-drill-").tempdir()? })
    }

    /// A place for files of this name.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Settings under which an instance can be drilled, with its files under `name`: free ports, limits out of the way, an administrator.
    pub(crate) fn settings(&self, name: &str, own: &[(&str, &str)]) -> Settings {
        let folder = self.file(name);
        let standard = [
            ("APP_ENV", "production".to_owned()),
            ("HOST", "127.0.0.1".to_owned()),
            ("PORT", free_port().to_string()),
            ("MANAGEMENT_ADDR", format!("127.0.0.1:{}", free_port())),
            ("DATA_DIR", folder.display().to_string()),
            ("DATABASE_URL", format!("sqlite:{}", folder.join("drill.db").display())),
            ("MAIL_DIR", folder.join("mail").display().to_string()),
            ("JWT_SECRET", "0123456789abcdef0123456789abcdef-drill".to_owned()),
            ("ADMIN_EMAIL", ADMIN.to_owned()),
            ("ADMIN_PASSWORD", PASSWORD.to_owned()),
            ("RATE_LIMIT_MAX", "100000000".to_owned()),
            ("RATE_LIMIT_ACCOUNT_MAX", "100000000".to_owned()),
            // Drills ask from addresses that they make up.
            ("TRUSTED_PROXIES", "127.0.0.1".to_owned()),
            ("SESSIONS_MAX", "1000".to_owned()),
        ];
        let changed = |name: &str| own.iter().any(|(changed, _)| *changed == name);
        let standard = standard.into_iter().filter(|(name, _)| !changed(name)).map(|(name, value)| (name.to_owned(), value));
        standard.chain(own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).collect()
    }

    /// Runs a command of the program to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed: what it said.
    pub(crate) async fn run(&self, settings: &Settings, arguments: &[&str]) -> Result<String, String> {
        let mut command = tokio::process::Command::from(self.command(&self.binary, settings));
        let output = command.args(arguments).output().await.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    fn command(&self, file: &Path, settings: &Settings) -> Command {
        let mut command = Command::new(file);
        // A mainstay.toml of whoever runs the drill is not meant.
        command.env_clear().envs(settings.iter().map(|(name, value)| (name, value))).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Starts an instance, and waits until it serves.
    ///
    /// # Errors
    /// When it does not: what it said.
    pub(crate) async fn start(&self, settings: &Settings) -> Result<Service, String> {
        // The log is written as in production, for nobody: what went wrong at the start is on standard error.
        self.begin(self.command(&self.binary, settings).stdout(Stdio::null()), settings, None).await
    }

    /// The same, from a file of the caller's own, with what it logs.
    ///
    /// # Errors
    /// As for [`Program::start`].
    pub(crate) async fn start_logged(&self, file: &Path, settings: &Settings, log: &Arc<Mutex<String>>) -> Result<Service, String> {
        self.begin(self.command(file, settings).stdout(Stdio::piped()), settings, Some(log)).await
    }

    async fn begin(&self, command: &mut Command, settings: &Settings, log: Option<&Arc<Mutex<String>>>) -> Result<Service, String> {
        let named = |wanted: &str| settings.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).unwrap_or_default();
        let public = format!("127.0.0.1:{}", named("PORT")).parse().map_err(|_| "PORT is none")?;
        let management = named("MANAGEMENT_ADDR").parse().map_err(|_| "MANAGEMENT_ADDR is none")?;
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let said: Arc<Mutex<String>> = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            gather(stderr, said.clone());
        }
        if let (Some(stdout), Some(log)) = (child.stdout.take(), log) {
            gather(stdout, log.clone());
        }
        let mut service = Service { child, public, management, said };
        let begun = Instant::now();
        while !client::ask(public, "GET", "/health/ready", &[], b"").await.is_ok_and(|answer| answer.status == 200) {
            if begun.elapsed() > START || service.ended().is_some() {
                return Err(format!("it did not start: {}", service.said()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(service)
    }
}

/// The administrator of every instance.
pub(crate) const ADMIN: &str = "admin@example.com";
/// And the password of everybody.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// An instance. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    /// Where it serves.
    pub(crate) public: SocketAddr,
    /// Where it is watched.
    pub(crate) management: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Service {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal. One that has ended hears none.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// What it has written so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// With which status it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self, most: Duration) -> Option<std::process::ExitStatus> {
        let begun = Instant::now();
        loop {
            match self.ended() {
                None if begun.elapsed() < most => tokio::time::sleep(Duration::from_millis(2)).await,
                ended => return ended,
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(stream: impl std::io::Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        // Read to the end, so that it never waits for a reader; kept up to a bound.
        while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() < OUTPUT_MAX {
                said.push_str(&String::from_utf8_lossy(&line));
            }
            line.clear();
        }
    });
}

/// A port that nobody has. Somebody may take it before the service does: then that start fails, in words.
fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).map_or(0, |address| address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_services_of_this_machine_are_drilled() {
        assert!(Running::address("http://127.0.0.1:3000").is_ok() && Running::address("http://127.0.0.1:3000/").is_ok());
        for url in ["https://127.0.0.1:3000", "http://192.0.2.1:80", "127.0.0.1:3000", "http://127.0.0.1", "http://"] {
            assert!(Running::address(url).is_err(), "{url}");
        }
    }
}
