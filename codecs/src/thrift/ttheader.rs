//! TTHeader (CloudWeGo): `len:u32 | 10 00 | flags:u16 | seq:u32 | words:u16 | infos, padded | message`.
//!
//! Infos: `protocol:u8`, `transforms:u8` and their ids, then sections: `01` headers with text keys, `10` with integer
//! keys, `11` a token, `00` padding. The message may have a frame length of its own.

use meltemi::{DecodeError, EncodeError, Limits, Marks, Mutation, wire::Reader};

use super::{
    infos::{Changed, Entry, Key, close},
    message::Protocol,
    theader::{UNKNOWN_PROTOCOL, UNKNOWN_TRANSFORM},
};

const INFOS: usize = 14;
const WORDS: usize = 12;

const TEXT: u8 = 0x01;
const INTEGER: u8 = 0x10;
const TOKEN: u8 = 0x11;

/// Names of the integer keys, by number (`transmeta` of CloudWeGo Kitex).
const NAMES: [&str; 27] = [
    "mesh-version",
    "transport-type",
    "log-id",
    "from-service",
    "from-cluster",
    "from-idc",
    "to-service",
    "to-cluster",
    "to-idc",
    "to-method",
    "env",
    "dest-address",
    "rpc-timeout",
    "read-timeout",
    "ring-hash-key",
    "ddp-tag",
    "with-mesh-header",
    "connect-timeout",
    "span-context",
    "short-connection",
    "from-method",
    "stress-tag",
    "msg-type",
    "http-content-type",
    "raw-ring-hash-key",
    "lb-type",
    "cluster-shard-id",
];

/// Text key under which clients name the service of the interface definition.
const IDL_SERVICE: &[u8] = b"isn";

/// A TTHeader frame without its message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) sequence: u32,
    pub(super) protocol: Protocol,
    pub(super) service: &'a [u8],
    /// Where the sections of headers start.
    pub(super) sections: usize,
    /// Where the message starts, or its own frame length.
    pub(super) message: usize,
}

impl<'a> Head<'a> {
    /// Reads the head of a whole frame, its headers within the limits.
    pub(super) fn read(frame: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        let mut head = Self::open(frame)?;
        let infos = frame.get(..head.message).unwrap_or_default();
        let (mut count, mut bytes) = (0usize, 0usize);
        let whole = each(infos, head.sections, &mut |entry| {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(entry.size());
            if entry.key == Key::Text(IDL_SERVICE) {
                head.service = entry.value;
            }
        });
        if count > limits.max_headers || bytes > limits.max_header_bytes {
            return Err(DecodeError::too_large("headers of a TTHeader", head.sections));
        }
        whole.ok_or(DecodeError::malformed("headers of a TTHeader", head.sections))?;
        Ok(head)
    }

    /// Reads the head up to its headers. They must be there, but the message need not.
    pub(super) fn open(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let short = |offset| DecodeError::malformed("TTHeader is cut off", offset);
        let mut reader = Reader::at(frame, 8);
        let sequence = reader.u32().map_err(|_| short(8))?;
        let words = reader.u16().map_err(|_| short(WORDS))?;
        let message = INFOS.saturating_add(usize::from(words).saturating_mul(4));
        let infos = frame.get(..message).ok_or(short(INFOS))?;
        let mut reader = Reader::at(infos, INFOS);
        let (protocol, transforms) = match (reader.u8(), reader.u8()) {
            (Ok(protocol), Ok(transforms)) => (protocol, transforms),
            _ => return Err(short(INFOS)),
        };
        if transforms != 0 {
            return Err(DecodeError::unsupported(UNKNOWN_TRANSFORM, INFOS));
        }
        // Numbers of Kitex (`header_codec.go`): 3 is a second compact, 4 protobuf, 0x10 and 0x11 structs without a
        // message's head, in streams.
        let protocol = match protocol {
            0 => Protocol::Binary,
            2 => Protocol::Compact,
            _ => return Err(DecodeError::unsupported(UNKNOWN_PROTOCOL, INFOS)),
        };
        Ok(Self { sequence, protocol, service: b"", sections: reader.position(), message })
    }

    /// What [`walk`] needs.
    pub(super) fn marks(&self) -> Marks {
        let mark = |n: usize| u32::try_from(n).unwrap_or(0);
        [mark(self.sections), mark(self.message), 0, 0, 0, 0]
    }
}

/// Where the message of a frame of `length` bytes starts, whose head ends `at`, and whether a frame length of its own
/// stands before it.
pub(super) fn message_at(frame: &[u8], at: usize, length: u64) -> (usize, bool) {
    let message = at.saturating_add(4);
    let inner = frame.get(at..message).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    match inner {
        Some(inner) if u64::from(inner).saturating_add(message as u64) == length => (message, true),
        _ => (at, false),
    }
}

fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.u16().ok()?;
    reader.take(usize::from(length)).ok()
}

fn each<'a>(infos: &'a [u8], sections: usize, visit: &mut dyn FnMut(Entry<'a>)) -> Option<()> {
    let mut reader = Reader::at(infos, sections);
    while reader.remaining() > 0 {
        match reader.u8().ok()? {
            TEXT => {
                for _ in 0..reader.u16().ok()? {
                    let key = Key::Text(text(&mut reader)?);
                    visit(Entry { key, value: text(&mut reader)? });
                }
            }
            INTEGER => {
                for _ in 0..reader.u16().ok()? {
                    let key = Key::Integer(reader.u16().ok()?);
                    visit(Entry { key, value: text(&mut reader)? });
                }
            }
            TOKEN => {
                text(&mut reader)?;
            }
            0 => {}
            _ => return None,
        }
    }
    Some(())
}

/// Name of a header; integer keys that we do not know have none, and pass untouched.
fn name<'a>(key: Key<'a>) -> Option<&'a [u8]> {
    match key {
        Key::Text(name) | Key::Persistent(name) => Some(name),
        Key::Integer(number) => NAMES.get(usize::from(number)).map(|name| name.as_bytes()),
    }
}

/// [`meltemi::HeaderWalk`] over a frame.
pub(super) fn walk<'b>(frame: &'b [u8], marks: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    let [sections, message, ..] = marks.map(|mark| mark as usize);
    // Stops by itself at what is not a header.
    let _ = each(frame.get(..message).unwrap_or_default(), sections, &mut |entry| {
        if let Some(name) = name(entry.key) {
            visit(name, entry.value);
        }
    });
}

/// Writes the frame up to its message with its headers changed. New ones get text keys.
pub(super) fn rewrite(
    frame: &[u8],
    head: &Head<'_>,
    mutation: &Mutation,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let malformed = EncodeError::Malformed("TTHeader");
    let changed = Changed::new(mutation);
    let infos = frame.get(..head.message).ok_or(malformed)?;
    let mut entries = Vec::new();
    each(infos, head.sections, &mut |entry| entries.push(entry)).ok_or(malformed)?;
    let start = out.len();
    out.extend_from_slice(infos.get(..head.sections).ok_or(malformed)?);
    let kept: Vec<(Key<'_>, &[u8])> = entries
        .iter()
        .filter_map(|entry| match name(entry.key) {
            Some(name) => Some((entry.key, changed.value(name, entry.value)?)),
            None => Some((entry.key, entry.value)),
        })
        .chain(
            changed
                .added(|added| entries.iter().any(|entry| name(entry.key) == Some(added)))
                .map(|(name, value)| (Key::Text(name), value)),
        )
        .collect();
    section(INTEGER, kept.iter().filter(|(key, _)| matches!(key, Key::Integer(_))), out)?;
    section(TEXT, kept.iter().filter(|(key, _)| matches!(key, Key::Text(_))), out)?;
    copy_token(infos, head.sections, out);
    close(out, start.saturating_add(INFOS), start.saturating_add(WORDS))
}

fn section<'a>(
    id: u8,
    entries: impl Iterator<Item = &'a (Key<'a>, &'a [u8])>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let too_large = |_| EncodeError::TooLarge("header of a TTHeader");
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() {
        return Ok(());
    }
    out.push(id);
    out.extend_from_slice(&u16::try_from(entries.len()).map_err(too_large)?.to_be_bytes());
    for (key, value) in entries {
        match key {
            Key::Integer(number) => out.extend_from_slice(&number.to_be_bytes()),
            Key::Text(name) | Key::Persistent(name) => {
                out.extend_from_slice(&u16::try_from(name.len()).map_err(too_large)?.to_be_bytes());
                out.extend_from_slice(name);
            }
        }
        out.extend_from_slice(&u16::try_from(value.len()).map_err(too_large)?.to_be_bytes());
        out.extend_from_slice(value);
    }
    Ok(())
}

/// Copies the token section, which no header changes.
fn copy_token(infos: &[u8], sections: usize, out: &mut Vec<u8>) {
    let mut reader = Reader::at(infos, sections);
    while let Ok(id) = reader.u8() {
        let skipped = match id {
            TOKEN => {
                if let Some(token) = text(&mut reader) {
                    out.push(TOKEN);
                    out.extend_from_slice(&u16::try_from(token.len()).unwrap_or(0).to_be_bytes());
                    out.extend_from_slice(token);
                }
                return;
            }
            TEXT => (0..reader.u16().unwrap_or(0)).all(|_| text(&mut reader).and(text(&mut reader)).is_some()),
            INTEGER => (0..reader.u16().unwrap_or(0)).all(|_| reader.skip(2).is_ok() && text(&mut reader).is_some()),
            _ => true,
        };
        if !skipped {
            return;
        }
    }
}
