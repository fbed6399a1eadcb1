//! The answers' data: made by a fixed rule, so that every peer in every language gives the same bytes.

use std::sync::LazyLock;

use serde::Serialize;

/// How many items the big answer lists: about 20 KB of JSON, a page of a catalogue.
const BIG_ITEMS: u32 = 50;

/// Words for descriptions; mixed by a fixed rule they compress about as a catalogue does and not as one line repeated.
static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    "over ear headphones battery folding frame microphone cable quiet travel office charge hours black silver cushion \
     leather driver bass clear voice noise cancel wireless range metre pair button case weight gram warranty year spare \
     part manual adapter plug sound stage studio monitor closed open light strong soft"
        .split_ascii_whitespace()
        .collect()
});

/// The one product of the small answer.
#[derive(Serialize)]
pub struct SmallItem {
    id: u32,
    sku: &'static str,
    name: &'static str,
    price: &'static str,
    currency: &'static str,
    stock: u32,
}

/// One line of the big answer.
#[derive(Serialize)]
pub struct BigItem {
    id: u32,
    sku: String,
    name: String,
    manufacturer: String,
    category: [String; 3],
    description: String,
    price: String,
    currency: &'static str,
    stock: u32,
    available: bool,
}

/// The product of the small answer.
#[must_use]
pub fn small() -> SmallItem {
    SmallItem { id: 42, sku: "SKU-000042", name: "Wireless headphones", price: "12.65", currency: "EUR", stock: 7 }
}

/// The list of the big answer, made anew for each request as rows from a database would be.
#[must_use]
pub fn big() -> Vec<BigItem> {
    (0..BIG_ITEMS).map(|number| big_item(number, &WORDS)).collect()
}

fn big_item(number: u32, words: &[&str]) -> BigItem {
    // The remainder is below the length, so the index cannot miss; the list is never empty.
    let word = |position: u32| words[position as usize % words.len()];
    let mut description = String::with_capacity(200);
    for place in 0..26 {
        if place > 0 {
            description.push(' ');
        }
        description.push_str(word(number * 31 + place * place * 7 + number * place));
    }
    BigItem {
        id: number,
        sku: format!("SKU-{number:06}"),
        name: format!("{} {} {number}", word(number * 11), word(number * 17 + 5)),
        manufacturer: format!("Manufacturer {}", number % 7),
        category: ["Audio".to_owned(), "Headphones".to_owned(), format!("Line {}", number % 5)],
        description,
        price: format!("{}.{}", 10 + number, 10 + number % 90),
        currency: "EUR",
        stock: number * 37 % 100,
        available: !number.is_multiple_of(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_item_is_about_a_hundred_bytes_of_json() {
        let bytes = serde_json::to_vec(&small()).expect("an item is JSON");
        assert!((80..140).contains(&bytes.len()), "{}", bytes.len());
    }

    #[test]
    fn the_big_list_is_about_twenty_kilobytes_of_json() {
        let bytes = serde_json::to_vec(&big()).expect("a list is JSON");
        assert!((18_000..24_000).contains(&bytes.len()), "{}", bytes.len());
    }
}
