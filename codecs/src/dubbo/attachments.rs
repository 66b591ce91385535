//! Changes attachments: only their map is written anew, every other byte of the body is copied.

use meltemi::{Change, DecodeError, EncodeError, Limits, Mutation, wire::put_varint};

use super::{
    body::{Form, Place, Walk},
    header::{self, Header},
    jsonb,
    reply::Answer,
    request::Call,
    text::{close_length, put_entry},
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
    let (map, place, walk) = open(frame, header, form, limits)?;
    let start = out.len();
    header.put(out);
    out.extend_from_slice(frame.get(header::LENGTH..map).unwrap_or_default());
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
            out.extend_from_slice(&[0, 0, 0, 0, jsonb::OBJECT]);
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

/// Finds the attachments: where they start, what is there, and a cursor in them.
fn open<'a>(
    frame: &'a [u8],
    header: &Header,
    form: Form,
    limits: &Limits,
) -> Result<(usize, Place, Walk<'a>), EncodeError> {
    if header.is_event() {
        return Err(EncodeError::Unsupported("events have no attachments"));
    }
    let (map, place, walk) = if header.is_request() {
        let call = Call::read(frame, form, limits).map_err(|error| malformed(&error))?;
        (call.map, call.place, call.walk)
    } else if header.status == header::OK {
        let answer = Answer::read(frame, form, limits)
            .map_err(|error| malformed(&error))?
            .ok_or(EncodeError::Unsupported("this reply has no attachments"))?;
        (answer.map, answer.place, answer.walk)
    } else {
        return Err(EncodeError::Unsupported("replies of a failure have no attachments"));
    };
    if place == Place::Opaque {
        return Err(EncodeError::Unsupported("the attachments are no plain map"));
    }
    Ok((map, place, walk))
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
        Place::Map => walk.entry().map_err(|error| malformed(&error)),
        _ => Ok(None),
    };
    while let Some(entry) = next()? {
        if entry.name.text().is_some_and(|name| mutation.get(name).is_some()) {
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

const fn malformed(error: &DecodeError) -> EncodeError {
    EncodeError::Malformed(error.reason)
}
