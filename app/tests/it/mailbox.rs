//! What the service writes to a mailbox, read from the folder of mails.

use std::time::Duration;

use mainstay_app::mail::{Folder, read};

use crate::ground::{Ground, within};

/// What is waited for takes a fraction of a second.
const PROMPT: Duration = Duration::from_secs(20);

/// A letter.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl Received {
    /// The token of its link.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        let (_, token) = self.text.split_once("#token=").unwrap_or_else(|| panic!("no link: {}", self.text));
        token.lines().next().unwrap().to_owned()
    }
}

impl Ground {
    /// Waits until everything that was caused is done, and reads all letters, the oldest first.
    pub(crate) async fn letters(&self) -> Vec<Received> {
        let open = "SELECT count(*) AS n FROM jobs WHERE state IN ('waiting', 'running')";
        within(PROMPT, "all jobs are done", || async { self.number(open).await == 0 }).await;
        assert_eq!(self.number("SELECT count(*) AS n FROM jobs WHERE state <> 'done'").await, 0, "no job failed");
        let mut entries = Folder::new(&self.data_dir().join("mail")).list().unwrap();
        entries.reverse();
        let received = |bytes: Vec<u8>| {
            let mail = read::parse(&bytes).unwrap();
            Received { to: mail.to, subject: mail.subject, text: mail.text }
        };
        entries.iter().map(|entry| received(entry.read().unwrap())).collect()
    }

    /// The letters to this address, the oldest first.
    pub(crate) async fn letters_to(&self, address: &str) -> Vec<Received> {
        self.letters().await.into_iter().filter(|letter| letter.to.contains(address)).collect()
    }

    /// The last letter to this address, whose subject begins so.
    pub(crate) async fn last_letter(&self, address: &str, subject: &str) -> Received {
        let letters = self.letters_to(address).await;
        let found = letters.iter().rev().find(|letter| letter.subject.starts_with(subject)).cloned();
        found.unwrap_or_else(|| panic!("no letter `{subject}` to {address}: {letters:#?}"))
    }
}
