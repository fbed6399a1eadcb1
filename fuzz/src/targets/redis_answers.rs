//! What comes from Redis: measured the same however it is cut, and an answer ends where the library that gathers it thinks so; else the measure would
//! count one answer while the library gathers another.

use mainstay::fuzzing::measured;
use redis::parse_redis_value;

pub(crate) fn run(data: &[u8]) {
    let (ends, refused) = measured(data, 1);
    for piece in [2, 7, data.len().max(1)] {
        assert_eq!(measured(data, piece).1, refused, "cut in pieces of {piece} it is measured otherwise");
    }
    let mut from = 0;
    for end in ends {
        let answer = &data[from..end];
        let whole = parse_redis_value(answer);
        let early = parse_redis_value(&answer[..answer.len() - 1]);
        if whole.is_ok() {
            assert!(early.is_err(), "the library had its answer before its last byte: {:?}", String::from_utf8_lossy(answer));
        } else if parse_redis_value(&[answer, &b"+\r\n".repeat(8)].concat()).is_ok() {
            panic!("the library waits for more: {:?}", String::from_utf8_lossy(answer));
        }
        from = end;
    }
}
