//! A member of a merge patch (RFC 7396): absent, null and a value are three different things.

use serde::{Deserialize, Deserializer};

/// What a patch says of one member. Use it with `#[serde(default)]`, which is what makes an absent member `Keep`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Patch<T> {
    /// Absent: the member stays as it is.
    #[default]
    Keep,
    /// `null`: the member is removed.
    Remove,
    /// A value: the member takes it.
    Set(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.map_or(Self::Remove, Self::Set))
    }
}

impl<T> Patch<T> {
    /// The member after the patch.
    pub fn apply(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Keep => current,
            Self::Remove => None,
            Self::Set(value) => Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Change {
        #[serde(default)]
        name: Patch<String>,
    }

    #[test]
    fn absent_null_and_a_value_are_told_apart() {
        let read = |text| serde_json::from_str::<Change>(text).unwrap().name;
        assert_eq!(read("{}"), Patch::Keep);
        assert_eq!(read(r#"{"name":null}"#), Patch::Remove);
        assert_eq!(read(r#"{"name":"x"}"#), Patch::Set("x".to_owned()));
        assert_eq!(read("{}").apply(Some("old".to_owned())).as_deref(), Some("old"));
        assert_eq!(read(r#"{"name":null}"#).apply(Some("old".to_owned())), None);
    }
}
