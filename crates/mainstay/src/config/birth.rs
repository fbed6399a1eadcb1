//! What a process is given at its birth beside its settings: how it was called, the sockets of a supervisor, and whether another process makes room for it.
//!
//! Promises: it only reads. What the words mean, and whether they may be believed, is decided in [`crate::handover`].

use std::ffi::OsString;
use std::path::PathBuf;

/// The name of the variable that tells a process that its standard input leads to the one it succeeds.
pub(crate) const HANDOVER: &str = "MAINSTAY_HANDOVER";

/// The variables of `sd_listen_fds(3)`: meant for one process, so they are kept from its successor.
pub(crate) const LISTEN: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// How this process was started.
#[derive(Debug, Clone, Default)]
pub struct Birth {
    /// The program's file, as the one who started it named it: a symbolic link stays one, so that it may lead to another release later.
    pub program: PathBuf,
    /// The arguments behind it.
    pub arguments: Vec<OsString>,
    /// `LISTEN_PID`: whose the sockets of the supervisor are.
    pub listen_pid: Option<String>,
    /// `LISTEN_FDS`: how many there are, from descriptor 3 on.
    pub listen_fds: Option<String>,
    /// `LISTEN_FDNAMES`: their names, with colons between them.
    pub listen_fdnames: Option<String>,
    /// `NOTIFY_SOCKET`: where the supervisor wants to hear how the process is.
    pub notify_socket: Option<OsString>,
    /// `MAINSTAY_HANDOVER`: the process succeeds another one.
    pub handover: Option<String>,
}

impl Birth {
    /// That of this process. To be asked at its start: a release that replaces the file changes what the system says later.
    pub fn of_this_process() -> Self {
        let text = |name: &str| std::env::var(name).ok();
        let [listen_pid, listen_fds, listen_fdnames] = LISTEN.map(text);
        let mut arguments = std::env::args_os();
        let called = arguments.next().unwrap_or_default();
        Self {
            program: program(called),
            arguments: arguments.collect(),
            listen_pid,
            listen_fds,
            listen_fdnames,
            notify_socket: std::env::var_os("NOTIFY_SOCKET"),
            handover: text(HANDOVER),
        }
    }
}

/// Where `called` leads: a path from the folder of the start, or a name to be looked for in `PATH`. The system's own answer has every link resolved, so it
/// would stay with the old release for ever; it is the judge, because what a process is called is only what its parent says.
fn program(called: OsString) -> PathBuf {
    let running = std::env::current_exe().unwrap_or_else(|_| PathBuf::from(&called));
    let named = PathBuf::from(&called);
    let candidates: Vec<PathBuf> = if named.components().count() > 1 {
        std::env::current_dir().map(|folder| folder.join(&named)).into_iter().collect()
    } else {
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).map(|folder| folder.join(&named)).collect()).unwrap_or_default()
    };
    candidates.into_iter().find(|candidate| candidate.canonicalize().is_ok_and(|file| file == running)).unwrap_or(running)
}
