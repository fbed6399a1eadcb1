//! The built binary as a process of its own: started, watched, signalled, and never left behind.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

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
    mainstay_at(&binary(), settings)
}

/// The same, found elsewhere.
pub(crate) fn mainstay_at(program: &Path, settings: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
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
    /// Who has taken over from it.
    heir: Option<Pid>,
    pub(crate) public: SocketAddr,
    pub(crate) management: SocketAddr,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Server {
    /// Starts `mainstay serve` and waits until it listens.
    pub(crate) fn start(settings: &[(String, String)]) -> Self {
        Self::start_as(mainstay(settings))
    }

    /// The same, with a command that the test has made.
    pub(crate) fn start_as(command: Command) -> Self {
        tokio::task::block_in_place(|| Self::begin(command))
    }

    fn begin(mut command: Command) -> Self {
        // Who takes over from it is a child of this process when its own parent has ended, and is waited for here.
        set_child_subreaper(Some(getpid())).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
        let begun = Instant::now();
        loop {
            let said = stdout.lock().unwrap().clone();
            if let Some((public, management)) = said.lines().find(|line| line.contains("serving")).and_then(addresses) {
                return Self { child, heir: None, public, management, stdout, stderr };
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
        kill_process(self.pid(), signal).unwrap();
    }

    /// The process that serves now.
    pub(crate) fn pid(&self) -> Pid {
        self.heir.unwrap_or_else(|| Pid::from_child(&self.child))
    }

    /// Has it hand over, and waits until the process before has ended, with its exit code; or gives the line that says why it goes on.
    pub(crate) fn hand_over(&mut self, deadline: Duration) -> Result<i32, String> {
        let told = |log: &str| log.lines().filter(|line| line.contains("handed over")).map(str::to_owned).collect::<Vec<_>>();
        let before = told(&self.log()).len();
        self.signal(Signal::USR2);
        let begun = Instant::now();
        let line = loop {
            // The line with the outcome, and not one of the new process about the old.
            if let Some(line) = told(&self.log()).into_iter().nth(before) {
                break line;
            }
            assert!(begun.elapsed() < deadline, "nothing became of it: {}", self.output());
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(5)));
        };
        if line.contains("nothing was handed over") {
            return Err(line);
        }
        let (status, _) = self.wait_for_code(deadline);
        self.heir = Some(pid_in(&line).unwrap());
        Ok(status)
    }

    /// The process before has ended: who has taken over is looked after from now on.
    pub(crate) fn adopt_heir(&mut self) {
        let line = self.log().lines().rfind(|line| line.contains("handed over: ")).map(str::to_owned).unwrap();
        self.heir = pid_in(&line);
    }

    fn wait_for_code(&mut self, deadline: Duration) -> (i32, Duration) {
        let Some(heir) = self.heir else {
            let (status, took) = self.wait(deadline);
            return (status.code().unwrap_or(-1), took);
        };
        let begun = Instant::now();
        loop {
            if let Some((_, status)) = waitpid(Some(heir), WaitOptions::NOHANG).unwrap() {
                self.heir = None;
                return (status.exit_status().unwrap_or(-1), begun.elapsed());
            }
            assert!(begun.elapsed() < deadline, "it did not end within {deadline:?}: {}", self.output());
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(5)));
        }
    }

    /// Asks the one that serves now to end, and gives its exit code.
    pub(crate) fn end(&mut self, deadline: Duration) -> i32 {
        self.signal(Signal::TERM);
        self.wait_for_code(deadline).0
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
        if let Some(heir) = self.heir.take() {
            let _ = kill_process(heir, Signal::KILL);
            let _ = waitpid(Some(heir), WaitOptions::empty());
        }
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

/// The process that a line of the log speaks of, in either form of the log.
pub(crate) fn pid_in(line: &str) -> Option<Pid> {
    let rest = &line[line.rfind("pid")? + 3..];
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    Pid::from_raw(digits.parse().ok()?)
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
