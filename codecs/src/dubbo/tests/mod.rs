//! Of the inside: values are passed over to their very end. What is seen from outside is in `codecs/tests`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod values;

use meltemi::{DecodeErrorKind, Limits};
use proptest::prelude::*;

use self::values::{Encoder, value};
use super::{
    body::{Form, Value, Walk},
    hessian, text,
};

/// Name, number of values and bytes, as the hessian2 writer inside Java Dubbo makes them.
const VECTORS: &str = include_str!("../../../corpus/dubbo/vectors.txt");

fn vectors() -> impl Iterator<Item = (&'static str, usize, Vec<u8>)> {
    VECTORS.lines().map(|line| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        (word(), word().parse().unwrap(), hex::decode(word()).unwrap())
    })
}

#[test]
fn values_written_by_java_are_passed_over_to_their_end() {
    let mut seen = 0;
    for (name, count, bytes) in vectors() {
        let mut walk = hessian::Walk::new(&bytes, 0, &Limits::default());
        for index in 0..count {
            walk.value().unwrap_or_else(|error| panic!("{name}[{index}]: {error}"));
        }
        assert_eq!(walk.position(), bytes.len(), "{name}");
        seen += count;
    }
    assert!(seen > 100, "{seen} vectors");
}

#[test]
fn values_written_by_java_end_nowhere_before() {
    for (name, count, bytes) in vectors().filter(|(_, _, bytes)| bytes.len() < 5000) {
        for end in 0..bytes.len() {
            let mut walk = hessian::Walk::new(&bytes[..end], 0, &Limits::default());
            let whole = (0..count).all(|_| walk.value().is_ok());
            assert!(!whole, "{name} cut at {end}");
        }
    }
}

#[test]
fn text_written_by_java_is_lent() {
    let (_, _, bytes) = vectors().find(|(name, ..)| *name == "emoji").unwrap();
    let mut walk = hessian::Walk::new(&bytes, 0, &Limits::default());
    assert_eq!(walk.value(), Ok(Value::Text(b"\xed\xa0\xbd\xed\xb8\x80")), "a surrogate pair is two units");
    let (_, _, bytes) = vectors().find(|(name, ..)| *name == "chunked").unwrap();
    let mut walk = hessian::Walk::new(&bytes, 0, &Limits::default());
    assert_eq!(walk.value(), Ok(Value::Other), "text in chunks is not lent");
    assert_eq!(walk.value(), Ok(Value::Text(b"end")));
}

#[test]
fn integers_written_by_java() {
    let limits = Limits::default();
    let read: Vec<i32> = vectors()
        .filter(|(name, ..)| *name == "int")
        .map(|(_, _, bytes)| hessian::Walk::new(&bytes, 0, &limits).int().unwrap())
        .collect();
    let written =
        [0, -16, 47, 48, -17, -2048, 2047, 2048, -2049, 262_143, -262_144, 262_144, -262_145, i32::MAX, i32::MIN];
    assert_eq!(read, written);
}

#[test]
fn limits_hold() {
    let nested = [b'W'; 200];
    let limits = Limits { max_depth: 10, ..Limits::default() };
    let error = hessian::Walk::new(&nested, 0, &limits).value().unwrap_err();
    assert_eq!((error.kind, error.offset), (DecodeErrorKind::TooDeep, 11));

    let many = [&[b'W'][..], &[b'N'; 200], b"Z"].concat();
    let limits = Limits { max_elements: 100, ..Limits::default() };
    let error = hessian::Walk::new(&many, 0, &limits).value().unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::TooLarge);
    assert!(hessian::Walk::new(&many, 0, &Limits::default()).value().is_ok());

    // Item of 40 bytes: arrays of one array each.
    let nested = [&[0, 0, 0, 40][..], &[0x49], &[0x95; 39]].concat();
    let mut walk = Walk::new(Form::Fastjson2, &nested, 5, &Limits { max_depth: 10, ..Limits::default() });
    let Walk::Fastjson2(walk) = &mut walk else { panic!("not JSONB") };
    assert_eq!(walk.value().unwrap_err().kind, DecodeErrorKind::TooDeep);
}

#[test]
fn bad_hessian_is_malformed() {
    for bad in ["40", "45", "47", "50", "5a", "60", "4f90", "5190", "4d", "58a0", "0180", "48014e5a", "43", "4301"] {
        let bytes = hex::decode(bad).unwrap();
        let mut walk = hessian::Walk::new(&bytes, 0, &Limits::default());
        // A reference to nothing is told by whoever resolves it.
        let bad_value = bad != "5190";
        assert_eq!(walk.value().is_err(), bad_value, "{bad}");
    }
}

proptest! {
    #[test]
    fn generated_values_are_passed_over_to_their_end(values in prop::collection::vec(value(), 1..6), style in any::<u64>()) {
        let mut encoder = Encoder::new(style);
        for value in &values {
            encoder.put(value);
        }
        let bytes = encoder.out;
        let mut walk = hessian::Walk::new(&bytes, 0, &Limits::default());
        for value in &values {
            let seen = walk.value().unwrap();
            if let Some(text) = value.short_text() {
                prop_assert_eq!(cesu8_to_string(seen.text().unwrap()), text);
            }
        }
        prop_assert_eq!(walk.position(), bytes.len());
    }

    #[test]
    fn text_comes_back_from_every_form(text in "\\PC{0,60}|[a-z]{2000,3000}", form in 0..3usize) {
        let form = [Form::Hessian2, Form::Fastjson2, Form::Protobuf][form];
        let mut out = Vec::new();
        text::put_item(form, &text, &mut out).unwrap();
        let mut walk = Walk::new(form, &out, 0, &Limits::default());
        let back = walk.text().unwrap().text().map(cesu8_to_string);
        prop_assert_eq!(back, Some(text));
        prop_assert_eq!(walk.position(), out.len());
    }

    #[test]
    fn any_bytes_are_walked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), form in 0..3usize) {
        let form = [Form::Hessian2, Form::Fastjson2, Form::Protobuf][form];
        let mut walk = Walk::new(form, &bytes, 0, &Limits::default());
        while walk.position() < bytes.len() && walk.skip().is_ok() {}
        let mut walk = Walk::new(form, &bytes, 0, &Limits::default());
        if walk.enter().is_ok() {
            while let Ok(Some(entry)) = walk.entry() {
                prop_assert!(entry.end > entry.start);
            }
        }
        prop_assert!(walk.position() <= bytes.len());
    }
}

/// Text whose surrogate pairs are written as two characters of three bytes each.
fn cesu8_to_string(bytes: &[u8]) -> String {
    let mut units = Vec::new();
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let (unit, length) = match first {
            0..=0x7f => (u16::from(first), 1),
            0xc0..=0xdf => (u16::from(first & 0x1f) << 6 | u16::from(rest[1] & 0x3f), 2),
            0xe0..=0xef => {
                (u16::from(first & 0x0f) << 12 | u16::from(rest[1] & 0x3f) << 6 | u16::from(rest[2] & 0x3f), 3)
            }
            _ => {
                let text = std::str::from_utf8(&rest[..4]).unwrap();
                units.extend(text.encode_utf16());
                rest = &rest[4..];
                continue;
            }
        };
        units.push(unit);
        rest = &rest[length..];
    }
    String::from_utf16(&units).unwrap()
}
