//! `google.protobuf.Struct` from its binary form: Envoy 1.38 gives a bridge its configuration so (later versions, and the
//! other extensions of 1.38, get JSON; envoyproxy/envoy#44743).

use meltemi_core::wire::Reader;
use serde_json::{Map, Number, Value};

/// Reads a serialized `Struct`; `None` if it is not one, or nested deeper than any configuration of ours.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    read_struct(bytes, 8)
}

fn read_struct(bytes: &[u8], depth: u8) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let mut fields = Map::new();
    for_each(bytes, &mut |field| {
        // Field 1, the map `fields`: entries of a key and a value.
        let Field::Bytes(1, entry) = field else { return None };
        let (mut key, mut value) = (String::new(), Value::Null);
        for_each(entry, &mut |part| {
            match part {
                Field::Bytes(1, text) => key = String::from_utf8(text.to_vec()).ok()?,
                Field::Bytes(2, bytes) => value = read_value(bytes, depth)?,
                _ => return None,
            }
            Some(())
        })?;
        fields.insert(key, value);
        Some(())
    })?;
    Some(Value::Object(fields))
}

fn read_value(bytes: &[u8], depth: u8) -> Option<Value> {
    let mut value = Value::Null;
    for_each(bytes, &mut |field| {
        value = match field {
            Field::Varint(1, _) => Value::Null,
            Field::Double(2, number) => read_number(number)?,
            Field::Bytes(3, text) => Value::String(String::from_utf8(text.to_vec()).ok()?),
            Field::Varint(4, truth) => Value::Bool(truth != 0),
            Field::Bytes(5, bytes) => read_struct(bytes, depth)?,
            Field::Bytes(6, bytes) => read_list(bytes, depth)?,
            _ => return None,
        };
        Some(())
    })?;
    Some(value)
}

fn read_list(bytes: &[u8], depth: u8) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let mut values = Vec::new();
    for_each(bytes, &mut |field| {
        let Field::Bytes(1, bytes) = field else { return None };
        values.push(read_value(bytes, depth)?);
        Some(())
    })?;
    Some(Value::Array(values))
}

/// A `Struct` knows only doubles; JSON tells whole numbers from others, and so do the fields of configurations.
fn read_number(number: f64) -> Option<Value> {
    let whole = number.fract() == 0.0 && number.abs() < 9e15;
    let number = if whole { Some(Number::from(number as i64)) } else { Number::from_f64(number) };
    number.map(Value::Number)
}

/// A field of a message: its number and content.
enum Field<'a> {
    Varint(u64, u64),
    Double(u64, f64),
    Bytes(u64, &'a [u8]),
}

fn for_each<'a>(bytes: &'a [u8], visit: &mut dyn FnMut(Field<'a>) -> Option<()>) -> Option<()> {
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 {
        let tag = reader.varint().ok()??;
        let number = tag >> 3;
        let field = match tag & 7 {
            0 => Field::Varint(number, reader.varint().ok()??),
            1 => Field::Double(number, f64::from_bits(reader.u64_le().ok()?)),
            2 => {
                let length = usize::try_from(reader.varint().ok()??).ok()?;
                Field::Bytes(number, reader.take(length).ok()?)
            }
            _ => return None,
        };
        visit(field)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration of the first test in binary, entry by entry.
    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(b"\x0a\x14\x0a\x07version\x12\x09\x11\0\0\0\0\0\0\xf0\x3f");
        bytes.extend(b"\x0a\x1d\x0a\x05codec\x12\x14\x2a\x12\x0a\x10\x0a\x04name\x12\x08\x1a\x06thrift");
        bytes.extend(b"\x0a\x08\x0a\x02on\x12\x02\x20\x01");
        bytes.extend(b"\x0a\x13\x0a\x04list\x12\x0b\x32\x09\x0a\x03\x1a\x01a\x0a\x02\x08\0");
        bytes.extend(b"\x0a\x11\x0a\x04half\x12\x09\x11\0\0\0\0\0\0\xe0\x3f");
        bytes
    }

    #[test]
    fn a_struct_becomes_its_json() {
        let json = r#"{"version": 1, "codec": {"name": "thrift"}, "on": true, "list": ["a", null], "half": 0.5}"#;
        assert_eq!(read(&sample()), serde_json::from_str(json).ok());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let sample = sample();
        for end in 0..sample.len() {
            let _ = read(&sample[..end]);
        }
        for place in 0..sample.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = sample.clone();
                bytes[place] = byte;
                let _ = read(&bytes);
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = b"\x0a\x00".to_vec();
        for _ in 0..12 {
            let mut value = vec![0x2a, bytes.len() as u8];
            value.extend(&bytes);
            let mut entry = vec![0x12, value.len() as u8];
            entry.extend(&value);
            bytes = vec![0x0a, entry.len() as u8];
            bytes.extend(&entry);
        }
        assert_eq!(read(&bytes), None);
    }
}
