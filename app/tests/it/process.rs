//! The built binary as a process of its own: started, watched, signalled, and never left behind.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;

/// A debug build on a busy machine starts in well under this.
const START: Duration = Duration::from_secs(30);

/// Where the built binary is. Tests are told; an example stands in a folder beside it.
pub(crate) fn binary() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_mainstay") {
        Some(path) => path.into(),
        None => std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("mainstay"),
    }
}

/// The binary, without any setting of this process's own environment.
pub(crate) fn mainstay(settings: &[(String, String)]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().envs(settings.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    // A mainstay.toml of whoever runs the tests is not meant.
    command.current_dir(std::env::temp_dir());
    command
}

/// Runs a command of the binary to its end, with this on its standard input.
pub(crate) fn run(settings: &[(String, String)], arguments: &[&str], input: &[u8]) -> Output {
    let mut child = mainstay(settings).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// A server process. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) management: SocketAddr,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Server {
    /// Starts `mainstay serve` and waits until it listens.
    pub(crate) fn start(settings: &[(String, String)]) -> Self {
        tokio::task::block_in_place(|| Self::begin(settings))
    }

    fn begin(settings: &[(String, String)]) -> Self {
        let mut child = mainstay(settings).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
        let begun = Instant::now();
        loop {
            let said = stdout.lock().unwrap().clone();
            if let Some((public, management)) = said.lines().find(|line| line.contains("serving")).and_then(addresses) {
                return Self { child, public, management, stdout, stderr };
            }
            if begun.elapsed() > START || child.try_wait().unwrap().is_some() {
                let _ = child.kill();
                panic!("it did not start: {said}{}", stderr.lock().unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A stranger.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.public)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, and says how long it took.
    pub(crate) fn wait(&mut self, deadline: Duration) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, begun.elapsed());
            }
            assert!(begun.elapsed() < deadline, "it did not end within {deadline:?}: {}", self.output());
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(5)));
        }
    }

    /// Everything it has written so far, log first.
    pub(crate) fn output(&self) -> String {
        self.stdout.lock().unwrap().clone() + &self.stderr.lock().unwrap()
    }

    /// The log lines so far.
    pub(crate) fn log(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(stream: impl std::io::Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let kept = text.clone();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            kept.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

/// The two addresses of the line that says where it listens, in either form of the log.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let after = |name: &str| {
        let rest = &line[line.find(name)? + name.len()..];
        let from = rest.find(|c: char| c.is_ascii_digit() || c == '[')?;
        let rest = &rest[from..];
        rest[..rest.find(|c: char| !(c.is_ascii_digit() || ".:[]".contains(c))).unwrap_or(rest.len())].parse().ok()
    };
    Some((after("public")?, after("management")?))
}
