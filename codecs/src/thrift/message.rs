//! The head of a message: type, name, sequence number.

use meltemi::{
    DecodeError, FailureKind, FrameKind, Outcome,
    wire::{Reader, Short},
};

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Binary, strict or old.
    Binary,
    Compact,
}

/// First bytes of a strict binary message.
pub(super) const BINARY_MAGIC: [u8; 2] = [0x80, 0x01];
/// First byte of a compact message.
pub(super) const COMPACT_MAGIC: u8 = 0x82;
/// Version of the compact protocol, in the low five bits of the second byte.
const COMPACT_VERSION: u8 = 1;

pub(super) mod kind {
    pub(in crate::thrift) const CALL: u8 = 1;
    pub(in crate::thrift) const REPLY: u8 = 2;
    pub(in crate::thrift) const EXCEPTION: u8 = 3;
    pub(in crate::thrift) const ONE_WAY: u8 = 4;
}

/// How the head of a message is written, as it matters for writing another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Strict,
    Old,
    Compact,
}

impl Form {
    const fn of(first: u8) -> Self {
        match first {
            COMPACT_MAGIC => Self::Compact,
            first if first & 0x80 != 0 => Self::Strict,
            _ => Self::Old,
        }
    }

    pub(super) const fn protocol(self) -> Protocol {
        match self {
            Self::Strict | Self::Old => Protocol::Binary,
            Self::Compact => Protocol::Compact,
        }
    }
}

/// Head of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) form: Form,
    pub(super) kind: u8,
    pub(super) name: &'a [u8],
    pub(super) sequence: u32,
    /// Where the sequence number stands and how long it is, from the start of the message.
    pub(super) sequence_at: (usize, usize),
    /// Length of the head: where the struct starts.
    pub(super) length: usize,
}

/// Why there is no head yet, or never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoMessage {
    Short(usize),
    Bad(DecodeError),
}

impl From<Short> for NoMessage {
    fn from(short: Short) -> Self {
        Self::Short(short.needed)
    }
}

/// The message is in another protocol than the configuration or the frame says.
pub(super) const WRONG_PROTOCOL: &str = "not the configured protocol";
/// Neither call, reply, exception nor one-way call.
pub(super) const BAD_TYPE: &str = "message type";

fn bad<T>(reason: &'static str, offset: usize) -> Result<T, NoMessage> {
    Err(NoMessage::Bad(DecodeError::malformed(reason, offset)))
}

impl<'a> Message<'a> {
    /// Reads the head at the start of `bytes`; names are at most `max_name` bytes.
    pub(super) fn read(bytes: &'a [u8], only: Option<Protocol>, max_name: usize) -> Result<Self, NoMessage> {
        let mut reader = Reader::new(bytes);
        let form = Form::of(reader.peek()?);
        if only.is_some_and(|only| only != form.protocol()) {
            return bad(WRONG_PROTOCOL, 0);
        }
        let message = match form {
            Form::Compact => Self::read_compact(&mut reader, max_name)?,
            Form::Strict => {
                let head = reader.u32()?;
                if head >> 16 != u32::from(u16::from_be_bytes(BINARY_MAGIC)) {
                    return bad("version of a binary message", 0);
                }
                let name = name(&mut reader, max_name)?;
                let at = reader.position();
                let sequence = reader.u32()?;
                let length = reader.position();
                Self { form, kind: head as u8, name, sequence, sequence_at: (at, 4), length }
            }
            Form::Old => {
                let name = name(&mut reader, max_name)?;
                let kind = reader.u8()?;
                let at = reader.position();
                let sequence = reader.u32()?;
                let length = reader.position();
                Self { form, kind, name, sequence, sequence_at: (at, 4), length }
            }
        };
        match message.kind {
            kind::CALL..=kind::ONE_WAY => Ok(message),
            _ => bad(BAD_TYPE, 0),
        }
    }

    fn read_compact(reader: &mut Reader<'a>, max_name: usize) -> Result<Self, NoMessage> {
        reader.skip(1)?;
        let head = reader.u8()?;
        if head & 0x1f != COMPACT_VERSION {
            return bad("version of a compact message", 1);
        }
        let at = reader.position();
        let sequence = u32_varint(reader)?;
        let sequence_at = (at, reader.position().saturating_sub(at));
        let length = u32_varint(reader)? as usize;
        if length > max_name {
            return Err(NoMessage::Bad(DecodeError::too_large("method name", reader.position())));
        }
        let name = reader.take(length)?;
        Ok(Self { form: Form::Compact, kind: head >> 5, name, sequence, sequence_at, length: reader.position() })
    }

    /// What can be told of a message that is not taken, to answer it; and how many more bytes would tell more. The
    /// sequence number is known if it has a length. A type that does not exist counts as a call.
    pub(super) fn sketch(bytes: &'a [u8], max_name: usize) -> (Self, Option<usize>) {
        let mut message =
            Self { form: Form::Strict, kind: kind::CALL, name: b"", sequence: 0, sequence_at: (0, 0), length: 0 };
        let missing = message.fill(&mut Reader::new(bytes), max_name).err().map(|short| short.needed);
        if !matches!(message.kind, kind::CALL..=kind::ONE_WAY) {
            message.kind = kind::CALL;
        }
        (message, missing)
    }

    fn fill(&mut self, reader: &mut Reader<'a>, max_name: usize) -> Result<(), Short> {
        self.form = Form::of(reader.peek()?);
        match self.form {
            Form::Compact => {
                reader.skip(1)?;
                self.kind = reader.u8()? >> 5;
                let at = reader.position();
                let Some(sequence) = reader.varint()?.and_then(|value| u32::try_from(value).ok()) else {
                    return Ok(());
                };
                self.sequence = sequence;
                self.sequence_at = (at, reader.position().saturating_sub(at));
                let length = reader.varint()?.and_then(|length| usize::try_from(length).ok());
                self.name = any_name(reader, length.unwrap_or(0), max_name)?;
            }
            Form::Strict | Form::Old => {
                if self.form == Form::Strict {
                    self.kind = reader.u32()? as u8;
                }
                let length = reader.u32()? as usize;
                self.name = any_name(reader, length, max_name)?;
                if self.form == Form::Old {
                    self.kind = reader.u8()?;
                }
                let at = reader.position();
                self.sequence = reader.u32()?;
                self.sequence_at = (at, 4);
            }
        }
        Ok(())
    }

    /// Service and method: a multiplexed call names both, `Service:method`.
    pub(super) fn service_and_method(&self) -> (&'a [u8], &'a [u8]) {
        match self.name.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let (service, method) = self.name.split_at(colon);
                (service, method.get(1..).unwrap_or_default())
            }
            None => (b"", self.name),
        }
    }

    /// What kind of frame it is; `body` is the struct behind the head, or its beginning.
    pub(super) fn frame_kind(&self, body: &[u8]) -> FrameKind {
        match self.kind {
            kind::CALL => FrameKind::Request,
            kind::ONE_WAY => FrameKind::OneWay,
            kind::REPLY if first_field(self.form.protocol(), body).is_some_and(|id| id != 0) => {
                FrameKind::Response(Outcome::Exception)
            }
            kind::REPLY => FrameKind::Response(Outcome::Ok),
            _ => FrameKind::Response(Outcome::Failure(failure(self.form.protocol(), body))),
        }
    }
}

/// Passes over a name; one that is too long is none.
fn any_name<'a>(reader: &mut Reader<'a>, length: usize, max_name: usize) -> Result<&'a [u8], Short> {
    let name = reader.take(length)?;
    Ok(if length > max_name { b"" } else { name })
}

fn name<'a>(reader: &mut Reader<'a>, max_name: usize) -> Result<&'a [u8], NoMessage> {
    let length = reader.u32()? as usize;
    if length > max_name {
        return Err(NoMessage::Bad(DecodeError::too_large("method name", reader.position())));
    }
    Ok(reader.take(length)?)
}

fn u32_varint(reader: &mut Reader<'_>) -> Result<u32, NoMessage> {
    let value = reader.varint()?.and_then(|value| u32::try_from(value).ok());
    value.ok_or(NoMessage::Bad(DecodeError::malformed("varint", reader.position())))
}

/// Id of the first field of a struct: 0 is a result, anything else a declared exception; `None` for an empty struct.
fn first_field(protocol: Protocol, body: &[u8]) -> Option<u16> {
    let mut reader = Reader::new(body);
    let first = reader.u8().ok().filter(|first| *first != 0)?;
    match protocol {
        Protocol::Binary => reader.u16().ok(),
        Protocol::Compact if first >> 4 != 0 => Some(u16::from(first >> 4)),
        // Zigzag: only 0 is written as 0.
        Protocol::Compact => reader.varint().ok()?.map(|id| u16::from(id != 0)),
    }
}

/// Types of TApplicationException (`TApplicationException.java` of Apache Thrift; 11 and 12 are Meta's).
pub(super) mod application {
    pub(in crate::thrift) const UNKNOWN_METHOD: u8 = 1;
    pub(in crate::thrift) const INVALID_MESSAGE_TYPE: u8 = 2;
    pub(in crate::thrift) const INTERNAL_ERROR: u8 = 6;
    pub(in crate::thrift) const PROTOCOL_ERROR: u8 = 7;
    pub(in crate::thrift) const INVALID_TRANSFORM: u8 = 8;
    pub(in crate::thrift) const INVALID_PROTOCOL: u8 = 9;
    pub(in crate::thrift) const UNSUPPORTED_CLIENT: u8 = 10;
    pub(in crate::thrift) const LOAD_SHEDDING: u8 = 11;
    pub(in crate::thrift) const TIMEOUT: u8 = 12;
}

/// What a TApplicationException says: field 1 is its message, field 2 its type.
fn failure(protocol: Protocol, body: &[u8]) -> FailureKind {
    match exception_type(protocol, body) {
        Some(application::UNKNOWN_METHOD) => FailureKind::UnknownMethod,
        Some(application::PROTOCOL_ERROR..=application::UNSUPPORTED_CLIENT) => FailureKind::Malformed,
        Some(application::LOAD_SHEDDING) => FailureKind::Overloaded,
        Some(application::TIMEOUT) => FailureKind::Timeout,
        _ => FailureKind::Internal,
    }
}

fn exception_type(protocol: Protocol, body: &[u8]) -> Option<u8> {
    let mut reader = Reader::new(body);
    match protocol {
        Protocol::Binary => loop {
            match (reader.u8().ok()?, reader.u16().ok()?) {
                (0x0b, _) => {
                    let length = reader.u32().ok()? as usize;
                    reader.skip(length).ok()?;
                }
                (0x08, 2) => return u8::try_from(reader.u32().ok()?).ok(),
                _ => return None,
            }
        },
        Protocol::Compact => loop {
            match reader.u8().ok()? {
                0x18 => {
                    let length = usize::try_from(reader.varint().ok()??).ok()?;
                    reader.skip(length).ok()?;
                }
                // An i32, one or two field ids further on; zigzag doubles it.
                0x15 | 0x25 => return u8::try_from(reader.varint().ok()?? / 2).ok(),
                _ => return None,
            }
        },
    }
}
