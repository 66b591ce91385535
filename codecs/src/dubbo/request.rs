use meltemi::{DecodeError, Limits, Marks, Metadata};

use super::{
    body::{Form, Place, Value, Walk},
    header,
};

/// A call's body up to its attachments.
pub(super) struct Call<'a> {
    service: &'a [u8],
    method: &'a [u8],
    version: &'a [u8],
    /// Descriptor of the parameters; empty for generic calls, where it says nothing.
    types: &'a [u8],
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
        let service = text(&mut walk, "the path is no plain text")?;
        let version = text(&mut walk, "the service version is no plain text")?;
        let mut method = text(&mut walk, "the method is no plain text")?;
        let types = text(&mut walk, "the parameter types are no plain text")?;
        let arguments =
            parameters(types).ok_or(DecodeError::malformed("parameter types are no descriptor", walk.position()))?;
        let mut left = arguments;
        let generic = matches!(method, b"$invoke" | b"$invokeAsync") && types.starts_with(STRING);
        if generic {
            if let Value::Text(called) = walk.text()? {
                method = called;
            }
            left = left.saturating_sub(1);
        }
        for _ in 0..left {
            walk.skip()?;
        }
        let map = walk.position();
        let place = walk.enter()?;
        Ok(Self { service, method, version, types: if generic { b"" } else { types }, map, place, walk })
    }

    /// Goes through the attachments and gives the metadata.
    pub(super) fn metadata(mut self, frame: &'a [u8], limits: &Limits) -> Result<Metadata<'a>, DecodeError> {
        let mut seen = Seen { bytes: 0, headers: 0 };
        let (mut has_version, mut refers, mut map) = (false, false, 0);
        if self.place == Place::Map {
            map = self.map;
            loop {
                match self.walk.entry() {
                    Ok(Some(entry)) => {
                        refers |= entry.refers;
                        if let (Value::Text(name), Value::Text(value)) = (entry.name, entry.value) {
                            has_version |= name == VERSION;
                            seen.count(name, value, limits, entry.start)?;
                        }
                    }
                    Ok(None) => break,
                    // Of such attachments those before are shown.
                    Err(error) if error.kind == meltemi::DecodeErrorKind::Unsupported => break,
                    Err(error) => return Err(error),
                }
            }
        }
        let version = if has_version { b"" } else { self.version };
        seen.count(VERSION, version, limits, header::LENGTH)?;
        seen.count(TYPES, self.types, limits, header::LENGTH)?;
        let (version_at, version_length) = place_in(frame, version);
        let (types_at, types_length) = place_in(frame, self.types);
        let marks = [mark(map), u32::from(refers), version_at, version_length, types_at, types_length];
        Ok(Metadata::new(self.service, self.method).with_headers(frame, marks, walk_headers))
    }
}

struct Seen {
    bytes: usize,
    headers: usize,
}

impl Seen {
    fn count(&mut self, name: &[u8], value: &[u8], limits: &Limits, at: usize) -> Result<(), DecodeError> {
        self.headers = self.headers.saturating_add(1);
        self.bytes = self.bytes.saturating_add(name.len()).saturating_add(value.len());
        if self.headers > limits.max_headers {
            return Err(DecodeError::too_large("more attachments than the limit", at));
        }
        if self.bytes > limits.max_header_bytes {
            return Err(DecodeError::too_large("attachments larger than the limit", at));
        }
        Ok(())
    }
}

fn text<'a>(walk: &mut Walk<'a>, reason: &'static str) -> Result<&'a [u8], DecodeError> {
    match walk.text()? {
        Value::Text(text) => Ok(text),
        Value::Null => Ok(b""),
        Value::Other => Err(DecodeError::unsupported(reason, walk.position())),
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

fn walk_headers<'b>(frame: &'b [u8], marks: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    let &[map, refers, version_at, version_length, types_at, types_length] = marks;
    for (name, at, length) in [(VERSION, version_at, version_length), (TYPES, types_at, types_length)] {
        if length > 0 {
            visit(name, at_place(frame, at, length));
        }
    }
    let Some(form) = frame.get(2).and_then(|flags| Form::of(flags & 0x1f)) else { return };
    if map == 0 {
        return;
    }
    // The same bytes were walked within the limits before.
    let limits = Limits { max_depth: usize::MAX, max_elements: usize::MAX, ..Limits::default() };
    let walk = if refers == 0 {
        let mut walk = Walk::new(form, frame, map as usize, &limits);
        walk.enter().map(|place| (place, walk))
    } else {
        // Some attachment is an instance of a class that an argument may have defined.
        Call::read(frame, form, &limits).map(|call| (call.place, call.walk))
    };
    if let Ok((Place::Map, walk)) = walk {
        visit_entries(walk, visit);
    }
}

/// Visits the attachments that are text, up to the first thing that is not understood.
pub(super) fn visit_entries<'b>(mut walk: Walk<'b>, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    while let Ok(Some(entry)) = walk.entry() {
        if let (Value::Text(name), Value::Text(value)) = (entry.name, entry.value) {
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

/// Header of the service's version: the name of the attachment that says the same.
const VERSION: &[u8] = b"version";
/// Header of the parameters' descriptor.
const TYPES: &[u8] = b"parameter-types";
/// Descriptor of the first parameter of a generic call.
const STRING: &[u8] = b"Ljava/lang/String;";
