use core::ops::Range;

use meltemi::{DecodeError, Limits, Marks, Metadata};
use smallvec::SmallVec;

use super::{
    body::{Entry, Form, Place, Value, Walk},
    header::{self, serialization_name},
};

/// A call's body up to its attachments.
pub(super) struct Call<'a> {
    service: &'a [u8],
    method: &'a [u8],
    version: &'a [u8],
    /// Descriptor of the parameters; empty for generic calls, where it says nothing.
    types: &'a [u8],
    /// Where the path stands in the frame.
    pub(super) path_at: Range<usize>,
    /// Where the version stands in the frame.
    pub(super) version_at: Range<usize>,
    /// Where the attachments start.
    pub(super) map: usize,
    /// What is there.
    pub(super) place: Place,
    /// In the map if there is one.
    pub(super) walk: Walk<'a>,
}

impl<'a> Call<'a> {
    /// Reads the body of a frame: protocol version, path, service version, method, types, arguments.
    pub(super) fn read(frame: &'a [u8], form: Form, limits: &Limits) -> Result<Self, DecodeError> {
        let mut walk = Walk::new(form, frame, header::LENGTH, limits);
        walk.text()?;
        let start = walk.position();
        let service = text(&mut walk, "the path is no plain text")?;
        let path_at = start..walk.position();
        let version = text(&mut walk, "the service version is no plain text")?;
        let version_at = path_at.end..walk.position();
        let mut method = text(&mut walk, "the method is no plain text")?;
        let types = text(&mut walk, "the parameter types are no plain text")?;
        let arguments =
            parameters(types).ok_or(DecodeError::malformed("parameter types are no descriptor", walk.position()))?;
        let mut left = arguments;
        // As `GenericFilter` of Java tells them: by the name and three arguments, whatever their types.
        let generic = matches!(method, b"$invoke" | b"$invokeAsync") && arguments == 3;
        if generic {
            method = text(&mut walk, "the method of a generic call is no plain text")?;
            method = trimmed(method);
            left = left.saturating_sub(1);
        }
        for _ in 0..left {
            walk.skip()?;
        }
        let map = walk.position();
        let place = walk.enter()?;
        let types = if generic { b"" } else { types };
        Ok(Self { service, method, version, types, path_at, version_at, map, place, walk })
    }

    /// Goes through the attachments and gives the metadata.
    ///
    /// What the server would take from the attachments must be what is shown: a call is refused if an attachment says
    /// another path than the body, comes twice, or cannot be lent though it is text.
    pub(super) fn metadata(mut self, frame: &'a [u8], limits: &Limits) -> Result<Metadata<'a>, DecodeError> {
        let mut seen = Seen { bytes: 0, names: SmallVec::new() };
        let (mut has_version, mut map) = (false, 0);
        match self.place {
            Place::Map => {
                map = self.map;
                while let Some(entry) = self.walk.entry()? {
                    let name = seen.count(&entry, limits)?;
                    has_version |= name == VERSION;
                    self.check(name, &entry)?;
                }
            }
            Place::Opaque => return Err(DecodeError::unsupported("the attachments are no plain map", self.map)),
            Place::Null | Place::Missing => {}
        }
        let version = if has_version { b"" } else { self.version };
        seen.add(VERSION.len().saturating_add(version.len()), limits, header::LENGTH)?;
        seen.add(TYPES.len().saturating_add(self.types.len()), limits, header::LENGTH)?;
        let classes = match self.walk.outer_classes() {
            Some(classes) => mark(classes),
            // To find the headers all before them must be walked, each time: not more than headers may have anyway.
            None if self.map <= limits.max_header_bytes => WALK_ALL,
            None => return Err(DecodeError::unsupported("an attachment is an instance of an argument's class", map)),
        };
        let (version_at, version_length) = place_in(frame, version);
        let (types_at, types_length) = place_in(frame, self.types);
        let marks = [mark(map), classes, version_at, version_length, types_at, types_length];
        Ok(Metadata::new(self.service, self.method).with_headers(frame, marks, walk_headers))
    }

    /// Whether an attachment says to the server what its header says to us.
    fn check(&self, name: &[u8], entry: &Entry<'_>) -> Result<(), DecodeError> {
        match (name, entry.value) {
            (_, Value::Scattered) => Err(DecodeError::unsupported("an attachment is no plain text", entry.start)),
            (PATH, Value::Text(path)) if path == self.service => Ok(()),
            (PATH, _) => Err(DecodeError::malformed("the attachment `path` is not the path of the body", entry.start)),
            (VERSION | GROUP, Value::Other) => {
                Err(DecodeError::unsupported("version or group of the service is no text", entry.start))
            }
            _ => Ok(()),
        }
    }
}

/// The attachments that were counted.
struct Seen<'a> {
    bytes: usize,
    names: SmallVec<[&'a [u8]; 64]>,
}

impl<'a> Seen<'a> {
    /// Counts an attachment, whatever its value, and gives its name.
    fn count(&mut self, entry: &Entry<'a>, limits: &Limits) -> Result<&'a [u8], DecodeError> {
        let Value::Text(name) = entry.name else {
            return Err(DecodeError::unsupported("name of an attachment is no plain text", entry.start));
        };
        // Of two, Java takes the last and a rule the first. Rules do not see the case of names.
        if self.names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(DecodeError::malformed("an attachment comes twice", entry.start));
        }
        if self.names.len() >= limits.max_headers {
            return Err(DecodeError::too_large("more attachments than the limit", entry.start));
        }
        self.names.push(name);
        self.add(entry.size(), limits, entry.start)?;
        Ok(name)
    }

    fn add(&mut self, bytes: usize, limits: &Limits, at: usize) -> Result<(), DecodeError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > limits.max_header_bytes {
            return Err(DecodeError::too_large("attachments larger than the limit", at));
        }
        Ok(())
    }
}

/// As `String.trim` of Java.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let Some((0..=b' ', rest)) = text.split_first() {
        text = rest;
    }
    while let Some((0..=b' ', rest)) = text.split_last() {
        text = rest;
    }
    text
}

fn text<'a>(walk: &mut Walk<'a>, reason: &'static str) -> Result<&'a [u8], DecodeError> {
    match walk.text()? {
        Value::Text(text) => Ok(text),
        Value::Null => Ok(b""),
        _ => Err(DecodeError::unsupported(reason, walk.position())),
    }
}

/// Number of parameters in a descriptor as the JVM writes them.
fn parameters(mut types: &[u8]) -> Option<usize> {
    let mut count = 0usize;
    while let Some((&first, rest)) = types.split_first() {
        types = match first {
            b'[' if !rest.is_empty() => {
                types = rest;
                continue;
            }
            b'L' => {
                let end = rest.iter().position(|&byte| byte == b';')?;
                rest.get(end.saturating_add(1)..)?
            }
            b'B' | b'C' | b'D' | b'F' | b'I' | b'J' | b'S' | b'V' | b'Z' => rest,
            _ => return None,
        };
        count = count.saturating_add(1);
    }
    Some(count)
}

/// Metadata of a call whose body is not looked into.
pub(super) fn unseen(frame: &[u8]) -> Metadata<'_> {
    Metadata::EMPTY.with_headers(frame, [0; 6], walk_headers)
}

fn walk_headers<'b>(frame: &'b [u8], marks: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    let &[map, classes, version_at, version_length, types_at, types_length] = marks;
    let Some(&flags) = frame.get(2) else { return };
    visit(SERIALIZATION, serialization_name(flags).as_bytes());
    for (name, at, length) in [(VERSION, version_at, version_length), (TYPES, types_at, types_length)] {
        if length > 0 {
            visit(name, at_place(frame, at, length));
        }
    }
    let Some(form) = Form::of(flags & 0x1f).filter(|_| map != 0) else { return };
    // The same bytes were walked within the limits before.
    let limits = Limits { max_depth: usize::MAX, max_elements: usize::MAX, ..Limits::default() };
    let walk = if classes == WALK_ALL {
        Call::read(frame, form, &limits).map(|call| (call.place, call.walk))
    } else {
        let mut walk = Walk::at_map(form, frame, map as usize, classes as usize, &limits);
        walk.enter().map(|place| (place, walk))
    };
    if let Ok((Place::Map, walk)) = walk {
        visit_entries(walk, &mut |name, value| {
            if !is_ours(name) {
                visit(name, value);
            }
        });
    }
}

/// Headers of calls that no attachment says. An attachment of such a name is passed on, but not shown: it would be
/// taken for ours.
pub(super) fn is_ours(name: &[u8]) -> bool {
    [SERIALIZATION, TYPES].iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// Visits the attachments that are text, up to the first thing that is not understood.
pub(super) fn visit_entries<'b>(mut walk: Walk<'b>, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    while let Ok(Some(entry)) = walk.entry() {
        if let (Value::Text(name), Value::Text(value) | Value::Coded(value)) = (entry.name, entry.value) {
            visit(name, value);
        }
    }
}

fn mark(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(0)
}

/// Where `part`, a slice of `frame`, lies in it.
fn place_in(frame: &[u8], part: &[u8]) -> (u32, u32) {
    let at = (part.as_ptr().addr()).checked_sub(frame.as_ptr().addr());
    match at {
        Some(at) if !part.is_empty() && at < frame.len() => (mark(at), mark(part.len())),
        _ => (0, 0),
    }
}

fn at_place(frame: &[u8], at: u32, length: u32) -> &[u8] {
    let at = at as usize;
    frame.get(at..at.saturating_add(length as usize)).unwrap_or_default()
}

/// Instead of a number of classes: the whole body must be walked to find the attachments.
const WALK_ALL: u32 = u32::MAX;

/// The attachment that says the path again.
pub(super) const PATH: &[u8] = b"path";
/// Header of the service's version: the name of the attachment that says the same.
pub(super) const VERSION: &[u8] = b"version";
const GROUP: &[u8] = b"group";
/// Header of the parameters' descriptor.
const TYPES: &[u8] = b"parameter-types";
/// Header of the body's encoding.
const SERIALIZATION: &[u8] = b"serialization";
