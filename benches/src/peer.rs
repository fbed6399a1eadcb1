//! The peers: how each is built, started on its core, and stopped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::machine::Machine;
use crate::options::Options;
use crate::{route, token};

/// A limit that no run reaches: every request is counted, none is refused.
const RATE_LIMIT_MAX: &str = "1000000000";
/// How long a peer may take to listen; Node needs most of a second on a busy core.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// This package, where the Express peer lives and where cargo builds the two others.
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// Who is compared, in the order of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Name {
    /// axum without a stack
    BareAxum,
    /// the same routes inside Mainstay's whole stack
    Mainstay,
    /// the Express stack with the same settings
    Express,
}

impl Name {
    pub(crate) const ALL: [Self; 3] = [Self::BareAxum, Self::Mainstay, Self::Express];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::BareAxum => "bare axum",
            Self::Mainstay => "Mainstay",
            Self::Express => "Express",
        }
    }

    /// Whether headers, log, limits and the token check are part of the peer's work.
    pub(crate) fn has_stack(self) -> bool {
        self != Self::BareAxum
    }

    /// Whether the first seconds of load go to a just-in-time compiler.
    pub(crate) fn is_compiled_as_it_runs(self) -> bool {
        self == Self::Express
    }

    fn binary(self) -> Option<&'static str> {
        match self {
            Self::BareAxum => Some("bare-axum"),
            Self::Mainstay => Some("mainstay-stack"),
            Self::Express => None,
        }
    }
}

/// A peer that is built and ready to start.
pub(crate) struct Peer {
    pub(crate) name: Name,
    command: Vec<PathBuf>,
}

/// Everything that stays the same for the whole run.
pub(crate) struct Rig {
    pub(crate) peers: Vec<Peer>,
    pub(crate) token: String,
    secret: String,
    postgres: Option<String>,
    cores: Option<(u32, u32)>,
}

impl Rig {
    /// Looks for the tools, builds what is to be measured and says what is left out.
    ///
    /// # Errors
    /// When a tool is missing or a build fails; a missing Node only leaves Express out.
    pub(crate) async fn prepare(options: &Options, machine: &Machine) -> anyhow::Result<Self> {
        if !is_installed("setpriv").await || (machine.cores.is_some() && !is_installed("taskset").await) {
            bail!("`taskset` and `setpriv` start the peers and are not installed (package util-linux)");
        }
        if !is_installed("wrk").await {
            bail!("the load generator `wrk` is not installed (on Debian and Ubuntu: apt-get install wrk)");
        }
        if machine.cores.is_none() {
            println!("Fewer than two cores: server and load generator share one, read the CPU time and not the throughput.");
        }
        let directory = target_directory()?;
        let mut peers = Vec::new();
        for name in Name::ALL.into_iter().filter(|name| options.peers.contains(name)) {
            let command = match name.binary() {
                Some(binary) => {
                    build(binary, &directory).await?;
                    vec![directory.join(binary)]
                }
                None if !is_installed("node").await || !is_installed("npm").await => {
                    println!("Node or npm is not installed: Express is skipped.");
                    continue;
                }
                None => {
                    let express = Path::new(PACKAGE).join("express");
                    install_express(&express).await?;
                    vec!["node".into(), express.join("server.js")]
                }
            };
            peers.push(Peer { name, command });
        }
        let secret = token::secret();
        let token = token::signed(&secret);
        Ok(Self { peers, token, secret, postgres: options.postgres.clone(), cores: machine.cores })
    }

    /// Starts a peer on the server's core and waits until it listens.
    ///
    /// # Errors
    /// When it ends at once or does not listen in time.
    pub(crate) async fn start(&self, peer: &Peer, log: Stdio) -> anyhow::Result<Server> {
        let port = free_port()?;
        let mut command = on_core(self.cores.map(|(server, _)| server), &peer.command);
        // Nothing of the caller's environment, so that a forgotten setting cannot change a peer.
        command.env_clear().stdout(log);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("PORT", port.to_string()).env("NODE_ENV", "production").env("APP_ENV", "production");
        command
            .env("ALLOWED_ORIGINS", route::ORIGIN)
            .env("RATE_LIMIT_MAX", RATE_LIMIT_MAX)
            .env("RATE_LIMIT_ACCOUNT_MAX", RATE_LIMIT_MAX)
            .env("JWT_SECRET", &self.secret);
        command.envs(self.postgres.as_ref().map(|url| ("DATABASE_URL", url)));
        let child = command.spawn().context("a peer cannot be started")?;
        let mut server = Server { child, port, name: peer.name };
        server.listens().await?;
        Ok(server)
    }

    /// `wrk` on the core of the load generator.
    pub(crate) fn wrk(&self) -> Command {
        on_core(self.cores.map(|(_, load)| load), &["wrk".into()])
    }
}

/// A command bound to a core, which the kernel ends when this process is gone, even by SIGKILL.
fn on_core(core: Option<u32>, words: &[PathBuf]) -> Command {
    let mut command = match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string(), "setpriv"]);
            command
        }
        None => Command::new("setpriv"),
    };
    command.args(["--pdeathsig", "KILL"]).args(words).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A running peer; dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) name: Name,
}

impl Server {
    /// The process id: `taskset` and `setpriv` become the peer, so it is the child's own.
    ///
    /// # Errors
    /// When the peer has ended.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name.title()))
    }

    /// Stops the peer and waits until it is gone.
    ///
    /// # Errors
    /// When the process cannot be awaited.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("a peer could not be stopped")
    }

    async fn listens(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended before it listened: {status}", self.name.title());
            }
            if Instant::now() > deadline {
                bail!("{} does not listen after {} s", self.name.title(), START_TIMEOUT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Where this binary lies, and where its sibling peers are built.
fn target_directory() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("a binary lies in a directory")?.to_owned())
}

/// Whether a program can be started at all; what it answers does not matter.
async fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.is_ok()
}

/// Builds a peer with the profile of this binary: `cargo run` has built this one alone, and an old peer would be measured.
async fn build(binary: &str, directory: &Path) -> anyhow::Result<()> {
    let mut command = on_core(None, &[std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()]);
    command.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--bin", binary]).current_dir(PACKAGE);
    if cfg!(debug_assertions) {
        println!("A debug build: its figures mean nothing. Use `cargo run --release`.");
    } else {
        command.arg("--release");
    }
    if let Some(target) = directory.parent() {
        command.arg("--target-dir").arg(target);
    }
    let status = command.status().await.context("cargo builds the peers")?;
    if !status.success() {
        bail!("the peer `{binary}` could not be built");
    }
    Ok(())
}

/// Installs exactly what the lock file names, once.
async fn install_express(directory: &Path) -> anyhow::Result<()> {
    if directory.join("node_modules").is_dir() {
        return Ok(());
    }
    println!("Installing the Express peer's packages.");
    let mut command = on_core(None, &["npm".into()]);
    command.args(["ci", "--silent", "--no-progress"]).current_dir(directory);
    if !command.status().await?.success() {
        bail!("`npm ci` failed in {}; --peers bare-axum,mainstay runs without Express", directory.display());
    }
    Ok(())
}

/// A file for a peer's log, or nowhere.
pub(crate) fn log_to(file: Option<File>) -> Stdio {
    file.map_or_else(Stdio::null, Stdio::from)
}
