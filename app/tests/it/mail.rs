//! Mails from the transaction that causes them to the mail server or the folder: once an event, whatever the server or the process does.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay::jobs::Enqueued;
use mainstay_app::mail::{Letter, To, Token, read, send};
use rustix::process::Signal;
use serde_json::Value;
use uuid::Uuid;

use crate::ground::{Ground, within};
use crate::process::{self, Server};
use crate::smtp_server::{Mood, SmtpServer};

/// What is waited for takes a second or two, with a lease of one second.
const PROMPT: Duration = Duration::from_secs(20);
const ADDRESS: &str = "marked-address@example.com";

on_both! {
    a_mail_comes_if_its_cause_committed_and_once_an_event
    what_the_server_says_decides_what_becomes_of_a_mail
    letters_of_any_script_reach_a_server_that_takes_them
    a_connection_is_kept_for_the_next_mail
    a_process_that_is_killed_before_the_message_is_taken_over
    a_mail_whose_outcome_nobody_knows_is_left_to_the_operator
    an_end_gives_mails_back_that_were_not_sent
    mails_go_into_the_folder_and_are_shown
    production_logs_neither_addresses_nor_links
}

through_pooler! {
    a_mail_comes_if_its_cause_committed_and_once_an_event
    a_process_that_is_killed_before_the_message_is_taken_over
}

fn reset() -> Letter {
    Letter::ResetPassword { token: Token::new("marked-token".to_owned()) }
}

/// Queues a letter behind the service's back; the id of its job.
async fn queue(ground: &Ground, to: &str, letter: &Letter, event: &str) -> Uuid {
    let database = ground.database().await;
    let mut transaction = database.begin(None).await.unwrap();
    let enqueued = send(&mut transaction, &To::person(to, "Ada"), letter, event, Timestamp::now()).await.unwrap();
    transaction.commit().await.unwrap();
    database.close(Duration::from_secs(5)).await;
    match enqueued {
        Enqueued::New(id) => id,
        Enqueued::Already => panic!("{event} has its mail already"),
    }
}

async fn state(ground: &Ground, id: Uuid) -> String {
    failure(ground, id).await.0
}

/// State and reason.
async fn failure(ground: &Ground, id: Uuid) -> (String, String) {
    let database = ground.database().await;
    let text = "SELECT state, coalesce(failure, '') AS failure FROM jobs WHERE id = $1";
    let row = mainstay::store::query(text).bind(id).fetch_one(&mut database.acquire(None).await.unwrap()).await.unwrap();
    database.close(Duration::from_secs(5)).await;
    (row.get("state").unwrap(), row.get("failure").unwrap())
}

async fn becomes(ground: &Ground, id: Uuid, wanted: &str) {
    within(PROMPT, wanted, || async { state(ground, id).await == wanted }).await;
}

fn with_server(server: &SmtpServer) -> Vec<(&'static str, String)> {
    vec![
        ("SMTP_URL", server.url()),
        ("MAIL_FROM", "Shop <no-reply@example.com>".to_owned()),
        ("JOBS_LEASE", "1s".to_owned()),
        ("SHUTDOWN_TIMEOUT", "1s".to_owned()),
    ]
}

fn pairs<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Runs a command of the binary; what it printed.
async fn command(ground: &Ground, arguments: &[&str]) -> String {
    let (settings, arguments) = (ground.pairs(&[]), arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
    let run = move || process::run(&settings, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"");
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

async fn a_mail_comes_if_its_cause_committed_and_once_an_event(ground: Arc<Ground>) {
    let server = SmtpServer::start(Mood::Accepting, "").await;
    let service = ground.start(&pairs(&with_server(&server))).await;
    let to = To::person(ADDRESS, "Ada");
    let mut transaction = service.app.database.begin(None).await.unwrap();
    send(&mut transaction, &to, &Letter::AccountDisabled, "undone", Timestamp::now()).await.unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = service.app.database.begin(None).await.unwrap();
    for _ in 0..3 {
        send(&mut transaction, &to, &reset(), "event", Timestamp::now()).await.unwrap();
    }
    // Another letter about the same event is another letter.
    send(&mut transaction, &to, &Letter::PasswordChanged, "event", Timestamp::now()).await.unwrap();
    transaction.commit().await.unwrap();
    within(PROMPT, "both are done", || async { ground.number("SELECT count(*) AS n FROM jobs WHERE state = 'done' AND payload IS NULL").await == 2 })
        .await;
    let messages = server.messages();
    assert_eq!(messages.len(), 2, "{messages:#?}");
    let mail = messages.iter().filter_map(|message| read::parse(message.as_bytes())).find(|mail| mail.subject == "Choose a new password").unwrap();
    assert!(mail.text.contains("http://127.0.0.1:3000/reset-password#token=marked-token\n"), "{}", mail.text);
    assert!(mail.text.contains("at Shop"), "{}", mail.text);
    let commands = server.commands().join("\n");
    assert!(commands.contains("MAIL FROM:<no-reply@example.com>") && commands.contains(&format!("RCPT TO:<{ADDRESS}>")), "{commands}");
    assert!(commands.contains("AUTH PLAIN"), "{commands}");
    service.end().await;
}

async fn what_the_server_says_decides_what_becomes_of_a_mail(ground: Arc<Ground>) {
    let server = SmtpServer::start(Mood::Accepting, "").await;
    let service = ground.start(&pairs(&with_server(&server))).await;
    for (mood, wanted, word) in [
        (Mood::Busy, "waiting", "451 to RCPT"),
        (Mood::Refusing, "dead", "550 to RCPT"),
        (Mood::RefusingMessages, "dead", "554 to the message"),
        (Mood::Dropping, "uncertain", "did not say"),
    ] {
        server.set(mood);
        let id = queue(&ground, ADDRESS, &reset(), &format!("{mood:?}")).await;
        within(PROMPT, word, || async {
            let (state, reason) = failure(&ground, id).await;
            assert!(!reason.contains("marked"), "the server's words quote the address: {reason}");
            state == wanted && reason.contains(word)
        })
        .await;
    }
    // What was secret is gone from the dead ones. The busy one may have had another try by now.
    let text = "SELECT count(*) AS n FROM jobs WHERE state = 'dead' AND payload IS NULL AND unique_key IN ('reset_password:Refusing', 'reset_password:RefusingMessages')";
    assert_eq!(ground.number(text).await, 2);
    service.end().await;
}

async fn letters_of_any_script_reach_a_server_that_takes_them(ground: Arc<Ground>) {
    let plain = SmtpServer::start(Mood::Accepting, "").await;
    let service = ground.start(&pairs(&with_server(&plain))).await;
    let domain = queue(&ground, "ada@bücher.example", &Letter::PasswordChanged, "domain").await;
    becomes(&ground, domain, "done").await;
    assert!(plain.commands().iter().any(|command| command == "RCPT TO:<ada@xn--bcher-kva.example>"), "{:?}", plain.commands());
    let local = queue(&ground, "zoë@example.com", &Letter::PasswordChanged, "local").await;
    becomes(&ground, local, "dead").await;
    assert!(failure(&ground, local).await.1.contains("SMTPUTF8"));
    service.end().await;

    let wide = SmtpServer::start(Mood::Accepting, "250-8BITMIME\r\n250-SMTPUTF8\r\n").await;
    let service = ground.start(&pairs(&with_server(&wide))).await;
    let local = queue(&ground, "zoë@example.com", &Letter::PasswordChanged, "again").await;
    becomes(&ground, local, "done").await;
    let commands = wide.commands().join("\n");
    assert!(
        commands.contains("MAIL FROM:<no-reply@example.com> SMTPUTF8 BODY=8BITMIME") && commands.contains("RCPT TO:<zoë@example.com>"),
        "{commands}"
    );
    service.end().await;
}

async fn a_connection_is_kept_for_the_next_mail(ground: Arc<Ground>) {
    let server = SmtpServer::start(Mood::Accepting, "").await;
    let service = ground.start(&pairs(&with_server(&server))).await;
    for number in 0..3 {
        let id = queue(&ground, ADDRESS, &Letter::PasswordChanged, &number.to_string()).await;
        becomes(&ground, id, "done").await;
    }
    assert_eq!((server.messages().len(), server.connections()), (3, 1));
    service.end().await;
}

async fn a_process_that_is_killed_before_the_message_is_taken_over(ground: Arc<Ground>) {
    let server = SmtpServer::start(Mood::Dumb, "").await;
    let settings = with_server(&server);
    let mut first = Server::start(&ground.pairs(&pairs(&settings)));
    let id = queue(&ground, ADDRESS, &reset(), "event").await;
    within(PROMPT, "it talks to the server", || async { server.connections() == 1 }).await;
    first.signal(Signal::KILL);
    first.wait(PROMPT);
    assert_eq!(state(&ground, id).await, "running", "nobody gave it back");
    server.set(Mood::Accepting);
    let second = Server::start(&ground.pairs(&pairs(&settings)));
    becomes(&ground, id, "done").await;
    assert_eq!(server.messages().len(), 1);
    within(PROMPT, "the second one says so", || async { second.log().contains("reset_password") }).await;
}

async fn a_mail_whose_outcome_nobody_knows_is_left_to_the_operator(ground: Arc<Ground>) {
    let server = SmtpServer::start(Mood::Silent, "").await;
    let settings = with_server(&server);
    let mut first = Server::start(&ground.pairs(&pairs(&settings)));
    let id = queue(&ground, ADDRESS, &reset(), "event").await;
    within(PROMPT, "the server has the message", || async { server.messages().len() == 1 }).await;
    first.signal(Signal::KILL);
    first.wait(PROMPT);
    server.set(Mood::Accepting);
    let second = Server::start(&ground.pairs(&pairs(&settings)));
    becomes(&ground, id, "uncertain").await;
    assert_eq!(server.messages().len(), 1, "it is not sent again by itself");
    within(PROMPT, "the operator sees it in health", || async {
        let health = crate::client::Client::new(second.management).get("/health").await.text();
        serde_json::from_str::<Value>(&health).is_ok_and(|health| health["jobs"]["uncertain"] == 1)
    })
    .await;
    let status = command(&ground, &["jobs", "status"]).await;
    assert!(status.lines().any(|line| line.split_whitespace().eq(["mail", "uncertain", "1"])), "{status}");
    let listed = command(&ground, &["jobs", "list"]).await;
    assert!(listed.contains(&id.to_string()) && listed.contains("uncertain") && !listed.contains("marked"), "{listed}");
    // By hand it goes again, and whoever has both can tell.
    assert!(command(&ground, &["jobs", "retry", &id.to_string()]).await.contains("is due now"));
    becomes(&ground, id, "done").await;
    let messages = server.messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0], messages[1], "byte for byte");
    assert!(messages[0].contains(&format!("Message-ID: <{}@example.com>", id.simple())), "{}", messages[0]);
    assert!(command(&ground, &["jobs", "retry", &id.to_string()]).await.contains("cannot be tried again: it is done"));
}

async fn an_end_gives_mails_back_that_were_not_sent(ground: Arc<Ground>) {
    for (mood, wanted) in [(Mood::Dumb, "waiting"), (Mood::Silent, "uncertain")] {
        let server = SmtpServer::start(mood, "").await;
        let mut process = Server::start(&ground.pairs(&pairs(&with_server(&server))));
        let id = queue(&ground, ADDRESS, &reset(), wanted).await;
        within(PROMPT, "it is under way", || async { server.connections() == 1 && (mood == Mood::Dumb || server.messages().len() == 1) }).await;
        process.signal(Signal::TERM);
        let (status, took) = process.wait(PROMPT);
        assert_eq!(status.code(), Some(1), "something was cut after {took:?}: {}", process.output());
        assert_eq!(state(&ground, id).await, wanted, "{mood:?}");
        // The next one has an empty queue.
        ground.execute("DELETE FROM jobs").await;
    }
}

async fn mails_go_into_the_folder_and_are_shown(ground: Arc<Ground>) {
    let server = Server::start(&ground.pairs(&[("PUBLIC_URL", "https://app.example.com")]));
    assert!(command(&ground, &["mail", "show", "latest"]).await.contains("There is no mail yet"));
    let id = queue(&ground, ADDRESS, &reset(), "event").await;
    becomes(&ground, id, "done").await;
    let link = "https://app.example.com/reset-password#token=marked-token";
    within(PROMPT, "a developer sees the link in the log", || async { server.log().contains(link) }).await;
    let listed = command(&ground, &["mail", "list"]).await;
    assert!(listed.starts_with(&id.to_string()) && listed.contains(ADDRESS) && listed.contains("Choose a new password"), "{listed}");
    for wanted in [id.to_string().as_str(), "latest"] {
        let shown = command(&ground, &["mail", "show", wanted]).await;
        assert!(shown.contains(&format!("\n{link}\n")) && shown.starts_with(&format!("To: {ADDRESS}\n")), "{shown}");
    }
    assert!(command(&ground, &["mail", "show", "latest", "--raw"]).await.contains("text/html"));
    assert!(command(&ground, &["mail", "show", "nonsense"]).await.contains("There is no mail nonsense"));
    assert_eq!(std::fs::read_dir(ground.data_dir().join("mail")).unwrap().count(), 1);
}

async fn production_logs_neither_addresses_nor_links(ground: Arc<Ground>) {
    let mut server = Server::start(&ground.pairs(&[("APP_ENV", "production"), ("LOG_LEVEL", "trace")]));
    let id = queue(&ground, ADDRESS, &reset(), "event").await;
    let broken = queue(&ground, "marked broken address", &reset(), "broken").await;
    becomes(&ground, id, "done").await;
    becomes(&ground, broken, "dead").await;
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PROMPT).0.code(), Some(0), "{}", server.output());
    within(PROMPT, "the last line", || async { server.log().contains("\"ended\"") }).await;
    let log = server.output();
    assert!(log.contains("mail sent") && log.contains(&broken.to_string()), "{log}");
    assert!(!log.contains("marked"), "{}", log.lines().find(|line| line.contains("marked")).unwrap_or_default());
}
