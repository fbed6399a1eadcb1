//! How far the index has read, and of what.

/// The transaction and the number of the last change that was read, and whose numbers they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Which database: the moment at which the table of products was made in it.
    pub(super) born: i64,
    pub(super) xact: i64,
    pub(super) seq: i64,
    /// The server and its timeline that gave the numbers ([`mainstay::store::Database::server_expression`]). Unknown before the first reading, and on SQLite.
    pub(super) server: Option<String>,
}

impl Cursor {
    pub(super) fn beginning(born: i64) -> Self {
        Self { born, xact: -1, seq: -1, server: None }
    }

    /// The cursor of an index of this database.
    pub(super) fn read(text: &str, born: i64) -> Self {
        // From the beginning: what cannot be read is read again.
        Self::parse(text).filter(|cursor| cursor.born == born).unwrap_or(Self::beginning(born))
    }

    pub(super) fn belongs(text: &str, born: i64) -> bool {
        Self::parse(text).is_some_and(|cursor| cursor.born == born)
    }

    /// Did another server give its numbers than this one? That one may never have had the last changes that were read, and has given their numbers to others.
    /// A standby says nothing, and decides nothing.
    pub(super) fn is_of_another(&self, server: Option<&str>) -> bool {
        matches!((self.server.as_deref(), server), (Some(before), Some(now)) if before != now)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let mut number = || parts.next()?.parse().ok();
        let (born, xact, seq) = (number()?, number()?, number()?);
        // An index of an earlier release does not say whose numbers it has.
        Some(Self { born, xact, seq, server: parts.next().map(str::to_owned) })
    }

    pub(super) fn written(&self) -> String {
        let server = self.server.iter().flat_map(|server| [":", server]).collect::<String>();
        format!("{}:{}:{}{server}", self.born, self.xact, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_and_a_broken_one_begins_again() {
        for server in [None, Some("7351/00000001".to_owned())] {
            let cursor = Cursor { born: 5, xact: 7, seq: 42, server };
            assert_eq!(Cursor::read(&cursor.written(), 5), cursor);
            assert_eq!(Cursor::read(&cursor.written(), 6), Cursor::beginning(6), "another database is read from its beginning");
        }
        for broken in ["", "5", "5:7", "5:7:x", "nonsense"] {
            assert_eq!(Cursor::read(broken, 5), Cursor::beginning(5), "{broken}");
        }
    }

    #[test]
    fn only_a_server_that_is_known_to_be_another_one_begins_again() {
        let cursor = |server: Option<&str>| Cursor { server: server.map(str::to_owned), ..Cursor::beginning(5) };
        assert!(cursor(Some("7351/00000001")).is_of_another(Some("7351/00000002")));
        assert!(!cursor(Some("7351/00000001")).is_of_another(Some("7351/00000001")));
        assert!(!cursor(None).is_of_another(Some("7351/00000002")) && !cursor(Some("7351/00000001")).is_of_another(None));
    }
}
