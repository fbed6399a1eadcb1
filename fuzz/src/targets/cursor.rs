//! Cursors of lists. What was written is read as it was; a text is read only if it has the form of a cursor; and a list takes a cursor exactly if the key
//! in it belongs to the order that is asked for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use http::Request;
use mainstay::extract::Query;
use mainstay_app::page::{decode_cursor, encode_cursor};
use mainstay_app::products::listing::{ListParams, Listing, Sort};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::input::{line, text};

/// The key of a row, as the list writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Number(i64),
    Text(String),
    Nothing,
}

/// Where a page begins, as the list writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Position {
    sort: Sort,
    key: Key,
    id: Uuid,
}

const SORTS: [(Sort, &str); 6] = [
    (Sort::Age, "created_at"),
    (Sort::AgeDescending, "-created_at"),
    (Sort::Name, "name"),
    (Sort::NameDescending, "-name"),
    (Sort::Price, "price"),
    (Sort::PriceDescending, "-price"),
];

pub(crate) fn run(data: &[u8]) {
    any_text(data);
    any_position(data);
}

fn any_text(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match decode_cursor::<Position>(text) {
        Ok(position) => {
            assert!(URL_SAFE_NO_PAD.decode(text).is_ok(), "{text:?}");
            let written = encode_cursor(&position);
            // What is written for it may be longer than what was read: a list of members is shorter than an object with their names.
            if written.len() <= 5000 {
                assert_eq!(decode_cursor::<Position>(&written).unwrap(), position);
            }
        }
        Err(error) => assert!(matches!(error.status().as_u16(), 400 | 404), "{error}"),
    }
    if let Ok(offset) = decode_cursor::<usize>(text) {
        assert_eq!(decode_cursor::<usize>(&encode_cursor(&offset)).unwrap(), offset);
    }
}

/// The first byte chooses the order that is asked for, the second one that of the cursor and the kind of its key.
fn any_position(data: &[u8]) {
    let [asked, written, rest @ ..] = data else { return };
    let (asked_sort, asked) = SORTS[usize::from(*asked) % SORTS.len()];
    let (sort, _) = SORTS[usize::from(*written) % SORTS.len()];
    let (id, rest) = line(rest);
    let id = id.iter().fold(0u128, |id, byte| id.rotate_left(8) ^ u128::from(*byte));
    let key = match written / 6 % 3 {
        0 => Key::Nothing,
        1 => Key::Number(rest.iter().take(8).fold(0, |number, byte| (number << 8) | i64::from(*byte))),
        _ => Key::Text(String::from_utf8_lossy(rest).into_owned()),
    };
    let position = Position { sort, key, id: Uuid::from_u128(id) };
    let cursor = encode_cursor(&position);
    if cursor.len() > 5000 {
        return;
    }
    assert_eq!(decode_cursor::<Position>(&cursor).unwrap(), position);
    let fits = match &position.key {
        Key::Nothing => asked.ends_with("price"),
        Key::Number(number) => asked.ends_with("price") || asked.ends_with("created_at") && jiff::Timestamp::from_microsecond(*number).is_ok(),
        Key::Text(text) => asked.ends_with("name") && !text.contains('\0'),
    };
    let (mut parts, ()) = Request::get(format!("/api/products?sort={asked}&cursor={cursor}")).body(()).unwrap().into_parts();
    let extracted = <Query<ListParams> as axum::extract::FromRequestParts<()>>::from_request_parts(&mut parts, &()).now_or_never();
    let Query(params) = extracted.unwrap().unwrap();
    assert_eq!(Listing::parse(params).is_ok(), sort == asked_sort && fits, "{position:?} in a list by {asked}");
}
