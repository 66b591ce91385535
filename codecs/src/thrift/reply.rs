//! What a request leaves behind for its reply, and the error replies made from it.

use meltemi::{DecodeError, EncodeError, Failure, FailureKind, Ticket, wire::put_varint};

use super::{
    detect::{HEADER_MAGIC, TTHEADER_MAGIC, Transport},
    infos::{close, close_frame},
    message::{BAD_TYPE, BINARY_MAGIC, COMPACT_MAGIC, Form, Message, WRONG_PROTOCOL, application, kind},
    theader,
};

/// Bytes of [`Context`] before the name.
const FIXED: usize = 12;

/// Flag of [`Context`]: the TTHeader message had a frame length of its own.
const INNER_FRAME: u8 = 1;

/// A request's transport, form and numbers, in the bytes of its ticket:
/// `transport | form | flags | exception | inner sequence:u32 | outer sequence:u32 | name`.
pub(super) struct Context<'a> {
    transport: Transport,
    form: Form,
    inner_frame: bool,
    /// Type of the TApplicationException for what is wrong with it; 0: as the failure says.
    exception: u8,
    sequence: u32,
    outer: u32,
    name: &'a [u8],
}

/// What surrounds the message of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    pub(super) transport: Transport,
    /// The sequence number of the frame.
    pub(super) outer: u32,
    /// The message has a frame length of its own.
    pub(super) inner_frame: bool,
    /// As in [`Context`].
    pub(super) exception: u8,
}

impl Around {
    pub(super) const fn plain(transport: Transport) -> Self {
        Self { transport, outer: 0, inner_frame: false, exception: 0 }
    }
}

/// The type of the TApplicationException that says why a frame was not taken; 0 if there is none of its own.
pub(super) fn exception_of(error: &DecodeError) -> u8 {
    match error.reason {
        BAD_TYPE => application::INVALID_MESSAGE_TYPE,
        WRONG_PROTOCOL | theader::UNKNOWN_PROTOCOL => application::INVALID_PROTOCOL,
        theader::UNKNOWN_TRANSFORM => application::INVALID_TRANSFORM,
        _ => 0,
    }
}

/// Writes the context of a request into `out`.
pub(super) fn put_context(around: &Around, message: &Message<'_>, out: &mut Vec<u8>) {
    let &Around { transport, outer, inner_frame, exception } = around;
    out.clear();
    let transport = match transport {
        Transport::Framed => 0,
        Transport::Unframed => 1,
        Transport::Header => 2,
        Transport::TtHeader => 3,
    };
    let form = match message.form {
        Form::Strict => 0,
        Form::Old => 1,
        Form::Compact => 2,
    };
    out.extend_from_slice(&[transport, form, if inner_frame { INNER_FRAME } else { 0 }, exception]);
    out.extend_from_slice(&message.sequence.to_be_bytes());
    out.extend_from_slice(&outer.to_be_bytes());
    // A reply to a multiplexed call names the method alone.
    out.extend_from_slice(message.service_and_method().1);
}

impl<'a> Context<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, name) = bytes.split_at_checked(FIXED)?;
        let [transport, form, flags, exception, s3, s2, s1, s0, o3, o2, o1, o0] = *fixed else { return None };
        Some(Self {
            transport: match transport {
                0 => Transport::Framed,
                1 => Transport::Unframed,
                2 => Transport::Header,
                _ => Transport::TtHeader,
            },
            form: match form {
                0 => Form::Strict,
                1 => Form::Old,
                _ => Form::Compact,
            },
            inner_frame: flags & INNER_FRAME != 0,
            exception,
            sequence: u32::from_be_bytes([s3, s2, s1, s0]),
            outer: u32::from_be_bytes([o3, o2, o1, o0]),
            name,
        })
    }
}

/// Type of the TApplicationException for a failure.
const fn exception_type(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::NoRoute | FailureKind::UnknownService | FailureKind::UnknownMethod => application::UNKNOWN_METHOD,
        FailureKind::Malformed | FailureKind::TooLarge => application::PROTOCOL_ERROR,
        _ => application::INTERNAL_ERROR,
    }
}

/// Writes a TApplicationException that answers `request`.
pub(super) fn error(request: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let context = Context::read(request.context()).ok_or(EncodeError::Malformed("ticket"))?;
    let start = out.len();
    match context.transport {
        Transport::Framed => out.extend_from_slice(&[0; 4]),
        Transport::Unframed => {}
        Transport::Header | Transport::TtHeader => {
            let magic = if context.transport == Transport::Header { HEADER_MAGIC } else { TTHEADER_MAGIC };
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&magic);
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&context.outer.to_be_bytes());
            out.extend_from_slice(&[0; 2]);
            let infos = out.len();
            out.extend_from_slice(&[if context.form == Form::Compact { 2 } else { 0 }, 0]);
            if context.transport == Transport::TtHeader {
                // Integer key 22, `msg-type`: "3" is an exception.
                out.extend_from_slice(&[0x10, 0, 1, 0, 22, 0, 1, b'3']);
            }
            close(out, infos, infos.saturating_sub(2))?;
        }
    }
    let inner = out.len();
    if context.inner_frame {
        out.extend_from_slice(&[0; 4]);
    }
    message(&context, failure, out);
    if context.inner_frame {
        close_frame(out, inner)?;
    }
    if context.transport != Transport::Unframed {
        close_frame(out, start)?;
    }
    Ok(())
}

fn message(context: &Context<'_>, failure: &Failure<'_>, out: &mut Vec<u8>) {
    let length = |text: &[u8]| u32::try_from(text.len()).unwrap_or(0).to_be_bytes();
    let text = failure.message.as_bytes();
    let exception = match context.exception {
        told @ 1.. if failure.kind == FailureKind::Malformed => told,
        _ => exception_type(failure.kind),
    };
    match context.form {
        Form::Strict | Form::Old => {
            if context.form == Form::Strict {
                out.extend_from_slice(&BINARY_MAGIC);
                out.extend_from_slice(&[0, kind::EXCEPTION]);
            }
            out.extend_from_slice(&length(context.name));
            out.extend_from_slice(context.name);
            if context.form == Form::Old {
                out.push(kind::EXCEPTION);
            }
            out.extend_from_slice(&context.sequence.to_be_bytes());
            // Field 1, a string; field 2, an i32; the end.
            out.extend_from_slice(&[0x0b, 0, 1]);
            out.extend_from_slice(&length(text));
            out.extend_from_slice(text);
            out.extend_from_slice(&[0x08, 0, 2, 0, 0, 0, exception, 0]);
        }
        Form::Compact => {
            out.extend_from_slice(&[COMPACT_MAGIC, kind::EXCEPTION << 5 | 1]);
            put_varint(out, u64::from(context.sequence));
            put_varint(out, context.name.len() as u64);
            out.extend_from_slice(context.name);
            out.push(0x18);
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text);
            // Zigzag doubles it.
            out.extend_from_slice(&[0x15, exception << 1, 0]);
        }
    }
}
