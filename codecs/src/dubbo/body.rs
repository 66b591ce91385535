use meltemi::{DecodeError, Limits};

use super::{hessian, jsonb, protobuf};

/// How a body that is looked into is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Hessian2,
    Fastjson2,
    Protobuf,
}

impl Form {
    /// The form that a header's serialization number means, if it is one that is looked into.
    pub(super) const fn of(serialization: u8) -> Option<Self> {
        match serialization {
            HESSIAN2 => Some(Self::Hessian2),
            FASTJSON2 => Some(Self::Fastjson2),
            PROTOBUF => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// As much of a value as metadata needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Text in one piece, or `true` or `false`.
    Text(&'a [u8]),
    Null,
    /// Text in one piece, in another encoding than UTF-8.
    Coded(&'a [u8]),
    /// Text that is not there in one piece, or that hides what it says.
    Scattered,
    /// Passed over.
    Other,
}

impl<'a> Value<'a> {
    /// The text, if it is some.
    pub(super) const fn text(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A cursor over the items of a body: strings, arguments, and in the end the attachments.
pub(super) enum Walk<'a> {
    Hessian2(hessian::Walk<'a>),
    Fastjson2(jsonb::Walk<'a>),
    Protobuf { walk: protobuf::Walk<'a>, map_end: usize },
}

/// What stands in the place of the attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A map, now entered: read it with [`Walk::entry`].
    Map,
    /// Null, passed over.
    Null,
    /// Nothing: the body ends before.
    Missing,
    /// Something whose inside is not known; not passed over.
    Opaque,
}

impl Entry<'_> {
    /// Bytes of name and value as they are written.
    pub(super) const fn size(&self) -> usize {
        self.end.saturating_sub(self.start)
    }
}

/// One attachment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: Value<'a>,
    pub(super) value: Value<'a>,
    /// Its place in the frame.
    pub(super) start: usize,
    /// Its end in the frame.
    pub(super) end: usize,
    /// It counts as a target of references.
    pub(super) defines: bool,
    /// It refers to something by number.
    pub(super) refers: bool,
}

impl<'a> Walk<'a> {
    /// Starts at `position` of a frame.
    pub(super) fn new(form: Form, frame: &'a [u8], position: usize, limits: &Limits) -> Self {
        match form {
            Form::Hessian2 => Self::Hessian2(hessian::Walk::new(frame, position, limits)),
            Form::Fastjson2 => Self::Fastjson2(jsonb::Walk::new(frame, position, limits)),
            Form::Protobuf => Self::Protobuf { walk: protobuf::Walk::new(frame, position), map_end: 0 },
        }
    }

    /// Starts at the attachments of a frame, at `position`, before which so many classes were defined.
    pub(super) fn at_map(form: Form, frame: &'a [u8], position: usize, classes: usize, limits: &Limits) -> Self {
        match Self::new(form, frame, position, limits) {
            Self::Hessian2(walk) => Self::Hessian2(walk.behind_classes(classes)),
            walk => walk,
        }
    }

    /// How many classes were defined before the attachments; `None` if it does not do to know that, because an
    /// attachment is an instance of one of them.
    pub(super) const fn outer_classes(&self) -> Option<usize> {
        match self {
            Self::Hessian2(walk) if walk.uses_outer => None,
            Self::Hessian2(walk) => Some(walk.outer_classes()),
            _ => Some(0),
        }
    }

    /// Bytes of the frame passed over.
    pub(super) const fn position(&self) -> usize {
        match self {
            Self::Hessian2(walk) => walk.position(),
            Self::Fastjson2(walk) => walk.position(),
            Self::Protobuf { walk, .. } => walk.position(),
        }
    }

    /// Reads an item that should be text.
    pub(super) fn text(&mut self) -> Result<Value<'a>, DecodeError> {
        match self {
            Self::Hessian2(walk) => walk.value(),
            Self::Fastjson2(walk) => walk.item(),
            Self::Protobuf { walk, .. } => walk.text(),
        }
    }

    /// Reads an item that should be a small number.
    pub(super) fn number(&mut self) -> Result<i64, DecodeError> {
        match self {
            Self::Hessian2(walk) => walk.int().map(i64::from),
            Self::Fastjson2(walk) => walk.int_item(),
            Self::Protobuf { walk, .. } => walk.int().map(|number| i64::try_from(number).unwrap_or(i64::MAX)),
        }
    }

    /// Passes over an item that may be anything.
    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        match self {
            Self::Hessian2(walk) => walk.value().map(|_| ()),
            Self::Fastjson2(walk) => walk.item().map(|_| ()),
            Self::Protobuf { walk, .. } => walk.item(),
        }
    }

    /// Enters the attachments.
    pub(super) fn enter(&mut self) -> Result<Place, DecodeError> {
        let ended = match self {
            Self::Hessian2(walk) => walk.is_at_end(),
            Self::Fastjson2(walk) => walk.is_at_end(),
            Self::Protobuf { walk, .. } => walk.is_at_end(),
        };
        if ended {
            return Ok(Place::Missing);
        }
        Ok(match self {
            Self::Hessian2(walk) => {
                if walk.enter_map()? {
                    Place::Map
                } else {
                    Place::Null
                }
            }
            Self::Fastjson2(walk) => match walk.enter_object()? {
                Some(true) => Place::Map,
                Some(false) => Place::Null,
                None => Place::Opaque,
            },
            Self::Protobuf { walk, map_end } => {
                *map_end = walk.enter_map()?;
                Place::Map
            }
        })
    }

    /// Reads the next attachment of the map that was entered; `None` behind the last, with the map's end passed over.
    pub(super) fn entry(&mut self) -> Result<Option<Entry<'a>>, DecodeError> {
        let start = self.position();
        let (name, value, defines, refers) = match self {
            Self::Hessian2(walk) => {
                if walk.leave_map()? {
                    return Ok(None);
                }
                (walk.defines, walk.refers) = (false, false);
                let (name, value) = (walk.value()?, walk.value()?);
                (name, value, walk.defines, walk.refers)
            }
            Self::Fastjson2(walk) => {
                if walk.leave_object()? {
                    return Ok(None);
                }
                (walk.defines, walk.refers) = (false, false);
                let (name, value) = (walk.value()?, walk.value()?);
                (name, value, walk.defines, walk.refers)
            }
            Self::Protobuf { walk, map_end } => {
                if start >= *map_end {
                    return Ok(None);
                }
                let (name, value) = walk.entry()?;
                (Value::Text(name), Value::Text(value), false, false)
            }
        };
        Ok(Some(Entry { name, value, start, end: self.position(), defines, refers }))
    }
}

/// Serialization number of hessian2, Dubbo's default up to 3.1.
pub(super) const HESSIAN2: u8 = 2;
/// Serialization number of fastjson, in lines of JSON.
pub(super) const FASTJSON: u8 = 6;
/// Serialization number of gson, in lines of JSON.
pub(super) const GSON: u8 = 16;
/// Serialization number of protobuf's JSON, in lines.
pub(super) const PROTOBUF_JSON: u8 = 21;
/// Serialization number of protobuf.
pub(super) const PROTOBUF: u8 = 22;
/// Serialization number of fastjson2.
pub(super) const FASTJSON2: u8 = 23;
