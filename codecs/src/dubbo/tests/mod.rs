//! Of the inside: values are passed over to their very end. What is seen from outside is in `codecs/tests`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod values;

use meltemi::{DecodeErrorKind, Limits};
use proptest::prelude::*;

use self::values::{Encoder, value};
use super::{
    body::{Form, Place, Value, Walk},
    hessian, text,
};

/// Name and attachments, as the fastjson2 writer inside Java Dubbo makes them: `v` between `before` and `behind`.
const JSONB_VECTORS: &str = include_str!("../../../corpus/dubbo/jsonb.txt");

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

fn jsonb_vectors() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    JSONB_VECTORS.lines().map(|line| line.split_once(' ').unwrap()).map(|(name, hex)| (name, hex::decode(hex).unwrap()))
}

#[test]
fn attachments_written_by_java_as_jsonb_hide_nothing_behind_them() {
    let mut seen = 0;
    for (name, bytes) in jsonb_vectors() {
        let mut walk = Walk::new(Form::Fastjson2, &bytes, 0, &Limits::default());
        let place = walk.enter().unwrap_or_else(|error| panic!("{name}: {error}"));
        if name == "no-map" {
            assert_eq!((place, walk.position()), (Place::Null, bytes.len()));
            continue;
        }
        assert_eq!(place, Place::Map, "{name}");
        let mut entries = Vec::new();
        while let Some(entry) = walk.entry().unwrap_or_else(|error| panic!("{name}: {error}")) {
            assert!(matches!(entry.name, Value::Text(_)));
            assert_ne!(entry.value, Value::Scattered, "{name}: Java does not write so");
            entries.push((entry.name.text().unwrap(), entry.value));
        }
        assert_eq!(walk.position(), bytes.len(), "{name}");
        if !matches!(name, "linked-map" | "empty") {
            assert!(entries.contains(&(b"before", Value::Text(b"b"))), "{name}");
            assert!(entries.contains(&(b"behind", Value::Text(b"e"))), "{name}");
        }
        seen += 1;
    }
    assert!(seen > 100, "{seen} vectors");
}

#[test]
fn attachments_written_by_java_as_jsonb_end_nowhere_before() {
    for (name, bytes) in jsonb_vectors().filter(|(name, bytes)| bytes.len() < 1000 && *name != "no-map") {
        for end in 5..bytes.len() {
            let length = u32::try_from(end - 4).unwrap().to_be_bytes();
            let cut = [&length[..], &bytes[4..end]].concat();
            let mut walk = Walk::new(Form::Fastjson2, &cut, 0, &Limits::default());
            let mut whole = matches!(walk.enter(), Ok(Place::Map));
            while whole {
                match walk.entry() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => whole = false,
                }
            }
            assert!(!whole, "{name} cut at {end}");
        }
    }
}

#[test]
fn jsonb_text_is_lent_in_the_bytes_that_java_writes() {
    let value = |name: &str, nth: usize| {
        let bytes = jsonb_vectors().filter(|(known, _)| *known == name).nth(nth).unwrap().1;
        let mut walk = Walk::new(Form::Fastjson2, &bytes, 0, &Limits::default());
        walk.enter().unwrap();
        let mut text = None;
        while let Some(entry) = walk.entry().unwrap() {
            if let (Value::Text(b"v"), Value::Text(value) | Value::Coded(value)) = (entry.name, entry.value) {
                text = Some(value.to_vec());
            }
        }
        text.unwrap()
    };
    assert_eq!(value("wide", 0), b"\xe9", "Latin-1");
    assert_eq!(value("wide", 2), b"\x22\x6f", "UTF-16");
    assert_eq!(value("wide", 4), "😀".as_bytes());
}

#[test]
fn text_that_hides_what_it_says_is_told() {
    for (bytes, lent) in [
        ("7c046e006f00", false),
        ("7d04006e006f", false),
        ("7c02226f", true),
        ("7b046e006f00", false),
        ("7e026e6f", false),
        ("7f4a6101", false),
        ("7f01", false),
    ] {
        let bytes = hex::decode(bytes).unwrap();
        let mut walk = Walk::new(Form::Fastjson2, &bytes, 0, &Limits::default());
        let Walk::Fastjson2(walk) = &mut walk else { panic!("not JSONB") };
        assert_eq!(matches!(walk.value(), Ok(Value::Coded(_))), lent);
        assert_eq!(walk.position(), bytes.len());
    }
    // ASCII in two and three bytes, which Java reads; a byte that does not continue.
    for bad in [&b"\x01\xc1\xa1"[..], b"\x01\xe0\x81\xa1", b"\x01\xf0\x80\x81\xa1", b"\x01\xc3\x29"] {
        let error = hessian::Walk::new(bad, 0, &Limits::default()).value().unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Malformed);
    }
}

#[test]
fn a_number_ends_with_its_item() {
    let body = hex::decode("00000002bd0400000001017f").unwrap();
    let mut walk = Walk::new(Form::Fastjson2, &body, 0, &Limits::default());
    assert_eq!((walk.number(), walk.number()), (Ok(4), Ok(1)));
    let body = hex::decode("00000003bd0400").unwrap();
    let mut walk = Walk::new(Form::Fastjson2, &body, 0, &Limits::default());
    assert_eq!((walk.number(), walk.position()), (Ok(4), 7));
    let body = hex::decode("00000001bd04").unwrap();
    assert!(Walk::new(Form::Fastjson2, &body, 0, &Limits::default()).number().is_err());
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
    assert_eq!(walk.value(), Ok(Value::Scattered), "text in chunks is not lent");
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
        text::put_item(form, text.as_bytes(), &mut out).unwrap();
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
