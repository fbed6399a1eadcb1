//! JSON that means one thing: no member twice, no NUL, no depth without end, and the place of a mistake named.
//!
//! RFC 8259, 4 leaves open what a repeated member means, so two programs may understand it differently: it is refused. U+0000 is refused because
//! PostgreSQL cannot store it. Lone surrogates and invalid UTF-8 are refused by the parser below. Names that this parser keeps for itself are refused as well: on the way
//! into a type it would read the text beside one as a document of its own, to which none of this was done.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, FieldError, codes};

/// Levels of nesting: real payloads have under ten, and the parser's own stack ends at 128.
const DEPTH_MAX: usize = 64;

/// What names of the parser's own begin with (serde_json, `raw_value` and `arbitrary_precision`).
const RESERVED: &str = "$serde_json::private::";

/// Parses a document.
///
/// # Errors
/// [`codes::INVALID_JSON`] for what is not JSON, [`codes::VALIDATION_FAILED`] with the place for what is JSON and not allowed.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    let state = State::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = Strict(&state).deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| match state.flaw.into_inner() {
        Some(flaw) => Error::new(&codes::VALIDATION_FAILED).with_fields(vec![flaw]),
        None => {
            // Line and column help; the words of the parser do too, and hold nothing of the input.
            let message = if error.is_eof() {
                "Request body is not valid JSON: it ends too early".to_owned()
            } else {
                format!("Request body is not valid JSON: {error}")
            };
            Error::new(&codes::INVALID_JSON).with_message(message)
        }
    })
}

#[derive(Default)]
struct State {
    path: RefCell<Vec<Step>>,
    flaw: RefCell<Option<FieldError>>,
}

enum Step {
    Member(String),
    Item(usize),
}

impl State {
    fn flaw<E: serde::de::Error>(&self, code: &'static str, message: &str) -> E {
        let mut field = String::new();
        for step in self.path.borrow().iter() {
            match step {
                Step::Member(name) if field.is_empty() => field.push_str(name),
                Step::Member(name) => field.extend([".", name]),
                Step::Item(index) => field.push_str(&format!("[{index}]")),
            }
            if field.len() > 200 {
                break;
            }
        }
        // A name is the caller's text: enough of it to find the place.
        let field = field.chars().take(200).collect();
        *self.flaw.borrow_mut() = Some(FieldError { field, code, message: message.to_owned() });
        E::custom(message)
    }

    /// Works one step further down, and gives the step back. After an error it stays: it is the place of the mistake.
    fn below<T, E: serde::de::Error>(&self, step: Step, work: impl FnOnce() -> Result<T, E>) -> Result<(Option<Step>, T), E> {
        self.path.borrow_mut().push(step);
        if self.path.borrow().len() > DEPTH_MAX {
            return Err(self.flaw("too_deep", "is nested too deeply"));
        }
        let done = work()?;
        Ok((self.path.borrow_mut().pop(), done))
    }
}

struct Strict<'a>(&'a State);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| self.0.flaw("out_of_range", "is out of range"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if value.contains('\0') { Err(self.0.flaw("invalid_character", "must not contain U+0000")) } else { Ok(value.into()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let (_, item) = self.0.below(Step::Item(list.len()), || items.next_element_seed(Strict(self.0)))?;
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let state = self.0;
            // The map is a tree, or one with a hash under a random key: names that an attacker chooses make neither slow.
            let (forbidden, repeated, reserved) = (name.contains('\0'), object.contains_key(&name), name.starts_with(RESERVED));
            let (step, value) = state.below(Step::Member(name), || {
                if forbidden {
                    return Err(state.flaw("invalid_character", "must not contain U+0000"));
                }
                if repeated {
                    return Err(state.flaw("duplicate_field", "appears more than once"));
                }
                if reserved {
                    return Err(state.flaw("unknown_field", "is not known here"));
                }
                members.next_value_seed(Strict(state))
            })?;
            if let Some(Step::Member(name)) = step {
                object.insert(name, value);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flaw(text: &str) -> (String, &'static str) {
        let error = parse(text.as_bytes()).unwrap_err();
        error.fields().first().map_or((String::new(), error.code().name), |field| (field.field.clone(), field.code))
    }

    #[test]
    fn what_could_mean_two_things_is_refused_with_its_place() {
        assert_eq!(flaw(r#"{"a":1,"a":2}"#), ("a".to_owned(), "duplicate_field"));
        assert_eq!(flaw(r#"{"a":{"b":[1,{"c":1,"c":1}]}}"#), ("a.b[1].c".to_owned(), "duplicate_field"));
        assert_eq!(flaw(r#"{"a":["x","\u0000"]}"#), ("a[1]".to_owned(), "invalid_character"));
        assert_eq!(flaw(r#"{"a\u0000":1}"#).1, "invalid_character");
    }

    #[test]
    fn a_document_in_a_document_is_refused() {
        for name in ["$serde_json::private::RawValue", r"\u0024serde_json::private::RawValue", "$serde_json::private::Number"] {
            let text = format!(r#"{{"a":[{{"{name}":"\"\\u0000\""}}]}}"#);
            assert_eq!(flaw(&text).1, "unknown_field", "{text}");
        }
    }

    #[test]
    fn what_is_not_json_says_so() {
        for text in ["", " ", "{", "{}{}", "nul", r#"{"a":"\ud800"}"#, "\u{feff}{}", "{'a':1}", "[1,]", "01", r#"{"a":1e999}"#] {
            assert_eq!(flaw(text), (String::new(), "invalid_json"), "{text}");
        }
        assert_eq!(parse(b"\"\xff\"").unwrap_err().code().name, "invalid_json");
    }

    #[test]
    fn a_hundred_thousand_levels_are_refused() {
        for text in ["[".repeat(100_000), "[".repeat(100_000) + &"]".repeat(100_000), r#"{"a":"#.repeat(100_000)] {
            assert_eq!(flaw(&text).1, "too_deep");
        }
        assert!(parse(("[".repeat(60) + &"]".repeat(60)).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn strict_accepts_nothing_that_the_parser_refuses_and_changes_nothing(text in r#"[\[\]{}",:0-9a-z\\u ]{0,40}"#) {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }

        #[test]
        fn every_accepted_string_is_unchanged(text in any::<String>()) {
            let written = serde_json::to_vec(&text).unwrap();
            match parse(&written) {
                Ok(value) => prop_assert_eq!(value.as_str(), Some(text.as_str())),
                Err(_) => prop_assert!(text.contains('\0')),
            }
        }
    }
}
