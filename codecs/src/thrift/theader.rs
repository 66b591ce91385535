//! THeader: `len:u32 | 0F FF | flags:u16 | seq:u32 | words:u16 | infos, padded | message`.
//!
//! Infos: protocol (varint: 0 binary, 2 compact), number of transforms and their ids (1: zlib), then sections:
//! 1 headers, 2 persistent headers, both `count (length key length value)*` in varints; 0 is padding.

use meltemi::wire::put_varint;
use meltemi::{DecodeError, EncodeError, Limits, Marks, Mutation, wire::Reader};

use super::{
    infos::{Changed, Entry, Key, close},
    message::Protocol,
};

/// Where the infos start.
const INFOS: usize = 14;
/// Where the number of words stands.
const WORDS: usize = 12;

const KEY_VALUE: u64 = 1;
const PERSISTENT: u64 = 2;
const ZLIB: u64 = 1;

/// A THeader frame without its message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) sequence: u32,
    pub(super) protocol: Protocol,
    pub(super) zlib: bool,
    /// Where the sections of headers start.
    pub(super) sections: usize,
    /// Where the message starts.
    pub(super) message: usize,
}

/// A protocol that is neither binary nor compact.
pub(super) const UNKNOWN_PROTOCOL: &str = "protocol of a header frame";
/// A transform that is not zlib.
pub(super) const UNKNOWN_TRANSFORM: &str = "transform of a header frame";

impl Head {
    /// Reads the head of a whole frame, its headers within the limits.
    pub(super) fn read(frame: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let head = Self::open(frame)?;
        let infos = frame.get(..head.message).unwrap_or_default();
        let (mut count, mut bytes) = (0usize, 0usize);
        let whole = each(infos, head.sections, &mut |entry| {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(entry.size());
        });
        if count > limits.max_headers || bytes > limits.max_header_bytes {
            return Err(DecodeError::too_large("headers of a THeader", head.sections));
        }
        whole.ok_or(DecodeError::malformed("headers of a THeader", head.sections))?;
        Ok(head)
    }

    /// Reads the head up to its headers. They must be there, but the message need not.
    pub(super) fn open(frame: &[u8]) -> Result<Self, DecodeError> {
        let short = |offset| DecodeError::malformed("THeader is cut off", offset);
        let mut reader = Reader::at(frame, 8);
        let sequence = reader.u32().map_err(|_| short(8))?;
        let words = reader.u16().map_err(|_| short(WORDS))?;
        let message = INFOS.saturating_add(usize::from(words).saturating_mul(4));
        let infos = frame.get(..message).ok_or(short(INFOS))?;
        let mut reader = Reader::at(infos, INFOS);
        let mut number = || varint(&mut reader).ok_or(short(INFOS));
        let protocol = match number()? {
            0 => Protocol::Binary,
            2 => Protocol::Compact,
            _ => return Err(DecodeError::unsupported(UNKNOWN_PROTOCOL, INFOS)),
        };
        let transforms = number()?;
        let mut zlib = false;
        for _ in 0..transforms {
            match number()? {
                ZLIB if !zlib => zlib = true,
                _ => return Err(DecodeError::unsupported(UNKNOWN_TRANSFORM, INFOS)),
            }
        }
        Ok(Self { sequence, protocol, zlib, sections: reader.position(), message })
    }

    /// What [`walk`] needs.
    pub(super) fn marks(&self) -> Marks {
        let mark = |n: usize| u32::try_from(n).unwrap_or(0);
        [mark(self.sections), mark(self.message), 0, 0, 0, 0]
    }
}

fn varint(reader: &mut Reader<'_>) -> Option<u64> {
    reader.varint().ok().flatten()
}

fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(reader)?).ok()?;
    reader.take(length).ok()
}

/// Visits every header; gives the padding, or the sections that we do not know, behind them. `None` if the sections are
/// not what they should be.
fn each<'a>(infos: &'a [u8], sections: usize, visit: &mut dyn FnMut(Entry<'a>)) -> Option<&'a [u8]> {
    let mut reader = Reader::at(infos, sections);
    while reader.remaining() > 0 {
        let rest = reader.rest();
        let section = varint(&mut reader)?;
        if section != KEY_VALUE && section != PERSISTENT {
            // Padding, or a section that we do not know, whose length is not told.
            return Some(rest);
        }
        let count = varint(&mut reader)?;
        for _ in 0..count {
            let name = text(&mut reader)?;
            let key = if section == KEY_VALUE { Key::Text(name) } else { Key::Persistent(name) };
            visit(Entry { key, value: text(&mut reader)? });
        }
    }
    Some(&[])
}

/// [`meltemi::HeaderWalk`] over a frame.
pub(super) fn walk<'b>(frame: &'b [u8], marks: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    let [sections, message, ..] = marks.map(|mark| mark as usize);
    // Stops by itself at what is not a header.
    let _ = each(frame.get(..message).unwrap_or_default(), sections, &mut |entry| match entry.key {
        Key::Text(name) | Key::Persistent(name) => visit(name, entry.value),
        Key::Integer(_) => {}
    });
}

/// Writes the frame up to its message with its headers changed.
pub(super) fn rewrite(frame: &[u8], head: &Head, mutation: &Mutation, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let malformed = EncodeError::Malformed("THeader");
    let changed = Changed::new(mutation);
    let infos = frame.get(..head.message).ok_or(malformed)?;
    let mut entries = Vec::new();
    let rest = each(infos, head.sections, &mut |entry| entries.push(entry)).ok_or(malformed)?;
    let start = out.len();
    out.extend_from_slice(infos.get(..head.sections).ok_or(malformed)?);
    let has = |name: &[u8]| {
        entries.iter().any(|entry| matches!(entry.key, Key::Text(key) | Key::Persistent(key) if key == name))
    };
    let kept = |persistent: bool| {
        let changed = &changed;
        entries.iter().filter_map(move |entry| match entry.key {
            Key::Text(name) if !persistent => Some((name, changed.value(name, entry.value)?)),
            Key::Persistent(name) if persistent => Some((name, changed.value(name, entry.value)?)),
            _ => None,
        })
    };
    section(KEY_VALUE, kept(false).chain(changed.added(has)), out);
    section(PERSISTENT, kept(true), out);
    if rest.iter().any(|byte| *byte != 0) {
        out.extend_from_slice(rest);
    }
    close(out, start.saturating_add(INFOS), start.saturating_add(WORDS))
}

fn section<'a>(id: u64, entries: impl Iterator<Item = (&'a [u8], &'a [u8])>, out: &mut Vec<u8>) {
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() {
        return;
    }
    put_varint(out, id);
    put_varint(out, entries.len() as u64);
    for text in entries.iter().flat_map(|(name, value)| [name, value]) {
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text);
    }
}
