//! Import: lines are the lines of the file, packed or not, and a product that is taken is taken again as it is shown.

use std::sync::LazyLock;

use mainstay::clock::Clock;
use mainstay::extract::{from_value, parse_json};
use mainstay_app::import::{Line, Source, parse};
use mainstay_app::products::input::WriteProduct;
use serde_json::Value;

/// What is packed may be a thousand times as long as it came.
const LINES_MAX: usize = 64;

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::from_fn(|| jiff::Timestamp::from_second(1_767_225_600).unwrap()));

pub(crate) fn run(data: &[u8]) {
    let Ok(mut source) = Source::from_bytes(data.to_vec()) else { return };
    let packed = data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || data.starts_with(&[0x1f, 0x8b]);
    let mut expected = data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    for _ in 0..LINES_MAX {
        match source.next_line() {
            Ok(Line::End) => {
                assert!(packed || expected.next().is_none_or(<[u8]>::is_empty));
                assert!(packed || expected.next().is_none());
                break;
            }
            Ok(Line::Blank) => assert!(packed || expected.next().is_some_and(<[u8]>::is_empty)),
            Ok(Line::TooLong) => assert!(packed),
            Ok(Line::Text(text)) => {
                assert!(packed || expected.next() == Some(text));
                assert!(text.len() <= 1 << 20);
                product(text);
            }
            Err(_) => {
                assert!(packed, "bytes that are there could not be read");
                break;
            }
        }
    }
    assert!(source.bytes_read() <= data.len() as u64);
}

fn product(line: &[u8]) {
    match parse(line, &CLOCK) {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(product) => {
            let Value::Object(mut shown) = serde_json::to_value(&product).unwrap() else { panic!("a product is an object") };
            for own in ["id", "version", "created_at", "updated_at"] {
                assert!(shown.remove(own).is_some());
            }
            let line = serde_json::to_vec(&shown).unwrap();
            let written: WriteProduct = from_value(parse_json(&line).unwrap()).unwrap();
            let Value::Object(again) = serde_json::to_value(parse(&line, &CLOCK).unwrap()).unwrap() else { panic!("a product is an object") };
            // The parser rounds the last digit of a fraction now and then, which attributes may have.
            let same = |name: &str| name == "attributes" || again.get(name) == shown.get(name);
            assert!(shown.keys().all(|name| same(name)), "{shown:?} became {again:?}");
            assert!(written.parse().is_ok());
            let bounded = product.name.chars().count() <= 500 && product.tags.len() <= 100 && product.category.len() <= 10;
            assert!(bounded && product.sku.is_some_and(|sku| !sku.contains('\0')));
        }
    }
}
