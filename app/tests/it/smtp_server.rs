//! A small mail server that does as it is told: takes mails, refuses them, or falls silent at the worst moment.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with the next dialogues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Accepting,
    /// 451 to `RCPT`: come again later.
    Busy,
    /// 550 to `RCPT`: never.
    Refusing,
    /// 554 to the message itself.
    RefusingMessages,
    /// Accepts the connection and says nothing.
    Dumb,
    /// Takes the whole message and drops the connection.
    Dropping,
    /// Takes the whole message and says nothing.
    Silent,
}

/// What was seen of all dialogues.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    commands: Vec<String>,
    /// Every message that came whole, whatever was answered.
    messages: Vec<String>,
}

/// The server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct SmtpServer {
    pub(crate) address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    seen: Arc<Mutex<Seen>>,
    extensions: &'static str,
}

impl SmtpServer {
    /// Starts it. `extensions` are lines of the answer to `EHLO`, such as `250-SMTPUTF8\r\n`.
    pub(crate) async fn start(mood: Mood, extensions: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), mood: Arc::new(Mutex::new(mood)), seen: Arc::default(), extensions };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.seen.lock().unwrap().connections += 1;
                let serving = serving.clone();
                // A client that goes away in the middle is nothing special.
                tokio::spawn(async move { serving.talk(stream).await });
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://ada%40example.com:hunter2@{}", self.address)
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.seen.lock().unwrap().messages.clone()
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.seen.lock().unwrap().commands.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    async fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        if self.mood() == Mood::Dumb {
            // Until the client goes.
            stream.read_line(&mut String::new()).await?;
            return Ok(());
        }
        stream.write_all(b"220 test ESMTP\r\n").await?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let command = line.trim_end().to_owned();
            self.seen.lock().unwrap().commands.push(command.clone());
            let word = command.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match (word.as_str(), self.mood()) {
                ("EHLO", _) => format!("250-test\r\n{}250 AUTH PLAIN LOGIN\r\n", self.extensions),
                ("AUTH", _) => "235 welcome\r\n".to_owned(),
                ("RCPT", Mood::Busy) => "451 4.7.1 come again later, marked@example.com\r\n".to_owned(),
                ("RCPT", Mood::Refusing) => "550 5.1.1 no such mailbox, marked@example.com\r\n".to_owned(),
                ("DATA", _) => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let message = message(&mut stream).await?;
                    self.seen.lock().unwrap().messages.push(message);
                    match self.mood() {
                        Mood::Dropping => return Ok(()),
                        Mood::Silent => {
                            stream.read_line(&mut String::new()).await?;
                            return Ok(());
                        }
                        Mood::RefusingMessages => "554 5.7.1 looks like spam\r\n".to_owned(),
                        _ => "250 taken\r\n".to_owned(),
                    }
                }
                ("QUIT", _) => "221 bye\r\n".to_owned(),
                _ => "250 ok\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await?;
            if word == "QUIT" {
                return Ok(());
            }
        }
    }
}

/// Everything up to the lone dot (RFC 5321, 4.5.2).
async fn message(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut message = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == ".\r\n" {
            return Ok(message);
        }
        message.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
