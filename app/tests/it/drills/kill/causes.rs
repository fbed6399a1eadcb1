//! Causes of mails, committed and not, and the folder in which each that was committed has one mail in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use mainstay::jobs::Enqueued;
use mainstay::store::{Database, query};
use mainstay_app::mail::{Folder, Letter, To, Token, read, send};
use uuid::Uuid;

use crate::ground::{Ground, within};

/// Leases of a second have ended long before, and a mail into the folder takes milliseconds.
const SETTLED: Duration = Duration::from_secs(60);

/// Everything that was to be told by mail, and what has been found of it.
#[derive(Default)]
pub(super) struct Causes {
    /// The jobs of this drill's own causes, with the address of each.
    committed: BTreeMap<Uuid, String>,
    rolled_back: Vec<String>,
    /// Jobs whose mail was counted and taken out of the folder.
    found: BTreeSet<Uuid>,
}

impl Causes {
    /// Something happens, or begins to and does not.
    pub(super) async fn add(&mut self, database: &Database, commits: bool) {
        let number = self.committed.len() + self.rolled_back.len();
        let address = format!("cause-{number}@example.com");
        let letter = Letter::ResetPassword { token: Token::new(format!("token-{number}")) };
        let mut transaction = database.begin(None).await.unwrap();
        let sent = send(&mut transaction, &To::address(&address), &letter, &format!("cause-{number}"), Timestamp::now()).await.unwrap();
        let Enqueued::New(id) = sent else { panic!("cause {number} has its mail already") };
        if commits {
            transaction.commit().await.unwrap();
            self.committed.insert(id, address);
        } else {
            transaction.rollback().await.unwrap();
            self.rolled_back.push(address);
        }
    }

    /// How many there were of both.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.committed.len() as u64, self.rolled_back.len() as u64)
    }

    /// Waits until nothing is to be sent anymore, counts the mails and empties the folder. How many were there in all?
    pub(super) async fn settle(&mut self, ground: &Ground, place: &str) -> usize {
        let database = ground.database().await;
        within(SETTLED, "every mail is sent", || async {
            super::invariants::count(&database, "SELECT count(*) AS n FROM jobs WHERE state IN ('waiting', 'running')").await == 0
        })
        .await;
        let failed = super::invariants::count(&database, "SELECT count(*) AS n FROM jobs WHERE state IN ('dead', 'uncertain')").await;
        assert_eq!(failed, 0, "{place}: mails that were given up");
        let rows = query("SELECT id FROM jobs WHERE kind = 'mail' AND state = 'done'").fetch_all(&mut database.acquire(None).await.unwrap()).await;
        let done: BTreeSet<Uuid> = rows.unwrap().iter().map(|row| row.get("id").unwrap()).collect();
        database.close(SETTLED).await;
        self.empty(ground, place);
        // Others than this drill's own are those that the service sends by itself.
        assert_eq!(done, self.found, "{place}: jobs that are done on the left, mails on the right");
        let missing: Vec<_> = self.committed.keys().filter(|id| !self.found.contains(id)).collect();
        assert!(missing.is_empty(), "{place}: committed, and no mail: {missing:?}");
        self.found.len()
    }

    /// Counts the mails in the folder, each once in the whole drill, and removes them.
    fn empty(&mut self, ground: &Ground, place: &str) {
        let path = ground.data_dir().join("mail");
        for entry in Folder::new(&path).list().unwrap() {
            assert!(self.found.insert(entry.id), "{place}: two mails of {}", entry.id);
            let mail = read::parse(&entry.read().unwrap()).unwrap();
            assert!(!self.rolled_back.contains(&mail.to), "{place}: a mail to {} of what did not happen", mail.to);
            assert!(self.committed.get(&entry.id).is_none_or(|address| *address == mail.to), "{place}: the mail of another: {}", mail.to);
        }
        for file in std::fs::read_dir(&path).into_iter().flatten() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}
