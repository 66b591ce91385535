//! Changes attachments: only their map is written anew, every other byte of the body is copied.

use core::ops::Range;

use meltemi::{Change, DecodeError, DecodeErrorKind, EncodeError, Limits, Mutation, wire::put_varint};

use super::{
    body::{Form, Place, Walk},
    header::{self, Header},
    jsonb,
    reply::Answer,
    request::{Call, PATH, VERSION, is_ours},
    text::{close_length, put_entry, put_item},
};

/// Appends the whole frame with its attachments changed.
///
/// Attachments that change go to the end of the map. The others are copied, references and all; since hessian2 and
/// JSONB count what may be referred to in the order of the body, an attachment that counts can only go if none behind
/// it refers to anything.
pub(super) fn rewrite(
    frame: &[u8],
    header: &Header,
    mutation: &Mutation,
    limits: &Limits,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let form = Form::of(header.serialization())
        .ok_or(EncodeError::Unsupported("attachments in this serialization are not known"))?;
    let Opened { map, place, walk, said } = open(frame, header, form, limits)?;
    let start = out.len();
    header.put(out);
    let mut copied = header::LENGTH;
    // What a call says twice must not be changed in one place alone.
    for (name, at) in said.into_iter().flatten() {
        match change(mutation, name) {
            Some(Change::Set(_, value)) => {
                out.extend_from_slice(frame.get(copied..at.start).unwrap_or_default());
                put_item(form, value, out)?;
                copied = at.end;
            }
            Some(Change::Remove(_)) => {
                return Err(EncodeError::Unsupported("path and version of a call can be set, not taken out"));
            }
            None => {}
        }
    }
    if header.is_request() && mutation.iter().any(|change| is_ours(change.name())) {
        return Err(EncodeError::Unsupported("parameter types and serialization of a call cannot be changed"));
    }
    out.extend_from_slice(frame.get(copied..map).unwrap_or_default());
    match form {
        Form::Hessian2 => {
            let head = if place == Place::Map { frame.get(map..walk.position()) } else { None };
            out.extend_from_slice(head.unwrap_or(b"H"));
            let rest = put_entries(frame, form, place, walk, mutation, out)?;
            out.push(b'Z');
            out.extend_from_slice(rest);
        }
        Form::Fastjson2 => {
            let item = out.len();
            out.extend_from_slice(&[0; 4]);
            // With the type that it has, if any.
            let head = if place == Place::Map { frame.get(map.saturating_add(4)..walk.position()) } else { None };
            out.extend_from_slice(head.unwrap_or(&[jsonb::OBJECT]));
            let rest = put_entries(frame, form, place, walk, mutation, out)?;
            out.push(jsonb::OBJECT_END);
            close_length(out, item)?;
            out.extend_from_slice(rest);
        }
        Form::Protobuf => {
            let mut entries = Vec::new();
            let rest = put_entries(frame, form, place, walk, mutation, &mut entries)?;
            put_varint(out, entries.len() as u64);
            out.extend_from_slice(&entries);
            out.extend_from_slice(rest);
        }
    }
    if out.len().saturating_sub(start) > limits.max_frame {
        return Err(EncodeError::TooLarge("the frame with its changed attachments"));
    }
    let body_length = start.saturating_add(header::LENGTH).saturating_sub(4);
    let frame = out.get_mut(body_length..).unwrap_or_default();
    close_length(frame, 0)
}

/// The attachments of a frame.
struct Opened<'a> {
    /// Where they start.
    map: usize,
    /// What is there.
    place: Place,
    /// A cursor in them.
    walk: Walk<'a>,
    /// Attachments that the body says as well, in its order, and where it does.
    said: Option<[(&'static [u8], Range<usize>); 2]>,
}

/// Finds the attachments.
fn open<'a>(frame: &'a [u8], header: &Header, form: Form, limits: &Limits) -> Result<Opened<'a>, EncodeError> {
    if header.is_event() {
        return Err(EncodeError::Unsupported("events have no attachments"));
    }
    let opened = if header.is_request() {
        let Call { map, place, walk, path_at, version_at, .. } =
            Call::read(frame, form, limits).map_err(|error| unreadable(&error))?;
        Opened { map, place, walk, said: Some([(PATH, path_at), (VERSION, version_at)]) }
    } else if header.status == header::OK {
        let Answer { map, place, walk } = Answer::read(frame, form, limits)
            .map_err(|error| unreadable(&error))?
            .ok_or(EncodeError::Unsupported("this reply has no attachments"))?;
        Opened { map, place, walk, said: None }
    } else {
        return Err(EncodeError::Unsupported("replies of a failure have no attachments"));
    };
    if opened.place == Place::Opaque {
        return Err(EncodeError::Unsupported("the attachments are no plain map"));
    }
    Ok(opened)
}

/// Appends the attachments that stay as they are and then those that are set; gives what is behind the map.
fn put_entries<'a>(
    frame: &'a [u8],
    form: Form,
    place: Place,
    mut walk: Walk<'a>,
    mutation: &Mutation,
    out: &mut Vec<u8>,
) -> Result<&'a [u8], EncodeError> {
    let mut shifted = false;
    let mut next = || match place {
        Place::Map => walk.entry().map_err(|error| unreadable(&error)),
        _ => Ok(None),
    };
    while let Some(entry) = next()? {
        if entry.name.text().is_some_and(|name| change(mutation, name).is_some()) {
            shifted |= entry.defines;
        } else if shifted && entry.refers {
            return Err(EncodeError::Unsupported("an attachment to change is counted by references behind it"));
        } else {
            out.extend_from_slice(frame.get(entry.start..entry.end).unwrap_or_default());
        }
    }
    for change in mutation.iter() {
        if let Change::Set(name, value) = change {
            put_entry(form, name, value, out)?;
        }
    }
    Ok(frame.get(walk.position()..).unwrap_or_default())
}

/// The change of an attachment. Rules do not see the case of names, and two that differ in it alone would be refused by
/// the next who reads them.
fn change<'m>(mutation: &'m Mutation, name: &[u8]) -> Option<Change<'m>> {
    mutation.iter().find(|change| change.name().eq_ignore_ascii_case(name))
}

/// Why a frame cannot be changed whose attachments cannot be read: only nonsense is the frame's fault.
const fn unreadable(error: &DecodeError) -> EncodeError {
    match error.kind {
        DecodeErrorKind::Malformed => EncodeError::Malformed(error.reason),
        DecodeErrorKind::TooLarge | DecodeErrorKind::TooDeep => EncodeError::TooLarge(error.reason),
        _ => EncodeError::Unsupported(error.reason),
    }
}
