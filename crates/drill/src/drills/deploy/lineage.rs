//! Processes that take over from one another, watched by their log and their ends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

use crate::target::{Program, Service, Settings};

/// A start and a drain, unoptimised, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(5);

/// What became of a handover.
pub(super) enum Ended {
    /// The process before has ended, with this code.
    HandedOver(i32),
    /// It goes on, for what this line of its log says.
    GoesOn(String),
}

/// The process that serves now. It is killed when this is dropped.
pub(super) struct Lineage {
    first: Service,
    /// Who has taken over, if anybody has.
    heir: Option<Pid>,
    log: Arc<Mutex<String>>,
}

impl Lineage {
    /// Starts the first one, from this file, and waits until it serves.
    pub(super) async fn start(program: &Program, file: &Path, settings: &Settings) -> Result<Self, String> {
        // Who takes over is a child of this process when its own parent has ended, and is waited for here.
        set_child_subreaper(Some(getpid())).map_err(|error| error.to_string())?;
        let log = Arc::default();
        let first = program.start_logged(file, settings, &log).await?;
        Ok(Self { first, heir: None, log })
    }

    /// Where all of them serve.
    pub(super) fn address(&self) -> SocketAddr {
        self.first.public
    }

    /// The process that serves now.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.heir.or_else(|| Pid::from_raw(i32::try_from(self.first.pid()).ok()?))
    }

    /// Has it hand over, and waits for what becomes of that.
    pub(super) async fn hand_over(&mut self) -> Result<Ended, String> {
        let before = self.told().len();
        self.signal(Signal::USR2);
        let begun = Instant::now();
        let line = loop {
            // The line with the outcome, and not one of the new process about the old.
            if let Some(line) = self.told().into_iter().nth(before) {
                break line;
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("nothing became of a handover: {}", self.first.said()));
            }
            tokio::time::sleep(LOOK).await;
        };
        if line.contains("nothing was handed over") {
            return Ok(Ended::GoesOn(line));
        }
        // Whatever comes next, the new process is looked after.
        let heir = pid_in(&line).ok_or_else(|| format!("no process is named: {line}"))?;
        let code = self.wait().await;
        self.heir = Some(heir);
        code.map(Ended::HandedOver)
    }

    /// Asks the one that serves now to end; its code.
    pub(super) async fn end(&mut self) -> Result<i32, String> {
        self.signal(Signal::TERM);
        let code = self.wait().await;
        self.heir = None;
        code
    }

    fn signal(&self, signal: Signal) {
        // One that has ended hears none, and is found out by that.
        let _ = self.pid().map(|pid| kill_process(pid, signal));
    }

    /// The lines so far that tell how a handover ended.
    fn told(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.lines().filter(|line| line.contains("handed over")).map(str::to_owned).collect()
    }

    async fn wait(&mut self) -> Result<i32, String> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(code) = self.ended()? {
                return Ok(code);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(format!("a process did not end: {}", self.first.said()))
    }

    fn ended(&mut self) -> Result<Option<i32>, String> {
        match self.heir {
            None => Ok(self.first.ended().map(|status| status.code().unwrap_or(-1))),
            Some(heir) => {
                let ended = waitpid(Some(heir), WaitOptions::NOHANG).map_err(|error| error.to_string())?;
                Ok(ended.map(|(_, status)| status.exit_status().unwrap_or(-1)))
            }
        }
    }
}

impl Drop for Lineage {
    fn drop(&mut self) {
        if let Some(heir) = self.heir.take() {
            let _ = kill_process(heir, Signal::KILL);
            let _ = waitpid(Some(heir), WaitOptions::empty());
        }
    }
}

/// The process that a line of the log speaks of, in either form of the log.
fn pid_in(line: &str) -> Option<Pid> {
    let rest = &line[line.rfind("pid")? + 3..];
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    Pid::from_raw(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_of_a_line_is_found_in_either_form_of_the_log() {
        for line in [r#"{"message":"handed over: the new process serves","fields":{"pid":4711,"took_ms":3}}"#, "INFO handed over pid=4711 took_ms=3"]
        {
            assert_eq!(pid_in(line), Pid::from_raw(4711), "{line}");
        }
        assert_eq!(pid_in("handed over"), None);
    }
}
