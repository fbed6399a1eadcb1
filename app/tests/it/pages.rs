//! Pages that show commands and what they print: the commands are run, all of a page in one shell, and what they print is what the page shows.
//!
//! A block of `console` has commands, each behind `$ ` and going on after a line that ends in `\`, and below each what it prints. `...` stands for anything that was
//! left out, and long lines may be broken anywhere: white space at the ends of lines does not count. `CODE=123456` stands for the next code of the authenticator
//! that has `$SECRET`, whatever digits are shown. A page that is to be tried is one line in the list below.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use jiff::Timestamp;
use mainstay::clock::Clock;
use uuid::Uuid;

use crate::ground::{Ground, within};
use crate::process::{self, Server};
use crate::second_factor::Authenticator;

on_both! {
    the_page_of_accounts_shows_what_happens
}

/// What the pages take for the service's address.
const SHOWN: &str = "http://127.0.0.1:3000";
/// A command of a page is one request or two.
const PATIENCE: Duration = Duration::from_secs(30);

async fn the_page_of_accounts_shows_what_happens(ground: Arc<Ground>) {
    run(&ground, include_str!("../../../docs/accounts.md")).await;
}

/// A command and what the page says that it prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    line: usize,
    command: String,
    prints: String,
}

/// The commands of a page, in their order.
fn commands(page: &str) -> Vec<Shown> {
    let (mut commands, mut inside, mut goes_on) = (Vec::<Shown>::new(), false, false);
    for (number, line) in page.lines().enumerate() {
        match (inside, line.strip_prefix("$ ")) {
            (false, _) => inside = line == "```console",
            (true, _) if line == "```" => inside = false,
            (true, Some(command)) if !goes_on => {
                commands.push(Shown { line: number + 1, command: command.to_owned() + "\n", prints: String::new() });
                goes_on = line.ends_with('\\');
            }
            (true, _) => {
                let last = commands.last_mut().expect("a block begins with a command");
                *(if goes_on { &mut last.command } else { &mut last.prints }) += &(line.to_owned() + "\n");
                goes_on = goes_on && line.ends_with('\\');
            }
        }
    }
    commands
}

/// Without the breaks that a page makes for its readers.
fn joined(text: &str) -> String {
    text.lines().map(str::trim).collect()
}

/// Is this what was shown, where `...` may be anything?
fn is_shown(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (joined(shown), joined(printed));
    let mut parts = shown.split("...").map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn a_page_is_read_as_it_is_written() {
    let page = "Words.\n\n```console\n$ first \\\n    -x '$ no'\nprints\n  more\n$ second\n```\n$ words\n```sh\n$ not run\n```\n";
    let shown = |line, command: &str, prints: &str| Shown { line, command: command.to_owned(), prints: prints.to_owned() };
    assert_eq!(commands(page), [shown(4, "first \\\n    -x '$ no'\n", "prints\n  more\n"), shown(8, "second\n", "")]);
    assert!(is_typed_code("CODE=287082\n") && !is_typed_code("CODE=$(jq .code codes.json)\n") && !is_typed_code("A=287082\n"));
    assert!(is_shown("{\"a\":1,\n  \"b\":2}\n", "{\"a\":1,\"b\":2}"));
    assert!(is_shown("{\"a\":\"...\", ... \"z\":1}", "{\"a\":\"x\",\"b\":2,\"z\":1}") && is_shown("...", "anything") && is_shown("", "\n"));
    assert!(is_shown("a ...", "a"), "nothing is anything as well");
    for (shown, printed) in [("", "x"), ("x", ""), ("a...z", "az!"), ("a...z", "ba z"), ("a...b...c", "acb c!"), ("{\"a\":1}", "{\"a\":10}")] {
        assert!(!is_shown(shown, printed), "{shown} {printed}");
    }
}

/// Runs the commands of a page against a service on this ground.
async fn run(ground: &Ground, page: &str) {
    let settings = ground.pairs(&[]);
    let server = Server::start(&settings);
    let mut shell = Shell::start(&settings, &ground.file("home"));
    let (mut seen, mut last_step) = (0, 0);
    for shown in commands(page) {
        if ["mainstay mail", "link_to"].iter().any(|reads| shown.command.contains(reads)) {
            // The service sends by itself, a moment after its answer; a reader types more slowly than this.
            let sent = || async { ground.number("SELECT count(*) AS n FROM jobs WHERE state IN ('waiting', 'running')").await == 0 };
            within(PATIENCE, "every mail is sent", sent).await;
        }
        let mut command = shown.command.replace(SHOWN, &format!("http://{}", server.public));
        if is_typed_code(&command) {
            let secret = tokio::task::block_in_place(|| shell.run("printf %s \"$SECRET\"\n"));
            command = format!("CODE={}\n", next_code(secret.trim(), &mut last_step).await);
        }
        let printed = tokio::task::block_in_place(|| shell.run(&command));
        assert!(is_shown(&shown.prints, &printed), "line {}\n$ {}{}\n--- but it prints\n{printed}", shown.line, shown.command, shown.prints);
        seen += 1;
    }
    assert!(seen > 0, "the page has commands");
}

/// Does the reader type here what an authenticator shows?
fn is_typed_code(command: &str) -> bool {
    command.trim_end().strip_prefix("CODE=").is_some_and(|code| code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A code that was not used. Each is good a step before its time, so the second one on a page need not be waited for.
async fn next_code(secret: &str, last_step: &mut i64) -> String {
    const STEP_S: i64 = 30;
    let now = || Timestamp::now().as_second() / STEP_S;
    let step = now().max(*last_step + 1);
    within(2 * PATIENCE, "the next code is good", || async { now() + 1 >= step }).await;
    *last_step = step;
    Authenticator::new(secret, Clock::from_fn(move || Timestamp::from_second(step * STEP_S).unwrap())).code()
}

/// One shell for a page, so that what a command keeps is there for the next.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn start(settings: &[(String, String)], home: &Path) -> Self {
        std::fs::create_dir(home).unwrap();
        // On a terminal, where a reader is, curl shows no progress; here it would.
        std::fs::write(home.join(".curlrc"), "silent\nshow-error\nmax-time = 20\n").unwrap();
        let beside = process::binary().parent().unwrap().display().to_string();
        let path = format!("{beside}:{}", std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .env("PATH", path)
            .env("HOME", home)
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut shell = Self { input: child.stdin.take().unwrap(), child, lines };
        for tool in ["curl", "jq"] {
            assert!(shell.run(&format!("command -v {tool}\n")).contains(tool), "{tool} is not installed: `scripts/test` sees to it");
        }
        shell
    }

    /// What a command prints, on both of its outputs.
    fn run(&mut self, command: &str) -> String {
        let end = format!("end-{}", Uuid::new_v4().simple());
        // The shell's own input is the list of commands: none of them may read it.
        writeln!(self.input, "{{ {command}}} </dev/null 2>&1\nprintf '\\n%s\\n' {end}").unwrap();
        let mut printed = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line == end => return printed,
                Ok(line) => printed += &(line + "\n"),
                Err(error) => panic!("{error}: {command}{printed}"),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
