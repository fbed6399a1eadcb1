//! A PostgreSQL of a test's own, for what no shared one can bear: to be killed, promoted, or to speak TLS.
//!
//! Its programs are looked for where Debian has them, newest first, then on the path. It is on a free port of
//! 127.0.0.1, trusts everybody there, and is killed when it is dropped.

use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::fs;
use std::io::{self, Error};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A start takes a second; a busy machine takes its time.
const START: Duration = Duration::from_secs(60);
/// Somebody else may take the port between the moment it was found free and the moment the server asks for it.
const TRIES: u32 = 5;

/// A running server.
#[derive(Debug)]
pub struct PostgresServer {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl PostgresServer {
    /// Makes a database cluster in a new folder `name` of `folder` and starts a server on it, with settings as in `postgresql.conf`. The files, which only
    /// the server can read, are in `..` for it.
    ///
    /// Blocks. The server ends with the thread that calls this, so call it on one that lives as long as the test.
    ///
    /// # Errors
    /// When the programs are missing or the server does not start; with what it said.
    pub fn start(folder: &Path, name: &str, files: &[(&str, &[u8])], settings: &[(&str, &str)]) -> io::Result<PostgresServer> {
        let own = own_folder(folder, name)?;
        for (name, content) in files {
            let file = own.join(name);
            fs::write(&file, content)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            give_to_server(&file)?;
        }
        let data = own.join("data");
        finish(program("initdb")?.arg("-D").arg(&data).args(["-U", "mainstay", "-A", "trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]))?;
        PostgresServer::run(own, settings)
    }

    /// Starts a copy that follows this one.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub fn replica(&self, folder: &Path, name: &str) -> io::Result<PostgresServer> {
        let own = own_folder(folder, name)?;
        let (data, port) = (own.join("data"), self.address.port().to_string());
        let copy = ["-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-h", "127.0.0.1", "-U", "mainstay", "-p", &port];
        finish(program("pg_basebackup")?.arg("-D").arg(&data).args(copy))?;
        PostgresServer::run(own, &[])
    }

    fn run(folder: PathBuf, settings: &[(&str, &str)]) -> io::Result<PostgresServer> {
        let mut said = String::new();
        for _ in 0..TRIES {
            let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
            let log = fs::File::create(folder.join("log"))?;
            let mut command = program("postgres")?;
            command.arg("-D").arg(folder.join("data")).args(["-p", &address.port().to_string()]);
            let own = [("listen_addresses", "127.0.0.1"), ("unix_socket_directories", ""), ("fsync", "off"), ("shared_buffers", "16MB")];
            for (name, value) in own.iter().chain([("max_connections", "60"), ("log_min_messages", "warning")].iter()).chain(settings) {
                command.arg("-c").arg(format!("{name}={value}"));
            }
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
            let mut server = PostgresServer { child, folder: folder.clone(), address };
            if server.is_ready()? {
                return Ok(server);
            }
            said = fs::read_to_string(folder.join("log"))?;
        }
        Err(Error::other(format!("PostgreSQL did not start: {said}")))
    }

    /// What the server itself writes into its lock file, so that another one on the port is not mistaken for it.
    fn is_ready(&mut self) -> io::Result<bool> {
        let begun = Instant::now();
        loop {
            let lock = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
            if lock.lines().any(|line| line.starts_with("ready")) {
                return Ok(true);
            }
            if self.child.try_wait()?.is_some() || begun.elapsed() > START {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of one of its databases, for its superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://mainstay@{}/{database}", self.address)
    }

    /// Ends it as a lost machine does: no process of it runs another instruction.
    pub fn kill(&mut self) {
        let postmaster = Pid::from_child(&self.child);
        // It first: it would start others in the place of those that die.
        let _ = kill_process(postmaster, Signal::STOP);
        for process in children(postmaster) {
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The processes whose parent this is (proc_pid_stat(5): the second field after the name).
fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero().to_string();
    let of_parent = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let is_child = stat.rsplit(')').next()?.split_whitespace().nth(1)? == parent;
        is_child.then(|| Pid::from_raw(number)).flatten()
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of_parent).collect()
}

/// A folder that belongs to whoever runs the server.
fn own_folder(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let own = folder.join(name);
    fs::create_dir(&own)?;
    if geteuid().is_root() {
        // The server must reach its own folder through this one.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
    }
    give_to_server(&own)?;
    Ok(own)
}

fn give_to_server(path: &Path) -> io::Result<()> {
    match server_user()? {
        Some((user, group)) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// PostgreSQL refuses to be run by root: as whom it runs then.
fn server_user() -> io::Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let named = |name: &str| {
        let fields: Vec<&str> = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    named("postgres").or_else(|| named("nobody")).map(Some).ok_or_else(|| Error::other("there is no user as whom PostgreSQL could run"))
}

/// One of PostgreSQL's programs, which ends when the thread that started it does.
fn program(name: &str) -> io::Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]).current_dir("/");
    if let Some((user, group)) = server_user()? {
        command.args(["--clear-groups", "--reuid", &user.to_string(), "--regid", &group.to_string()]);
    }
    command.arg(bin().map_or_else(|| name.into(), |bin| bin.join(name)));
    Ok(command)
}

fn bin() -> Option<PathBuf> {
    let version = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path());
    versions.filter(|folder| version(folder).is_some()).max_by_key(version).map(|folder| folder.join("bin"))
}

/// Runs a program to its end.
fn finish(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}
