//! Writes text in the encodings of bodies.

use meltemi::{EncodeError, wire::put_varint};

use super::{body::Form, protobuf};

/// Appends a text that stands alone in a body.
pub(super) fn put_item(form: Form, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match form {
        Form::Hessian2 => put_hessian(text, out),
        Form::Fastjson2 => {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            put_jsonb(text, out)?;
            close_length(out.get_mut(start..).unwrap_or_default(), 0)
        }
        Form::Protobuf => {
            let mut message = Vec::new();
            if !text.is_empty() {
                put_field(protobuf::FIRST, utf8(text)?, &mut message);
            }
            put_varint(out, message.len() as u64);
            out.extend_from_slice(&message);
            Ok(())
        }
    }
}

/// Appends an attachment.
pub(super) fn put_entry(form: Form, name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match form {
        Form::Hessian2 => {
            put_hessian(name, out)?;
            put_hessian(value, out)
        }
        Form::Fastjson2 => {
            put_jsonb(name, out)?;
            put_jsonb(value, out)
        }
        Form::Protobuf => {
            let mut entry = Vec::new();
            put_field(protobuf::FIRST, utf8(name)?, &mut entry);
            put_field(protobuf::SECOND, utf8(value)?, &mut entry);
            put_field(protobuf::FIRST, &entry, out);
            Ok(())
        }
    }
}

/// Appends text as a line of JSON.
pub(super) fn put_json_line(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.extend_from_slice(b"\"\n");
}

/// Writes into the four bytes at `start` how many follow them.
pub(super) fn close_length(out: &mut [u8], start: usize) -> Result<(), EncodeError> {
    let length = out.len().saturating_sub(start).saturating_sub(4);
    let length = u32::try_from(length).map_err(|_| EncodeError::TooLarge("item"))?;
    if let Some(place) = out.get_mut(start..start.saturating_add(4)) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// Appends a hessian2 string: its length counts UTF-16 units, and characters beyond the first plane are written as
/// the UTF-8 of both halves of their surrogate pair. Halves that come so are copied.
fn put_hessian(text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut units = 0usize;
    let mut rest = text;
    while let Some(character) = character(&mut rest)? {
        units = units.saturating_add(if character.len() == 4 { 2 } else { 1 });
    }
    let units = u16::try_from(units).map_err(|_| EncodeError::TooLarge("text of more than 65,535 characters"))?;
    match (units, units.to_be_bytes()) {
        (0..=0x1f, [_, low]) => out.push(low),
        (0x20..=0x3ff, [high, low]) => out.extend_from_slice(&[0x30 | high, low]),
        (_, [high, low]) => out.extend_from_slice(&[b'S', high, low]),
    }
    rest = text;
    while let Some(character) = character(&mut rest)? {
        match core::str::from_utf8(character).ok().and_then(|text| text.chars().next()) {
            Some(wide) if character.len() == 4 => {
                for half in wide.encode_utf16(&mut [0; 2]) {
                    let six = |shift: u16| ((*half >> shift) & 0x3f) as u8;
                    out.extend_from_slice(&[0xe0 | (*half >> 12) as u8, 0x80 | six(6), 0x80 | six(0)]);
                }
            }
            _ => out.extend_from_slice(character),
        }
    }
    Ok(())
}

/// Takes the first character off `text`.
fn character<'a>(text: &mut &'a [u8]) -> Result<Option<&'a [u8]>, EncodeError> {
    let bytes = match text.first() {
        None => return Ok(None),
        Some(0x00..=0x7f) => 1,
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        Some(_) => return Err(NO_TEXT),
    };
    let (head, rest) = text.split_at_checked(bytes).ok_or(NO_TEXT)?;
    let continued = head.iter().skip(1).all(|byte| byte & 0xc0 == 0x80);
    let exists = bytes != 4 || core::str::from_utf8(head).is_ok();
    *text = rest;
    if continued && exists { Ok(Some(head)) } else { Err(NO_TEXT) }
}

/// Appends a JSONB string.
fn put_jsonb(text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let length = utf8(text)?.len();
    let ascii = text.is_ascii();
    match u8::try_from(length) {
        Ok(short @ 0..=0x2f) if ascii => out.push(0x49u8.saturating_add(short)),
        _ => {
            out.push(if ascii { 0x79 } else { 0x7a });
            put_jsonb_length(length, out)?;
        }
    }
    out.extend_from_slice(text);
    Ok(())
}

fn put_jsonb_length(length: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let length = i32::try_from(length).map_err(|_| EncodeError::TooLarge("text"))?;
    match (length, length.to_be_bytes()) {
        (0..=0x2f, [.., low]) => out.push(low),
        (0x30..=0x7ff, [.., high, low]) => out.extend_from_slice(&[0x38 | high, low]),
        (0x800..=0x3_ffff, [_, top, high, low]) => out.extend_from_slice(&[0x44 | top, high, low]),
        (_, all) => {
            out.push(0x48);
            out.extend_from_slice(&all);
        }
    }
    Ok(())
}

fn put_field(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn utf8(text: &[u8]) -> Result<&[u8], EncodeError> {
    core::str::from_utf8(text).map(str::as_bytes).map_err(|_| NO_TEXT)
}

const NO_TEXT: EncodeError = EncodeError::Unsupported("attachments can only be text in UTF-8");
