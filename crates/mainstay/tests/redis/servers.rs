//! Servers that a test may kill: a Redis, one that follows it, a cluster, each with TLS or without.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// On a machine that compiles beside it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server of a test's own. It ends with it.
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: TempDir,
    process: Child,
}

/// A port on which nobody listens, below those that the kernel gives to clients.
fn some_port() -> u16 {
    let number = u16::from_be_bytes([Uuid::new_v4().as_bytes()[0], Uuid::new_v4().as_bytes()[1]]);
    let port = 20_000 + number % 12_000;
    if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() { port } else { some_port() }
}

/// `TEST_REDIS_SERVER` is a Valkey, say. Debian's redis-tools has the whole server under another name.
fn program() -> Command {
    if let Ok(program) = std::env::var("TEST_REDIS_SERVER") {
        return Command::new(program);
    }
    let there = |name: &str| std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join(name).is_file());
    if there("redis-server") {
        return Command::new("redis-server");
    }
    let mut program = Command::new("redis-check-rdb");
    program.arg0("redis-server");
    program
}

impl Server {
    /// Starts one with these options.
    pub(crate) async fn start(options: &[&str]) -> Self {
        Self::with(options, None, &["--cluster-enabled", "no"]).await
    }

    /// Starts one that speaks nothing but TLS, with a certificate of this authority.
    pub(crate) async fn with_tls(authority: &Authority, name: &str, options: &[&str]) -> Self {
        Self::with(options, Some((authority, name)), &["--cluster-enabled", "no"]).await
    }

    async fn with(options: &[&str], tls: Option<(&Authority, &str)>, more: &[&str]) -> Self {
        for _ in 0..10 {
            let (port, folder) = (some_port(), TempDir::new().unwrap());
            let log = folder.path().join("log");
            let mut command = program();
            command.args(["--bind", "127.0.0.1", "--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir"]).arg(folder.path());
            // Over it the test speaks, whatever the server's address has become.
            command.arg("--unixsocket").arg(folder.path().join("s"));
            match tls {
                None => _ = command.args(["--port", &port.to_string()]),
                Some((authority, name)) => {
                    let (certificate, key) = authority.sign(name);
                    command.args(["--port", "0", "--tls-port", &port.to_string(), "--tls-cert-file"]).arg(certificate);
                    command.arg("--tls-key-file").arg(key).arg("--tls-ca-cert-file").arg(authority.certificate());
                }
            }
            command.args(options).args(more).stdin(Stdio::null());
            if more.contains(&"--cluster-port") {
                command.arg((15_000 + port % 5_000).to_string());
            }
            command.stdout(File::create(&log).unwrap()).stderr(File::create(folder.path().join("errors")).unwrap());
            let mut server = Self { port, process: command.spawn().expect("a Redis: scripts/test installs one"), folder };
            let begun = Instant::now();
            while server.process.try_wait().unwrap().is_none() {
                if std::fs::read_to_string(&log).unwrap().contains("Ready to accept connections") {
                    return server;
                }
                assert!(begun.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&log).unwrap());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(said.contains("in use"), "{said}");
        }
        panic!("ten ports were taken");
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) async fn admin(&self) -> MultiplexedConnection {
        let url = format!("unix://{}", self.folder.path().join("s").display());
        redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// One command of an administrator, with spaces between its words.
    pub(crate) async fn tell<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_to_tell(command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub(crate) async fn try_to_tell<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        let mut asked = redis::cmd(words.next().unwrap());
        for word in words {
            asked.arg(word);
        }
        asked.query_async(&mut self.admin().await).await
    }

    /// Waits until `command` answers something with these words in it.
    pub(crate) async fn until(&self, command: &str, words: &str) {
        let begun = Instant::now();
        loop {
            let said: String = self.tell(command).await;
            if said.contains(words) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "no {words} in {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it is told what `primary` is told. The word of either, that they are connected, comes up to a second too early.
    pub(crate) async fn hears(&self, primary: &Self) {
        // In a cluster of up to three the first node counts it.
        let _: String = primary.tell("SET bar 1").await;
        let begun = Instant::now();
        while self.tell::<u64>("DBSIZE").await == 0 || !self.tell::<String>("INFO replication").await.contains("master_link_status:up") {
            assert!(begun.elapsed() < PATIENCE, "it does not follow");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // That may have been in the copy; this comes as it is told.
        let _: i64 = primary.tell("DEL bar").await;
        while self.tell::<u64>("DBSIZE").await > 0 {
            assert!(begun.elapsed() < PATIENCE, "it follows no more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Stops it where it is, with its connections open; or lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A cluster of a test's own: masters, and then the replica of the first.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
    at: &'static str,
}

impl Cluster {
    /// So many masters, of which the first has a replica or not. With TLS they have certificates for this, and announce it: `DNS:localhost` or an address.
    pub(crate) async fn start(masters: usize, replica: bool, tls: Option<(&Authority, &str)>) -> Self {
        let with_tls = ["--tls-cluster", "yes", "--tls-replication", "yes", "--tls-auth-clients", "no"];
        let by_name = ["--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"];
        let (options, at) = match tls {
            Some((_, "DNS:localhost")) => ([with_tls.as_slice(), &by_name].concat(), "rediss://localhost"),
            Some(_) => (with_tls.to_vec(), "rediss://127.0.0.1"),
            None => (Vec::new(), "redis://127.0.0.1"),
        };
        let more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync", "no", "--cluster-port"];
        let mut nodes = Vec::new();
        for _ in 0..masters + usize::from(replica) {
            nodes.push(Server::with(&options, tls, &more).await);
        }
        for (number, node) in nodes[..masters].iter().enumerate() {
            let (first, last) = (number * 16_384 / masters, (number + 1) * 16_384 / masters - 1);
            let _: String = node.tell(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
            let _: String = node.tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
        }
        for node in &nodes[1..] {
            let first = nodes[0].port;
            let _: String = node.tell(&format!("CLUSTER MEET 127.0.0.1 {first} {}", 15_000 + first % 5_000)).await;
        }
        for node in &nodes {
            node.until("CLUSTER INFO", &format!("cluster_known_nodes:{}", masters + usize::from(replica))).await;
        }
        if let Some(replica) = nodes.get(masters) {
            let master: String = nodes[0].tell("CLUSTER MYID").await;
            let begun = Instant::now();
            while let Err(error) = replica.try_to_tell::<String>(&format!("CLUSTER REPLICATE {master}")).await {
                assert!(begun.elapsed() < PATIENCE, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for node in &nodes {
            node.until("CLUSTER INFO", "cluster_state:ok").await;
        }
        if let Some(replica) = nodes.get(masters) {
            replica.hears(&nodes[0]).await;
        }
        Self { nodes, at }
    }

    /// As a setting names it.
    pub(crate) fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| format!("{}:{}", self.at, node.port)).collect();
        urls.join(",")
    }

    /// The number of the master that counts what is in this slot.
    pub(crate) fn master_of(&self, slot: u64, masters: usize) -> usize {
        (0..masters).rfind(|number| (number * 16_384 / masters) as u64 <= slot).unwrap()
    }

    /// All names in the cluster that have these words in them, with the slot of each.
    pub(crate) async fn names(&self, words: &str) -> HashSet<(String, u64)> {
        let mut all = HashSet::new();
        for node in &self.nodes {
            let Ok(names) = node.try_to_tell::<Vec<String>>(&format!("KEYS *{words}*")).await else { continue };
            for name in names {
                let slot = node.tell(&format!("CLUSTER KEYSLOT {name}")).await;
                all.insert((name, slot));
            }
        }
        all
    }
}

/// Somebody who vouches for servers.
pub(crate) struct Authority(TempDir);

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self(TempDir::new().unwrap());
        let subject = format!("/CN=an authority of a test, {}", Uuid::new_v4());
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        authority
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    /// A certificate and its key, for names such as `IP:127.0.0.1` or `DNS:redis.internal`.
    pub(crate) fn sign(&self, names: &str) -> (PathBuf, PathBuf) {
        let number = Uuid::new_v4().simple().to_string();
        let file = |ending: &str| format!("{number}.{ending}");
        let (key, request, extensions, certificate) = (file("key"), file("csr"), file("ext"), file("pem"));
        std::fs::write(self.0.path().join(&extensions), format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n")).unwrap();
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=a server of a test",
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "1",
            "-extfile",
            &extensions,
            "-out",
            &certificate,
        ]);
        let at = |name: &str| Path::new(self.0.path()).join(name);
        (at(&certificate), at(&key))
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(self.0.path()).output().expect("openssl: scripts/test installs it");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// Somebody who does nothing but wake up, and so knows how long the machine lets everybody wait, whatever they wait for.
pub(crate) struct Canary {
    longest_us: Arc<AtomicU64>,
    waking: JoinHandle<()>,
}

impl Canary {
    pub(crate) fn start() -> Self {
        let longest_us = Arc::new(AtomicU64::new(0));
        let longest = Arc::clone(&longest_us);
        let waking = tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                longest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
        });
        Self { longest_us, waking }
    }

    /// What a request may wait for Redis whatever happens: two and a half times the setting, and what the machine takes for itself.
    pub(crate) fn wait_max(&self) -> Duration {
        Duration::from_millis(250) + Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.waking.abort();
    }
}
