//! A new process takes over the sockets: from the one before (SIGUSR2), or from a supervisor that holds them. The load is that of `mainstay drill deploy`.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::{Answer, Client, read_answer};
use crate::ground::{ADMIN, Ground, PASSWORD, within};
use crate::process::{self, Server, pid_in};

/// A start and a drain, unoptimised, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(60);

on_both! {
    a_connection_on_which_nobody_asks_is_served_on_by_the_next_process
    a_request_in_flight_is_answered_by_the_process_before_and_told_to_close
    who_was_started_to_ignore_the_end_of_a_terminal_ignores_it_and_so_does_the_next_process
    what_was_found_before_is_found_at_once_by_the_next_process
    a_release_that_hangs_is_ended_and_a_second_signal_meanwhile_is_ignored
    sigterm_while_a_new_process_prepares_itself_ends_both
    sigterm_while_a_release_that_hangs_is_being_ended_leaves_none
    a_supervisor_that_holds_the_socket_hears_how_the_service_is
}

/// A program of the test's own in the place of the service, which is put back by `restore`.
struct Place {
    link: PathBuf,
    folder: PathBuf,
}

impl Place {
    fn new(ground: &Ground) -> Self {
        let folder = ground.file("place");
        std::fs::create_dir_all(&folder).unwrap();
        let place = Self { link: folder.join("mainstay"), folder };
        place.put(&process::binary());
        place
    }

    fn put(&self, program: &Path) {
        let next = self.folder.join("next");
        std::os::unix::fs::symlink(program, &next).unwrap();
        std::fs::rename(next, &self.link).unwrap();
    }

    /// A script of the shell takes the place. It is written by another process: a file that this one had open might still be open in a child of another test.
    fn script(&self, text: &str) {
        let script = self.folder.join("script");
        let written = Command::new("sh").args(["-c", "printf '%s' \"$1\" > \"$0\""]).arg(&script).arg(format!("#!/bin/sh\n{text}\n")).status();
        assert!(written.unwrap().success());
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.put(&script);
    }

    fn start(&self, settings: &[(String, String)]) -> Server {
        Server::start_as(process::mainstay_at(&self.link, settings))
    }
}

/// One request on a connection that the test looks after.
async fn ask(connection: &mut BufReader<TcpStream>, path: &str) -> Answer {
    connection.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    read_answer(connection, "GET").await.unwrap()
}

async fn signed_in(server: &Server) -> Client {
    let signed = server.client().post("/api/auth/login", &json!({"email": ADMIN, "password": PASSWORD})).await.expect(200).data();
    server.client().with_token(signed["access_token"].as_str().unwrap())
}

async fn a_connection_on_which_nobody_asks_is_served_on_by_the_next_process(ground: Arc<Ground>) {
    let mut server = Place::new(&ground).start(&ground.pairs(&[]));
    let before = server.pid();
    let mut used = BufReader::new(TcpStream::connect(server.public).await.unwrap());
    ask(&mut used, "/health/live").await.expect(200);
    let mut silent = BufReader::new(TcpStream::connect(server.public).await.unwrap());
    // Whoever is answered now came after it.
    server.client().get("/health/live").await.expect(200);
    assert_eq!(server.hand_over(PATIENCE), Ok(0), "{}", server.output());
    assert_ne!(server.pid(), before);
    for connection in [&mut used, &mut silent] {
        for _ in 0..2 {
            let answer = ask(connection, "/health/ready").await.expect(200);
            assert_eq!(answer.header("connection"), None, "it is a connection as any other");
        }
    }
    // The management address is the new process's as well.
    Client::new(server.management).get("/health").await.expect(200);
    assert_eq!(server.hand_over(PATIENCE), Ok(0), "and so on: {}", server.output());
    ask(&mut used, "/health/ready").await.expect(200);
    assert_eq!(server.end(PATIENCE), 0, "{}", server.output());
}

async fn a_request_in_flight_is_answered_by_the_process_before_and_told_to_close(ground: Arc<Ground>) {
    let mut server = Place::new(&ground).start(&ground.pairs(&[]));
    let before = server.pid();
    let mut slow = BufReader::new(TcpStream::connect(server.public).await.unwrap());
    let head = b"POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{";
    slow.get_mut().write_all(head).await.unwrap();
    server.client().get("/health/live").await.expect(200);
    server.signal(Signal::USR2);
    within(PATIENCE, "the next process serves", || async { server.log().contains("taken over") }).await;
    assert!(test_kill_process(before).is_ok(), "the one before waits for the rest of the request");
    // Nobody is told that the address has gone.
    server.client().get("/health/ready").await.expect(200);
    slow.get_mut().write_all(b"}").await.unwrap();
    let answer = read_answer(&mut slow, "POST").await.unwrap().expect(400);
    assert_eq!(answer.header("connection"), Some("close"));
    let (status, _) = server.wait(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", server.output());
    server.adopt_heir();
    assert_eq!(server.end(PATIENCE), 0, "{}", server.output());
}

async fn who_was_started_to_ignore_the_end_of_a_terminal_ignores_it_and_so_does_the_next_process(ground: Arc<Ground>) {
    let mut command = process::mainstay_at(Path::new("/bin/sh"), &ground.pairs(&[]));
    command.args(["-c", "trap '' HUP; exec \"$0\""]).arg(process::binary());
    let mut server = Server::start_as(command);
    for _ in 0..2 {
        server.signal(Signal::HUP);
        server.client().get("/health/ready").await.expect(200);
        assert_eq!(server.hand_over(PATIENCE), Ok(0), "{}", server.output());
    }
    assert_eq!(server.log().matches("handing over").count(), 2, "once for each SIGUSR2: {}", server.log());
    assert_eq!(server.end(PATIENCE), 0, "{}", server.output());
}

async fn what_was_found_before_is_found_at_once_by_the_next_process(ground: Arc<Ground>) {
    let mut server = Place::new(&ground).start(&ground.pairs(&[]));
    let admin = signed_in(&server).await;
    for number in 0..30 {
        admin.post("/api/products", &json!({"name": format!("lamp {number}")})).await.expect(201);
    }
    for round in 0..3 {
        assert_eq!(server.hand_over(PATIENCE), Ok(0), "{}", server.output());
        let found = server.client().get("/api/products/search?q=lamp&limit=100").await.expect(200).json();
        assert_eq!(found["data"].as_array().map(Vec::len), Some(30), "round {round}: {}", server.output());
    }
    assert_eq!(server.end(PATIENCE), 0, "{}", server.output());
}

async fn a_release_that_hangs_is_ended_and_a_second_signal_meanwhile_is_ignored(ground: Arc<Ground>) {
    let place = Place::new(&ground);
    let mut server = place.start(&ground.pairs(&[("HANDOVER_TIMEOUT", "2s")]));
    let before = server.pid();
    place.script("exec sleep 600");
    server.signal(Signal::USR2);
    within(PATIENCE, "it is started", || async { server.log().contains("handing over") }).await;
    let line = server.log().lines().find(|line| line.contains("handing over")).map(str::to_owned).unwrap();
    let hanging = pid_in(&line).unwrap();
    server.signal(Signal::USR2);
    within(PATIENCE, "the second signal is ignored", || async { server.log().contains("ignored") }).await;
    within(PATIENCE, "it is given up", || async { server.log().contains("did not serve in time") }).await;
    within(PATIENCE, "it is ended", || async { test_kill_process(hanging).is_err() }).await;
    server.client().get("/api/products").await.expect(200);
    place.put(&process::binary());
    assert_eq!(server.hand_over(PATIENCE), Ok(0), "signals are heard as before: {}", server.output());
    assert_ne!(server.pid(), before);
    assert_eq!(server.end(PATIENCE), 0, "{}", server.output());
}

async fn sigterm_while_a_release_that_hangs_is_being_ended_leaves_none(ground: Arc<Ground>) {
    let place = Place::new(&ground);
    let mut server = place.start(&ground.pairs(&[("HANDOVER_TIMEOUT", "2s"), ("SHUTDOWN_TIMEOUT", "2s")]));
    place.script("trap '' TERM; exec sleep 600");
    server.signal(Signal::USR2);
    within(PATIENCE, "it is given up", || async { server.log().contains("did not serve in time") }).await;
    let line = server.log().lines().find(|line| line.contains("handing over")).map(str::to_owned).unwrap();
    let hanging = pid_in(&line).unwrap();
    server.signal(Signal::USR2);
    within(PATIENCE, "nobody is started beside it", || async { server.log().contains("has not ended yet") }).await;
    server.signal(Signal::TERM);
    let (status, _) = server.wait(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", server.output());
    assert!(test_kill_process(hanging).is_err(), "it has ended first: {}", server.output());
}

async fn sigterm_while_a_new_process_prepares_itself_ends_both(ground: Arc<Ground>) {
    let place = Place::new(&ground);
    let mut server = place.start(&ground.pairs(&[("SHUTDOWN_TIMEOUT", "2s")]));
    // It becomes the service, so that it is told and not killed, but not before the signal is there.
    let go = ground.file("go");
    place.script(&format!("while [ ! -e '{}' ]; do sleep 0.01; done\nexec '{}' \"$@\"", go.display(), process::binary().display()));
    server.signal(Signal::USR2);
    within(PATIENCE, "it is started", || async { server.log().contains("handing over") }).await;
    let line = server.log().lines().find(|line| line.contains("handing over")).map(str::to_owned).unwrap();
    let preparing: Pid = pid_in(&line).unwrap();
    server.signal(Signal::TERM);
    within(PATIENCE, "the signal was heard", || async { server.log().contains("and the new process with this one") }).await;
    std::fs::write(&go, "").unwrap();
    let (status, _) = server.wait(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", server.output());
    assert!(test_kill_process(preparing).is_err(), "the new one has ended first: {}", server.output());
    assert!(TcpStream::connect(server.public).await.is_err(), "nobody listens");
}

/// Plays systemd: it holds the socket, starts the service with it, and reads what the service says of itself.
async fn a_supervisor_that_holds_the_socket_hears_how_the_service_is(ground: Arc<Ground>) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let path = ground.file("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        tokio::task::block_in_place(|| {
            let mut bytes = [0; 256];
            let count = notify.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        })
    };
    let settings = ground.pairs(&[("NOTIFY_SOCKET", &path.display().to_string())]);
    let mut server = Server::start_as(supervised(&ground, &socket, &settings));
    assert_eq!(hear(), "READY=1");
    assert_eq!(server.public, address, "PORT is not what it listens on");
    let mut client = BufReader::new(TcpStream::connect(address).await.unwrap());
    ask(&mut client, "/health/ready").await.expect(200);
    assert_eq!(server.hand_over(PATIENCE), Ok(0), "{}", server.output());
    assert_eq!(hear(), "RELOADING=1");
    assert_eq!(hear(), format!("MAINPID={}\nREADY=1", server.pid().as_raw_nonzero()));
    ask(&mut client, "/health/ready").await.expect(200);
    assert_eq!(server.end(PATIENCE), 0, "{}", server.output());
    assert_eq!(hear(), "STOPPING=1");
    // Nobody serves, and nobody is refused: the next start finds the request in the queue.
    let mut early = TcpStream::connect(address).await.unwrap();
    early.write_all(b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut server = Server::start_as(supervised(&ground, &socket, &settings));
    let mut answer = String::new();
    early.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    kill_process(server.pid(), Signal::TERM).unwrap();
    assert_eq!(server.wait(PATIENCE).0.code(), Some(0), "{}", server.output());
}

/// The service as systemd starts it, with the socket as descriptor 3. The shell puts its own number into LISTEN_PID and becomes the service.
fn supervised(ground: &Ground, socket: &std::net::TcpListener, settings: &[(String, String)]) -> Command {
    let place = Place::new(ground);
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=public exec \"$0\""]).arg(&place.link);
    command.env_clear().envs(settings.iter().map(|(name, value)| (name, value))).current_dir(std::env::temp_dir());
    command.stdin(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
    command
}

#[test]
fn descriptors_that_are_not_what_they_should_be_are_refused() {
    let refused = |script: &str| {
        let output = Command::new("sh").args(["-c", script]).arg(process::binary()).env_clear().output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" 3</dev/null").contains("no socket"));
    assert!(refused("exec 3<&-; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\"").contains("not open"));
    assert!(refused("LISTEN_PID=$$ LISTEN_FDS=7 exec \"$0\"").contains("LISTEN_FDS is `7`"));
    assert!(refused("MAINSTAY_HANDOVER=1 exec \"$0\" </dev/null").contains("no process that hands over"));
}
