use flate2::{Decompress, FlushDecompress};
use meltemi::{
    Connection, DecodeError, Decoded, EncodeError, Failure, Frame, FrameKind, InFlight, Limits, Marks, Metadata,
    Mutation, Ordering, Rejected, Ticket, wire::put_varint,
};

use super::{
    Thrift,
    detect::{Detected, HEADER_MAGIC, TTHEADER_MAGIC, Transport, transport},
    infos::close_frame,
    message::{Form, Message, NoMessage},
    reply,
    skip::Walk,
    theader, ttheader,
};

/// Bytes of a compressed message that are looked at: enough for its head and its first field.
const INFLATED: usize = 4096;

/// Protocol state of one connection.
pub(super) struct ThriftConnection {
    codec: Thrift,
    limits: Limits,
    transport: Option<Transport>,
    /// The walk over an unframed message that is not whole yet.
    walk: Walk,
    context: Vec<u8>,
    inflate: Option<Decompress>,
    inflated: Vec<u8>,
}

impl ThriftConnection {
    pub(super) fn new(codec: Thrift, limits: Limits) -> Self {
        Self {
            transport: codec.transport,
            codec,
            limits,
            walk: Walk::new(),
            context: Vec::new(),
            inflate: None,
            inflated: Vec::new(),
        }
    }

    fn transport(&mut self, buf: &[u8]) -> Result<Transport, NoMessage> {
        if let Some(transport) = self.transport {
            return Ok(transport);
        }
        match transport(buf) {
            Detected::Transport(found) => {
                self.transport = Some(found);
                Ok(found)
            }
            Detected::NeedMore(needed) => Err(NoMessage::Short(needed)),
            Detected::Nothing => Err(NoMessage::Bad(DecodeError::malformed("not Thrift", 0))),
        }
    }

    fn decode_unframed<'a>(&'a mut self, buf: &'a [u8]) -> Result<Decoded<'a>, NoMessage> {
        let message = Message::read(buf, self.codec.protocol, self.limits.max_header_bytes)?;
        if !self.walk.is_under_way() {
            self.walk.begin(message.form.protocol(), message.length);
        }
        let end = self.walk.go_on(buf, &self.limits)?;
        let frame = buf.get(..end).unwrap_or_default();
        Ok(self.frame(frame, message, Found { transport: Transport::Unframed, ..Found::default() }, 0))
    }

    fn decode_framed<'a>(&'a mut self, buf: &'a [u8], transport: Transport) -> Result<Decoded<'a>, NoMessage> {
        let &[l3, l2, l1, l0, ..] = buf else { return Err(NoMessage::Short(4usize.saturating_sub(buf.len()))) };
        check_magic(buf, transport)?;
        let length = u64::from(u32::from_be_bytes([l3, l2, l1, l0])).saturating_add(4);
        let whole = usize::try_from(length).unwrap_or(usize::MAX);
        if whole > self.limits.max_frame {
            return self.too_large(buf, transport, length);
        }
        let Some(frame) = buf.get(..whole) else {
            return Err(NoMessage::Short(whole.saturating_sub(buf.len())));
        };
        match transport {
            Transport::Header => self.decode_theader(frame),
            Transport::TtHeader => self.decode_ttheader(frame),
            _ => match Message::read(
                frame.get(4..).unwrap_or_default(),
                self.codec.protocol,
                self.limits.max_header_bytes,
            ) {
                Ok(message) => Ok(self.frame(frame, message, Found::default(), 4)),
                Err(error) => Err(NoMessage::Bad(never_whole(error))),
            },
        }
    }

    fn decode_theader<'a>(&'a mut self, frame: &'a [u8]) -> Result<Decoded<'a>, NoMessage> {
        let head = match theader::Head::read(frame, &self.limits) {
            Ok(head) => head,
            Err(error) => return self.reject(frame, Transport::Header, error),
        };
        let body = frame.get(head.message..).unwrap_or_default();
        let found = Found {
            transport: Transport::Header,
            outer: head.sequence,
            headers: Some((head.marks(), theader::walk)),
            ..Found::default()
        };
        if !head.zlib {
            return match Message::read(body, Some(head.protocol), self.limits.max_header_bytes) {
                Ok(message) => Ok(self.frame(frame, message, found, head.message)),
                Err(error) => self.reject(frame, Transport::Header, never_whole(error)),
            };
        }
        if let Err(error) = self.look_into(body) {
            return self.reject(frame, Transport::Header, error);
        }
        if let Err(error) = Message::read(&self.inflated, Some(head.protocol), INFLATED) {
            return self.reject(frame, Transport::Header, never_whole(error));
        }
        let Self { inflated, context, codec, .. } = self;
        match Message::read(inflated, Some(head.protocol), INFLATED) {
            Ok(message) => Ok(found.frame(frame, message, inflated, context, &codec.service)),
            Err(error) => Err(NoMessage::Bad(never_whole(error))),
        }
    }

    /// Decompresses the beginning of a message.
    fn look_into(&mut self, compressed: &[u8]) -> Result<(), DecodeError> {
        let inflate = self.inflate.get_or_insert_with(|| Decompress::new(true));
        inflate.reset(true);
        self.inflated.clear();
        self.inflated.reserve(INFLATED);
        // Only as much as there is room for: the rest of the message does not matter here.
        inflate
            .decompress_vec(compressed, &mut self.inflated, FlushDecompress::Sync)
            .map(|_| ())
            .map_err(|_| DecodeError::malformed("zlib transform", 0))
    }

    fn decode_ttheader<'a>(&'a mut self, frame: &'a [u8]) -> Result<Decoded<'a>, NoMessage> {
        let head = match ttheader::Head::read(frame, &self.limits) {
            Ok(head) => head,
            Err(error) => return self.reject(frame, Transport::TtHeader, error),
        };
        let (start, inner_frame) = ttheader_message(frame, head.message);
        let body = frame.get(start..).unwrap_or_default();
        match Message::read(body, self.codec.protocol, self.limits.max_header_bytes) {
            Ok(message) => {
                let found = Found {
                    transport: Transport::TtHeader,
                    outer: head.sequence,
                    inner_frame,
                    service: head.service,
                    headers: Some((head.marks(), ttheader::walk)),
                };
                Ok(self.frame(frame, message, found, start))
            }
            Err(error) => self.reject(frame, Transport::TtHeader, never_whole(error)),
        }
    }

    fn frame<'a>(&'a mut self, bytes: &'a [u8], message: Message<'a>, found: Found<'a>, start: usize) -> Decoded<'a> {
        let body = bytes.get(start..).unwrap_or_default();
        found.frame(bytes, message, body, &mut self.context, &self.codec.service)
    }

    /// A frame above the limit: answered if its head is there to tell whom.
    fn too_large<'a>(&'a mut self, buf: &'a [u8], transport: Transport, length: u64) -> Result<Decoded<'a>, NoMessage> {
        let error = DecodeError::too_large("frame", 0);
        if transport != Transport::Framed {
            let known = buf.get(8..12).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
            return match known {
                // Its message may be far behind, so its form is not known: as most clients write it.
                Some(outer) => Ok(self.rejected_unknown(transport, outer, length, error)),
                None => Err(NoMessage::Short(12usize.saturating_sub(buf.len()))),
            };
        }
        let message =
            Message::read(buf.get(4..).unwrap_or_default(), self.codec.protocol, self.limits.max_header_bytes)?;
        reply::put_context(transport, &message, 0, false, &mut self.context);
        Ok(Decoded::Rejected(Rejected {
            kind: request_kind(&message),
            id: u64::from(message.sequence),
            context: &self.context,
            length,
            error,
        }))
    }

    /// A whole frame whose content is not understood.
    fn reject<'a>(
        &'a mut self,
        frame: &'a [u8],
        transport: Transport,
        error: DecodeError,
    ) -> Result<Decoded<'a>, NoMessage> {
        let outer = frame.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        Ok(self.rejected_unknown(transport, outer, frame.len() as u64, error))
    }

    fn rejected_unknown(&mut self, transport: Transport, outer: u32, length: u64, error: DecodeError) -> Decoded<'_> {
        let message =
            Message { form: Form::Strict, kind: 1, name: b"", sequence: outer, sequence_at: (0, 0), length: 0 };
        reply::put_context(transport, &message, outer, false, &mut self.context);
        Decoded::Rejected(Rejected {
            kind: FrameKind::Request,
            id: u64::from(outer),
            context: &self.context,
            length,
            error,
        })
    }
}

/// What a frame said around its message.
struct Found<'a> {
    transport: Transport,
    outer: u32,
    inner_frame: bool,
    service: &'a [u8],
    headers: Option<(Marks, meltemi::HeaderWalk)>,
}

impl Default for Found<'_> {
    fn default() -> Self {
        Self { transport: Transport::Framed, outer: 0, inner_frame: false, service: b"", headers: None }
    }
}

impl<'a> Found<'a> {
    /// `body` starts with the message.
    fn frame(
        self,
        bytes: &'a [u8],
        message: Message<'a>,
        body: &'a [u8],
        context: &'a mut Vec<u8>,
        default_service: &'a str,
    ) -> Decoded<'a> {
        reply::put_context(self.transport, &message, self.outer, self.inner_frame, context);
        let (named, method) = message.service_and_method();
        let service = [named, self.service, default_service.as_bytes()].into_iter().find(|name| !name.is_empty());
        let mut metadata = Metadata::new(service.unwrap_or_default(), method);
        if let Some((marks, walk)) = self.headers {
            metadata = metadata.with_headers(bytes, marks, walk);
        }
        let has_own_number = matches!(self.transport, Transport::Header | Transport::TtHeader);
        Decoded::Frame(Frame {
            bytes,
            kind: message.frame_kind(body.get(message.length..).unwrap_or_default()),
            id: u64::from(if has_own_number { self.outer } else { message.sequence }),
            metadata,
            context,
        })
    }
}

/// Where the message of a TTHeader frame starts, and whether a frame length of its own stands before it.
fn ttheader_message(frame: &[u8], at: usize) -> (usize, bool) {
    let message = at.saturating_add(4);
    let length = frame.get(at..message).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    match length.and_then(|length| usize::try_from(length).ok()) {
        Some(length) if message.saturating_add(length) == frame.len() => (message, true),
        _ => (at, false),
    }
}

/// Every frame of a connection has its transport's magic, not the first alone.
fn check_magic(buf: &[u8], transport: Transport) -> Result<(), NoMessage> {
    let magic = match transport {
        Transport::Framed | Transport::Unframed => return Ok(()),
        Transport::Header => HEADER_MAGIC,
        Transport::TtHeader => TTHEADER_MAGIC,
    };
    match buf.get(4..6) {
        Some(there) if there == magic => Ok(()),
        Some(_) => Err(NoMessage::Bad(DecodeError::malformed("magic of a header frame", 4))),
        None => Err(NoMessage::Short(6usize.saturating_sub(buf.len()))),
    }
}

fn request_kind(message: &Message<'_>) -> FrameKind {
    message.frame_kind(b"")
}

/// More bytes will not come: the frame is whole.
const fn never_whole(error: NoMessage) -> DecodeError {
    match error {
        NoMessage::Short(_) => DecodeError::malformed("message is cut off", 0),
        NoMessage::Bad(error) => error,
    }
}

impl Connection for ThriftConnection {
    fn decode<'a>(&'a mut self, buf: &'a [u8], _: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let decoded = match self.transport(buf) {
            Ok(Transport::Unframed) => self.decode_unframed(buf),
            Ok(framed) => self.decode_framed(buf, framed),
            Err(error) => Err(error),
        };
        match decoded {
            Ok(decoded) => Ok(decoded),
            Err(NoMessage::Short(needed)) => Ok(Decoded::Incomplete { needed }),
            Err(NoMessage::Bad(error)) => Err(error),
        }
    }

    fn rewrite(
        &mut self,
        frame: &[u8],
        mutation: &Mutation,
        id: Option<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let written = self.write_changed(frame, mutation, id, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn error_reply(&mut self, request: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        reply::error(request, failure, out)
    }

    fn reset(&mut self) {
        self.transport = self.codec.transport;
        self.walk.stop();
    }

    fn ordering(&self) -> Option<Ordering> {
        self.transport.map(|transport| match transport {
            Transport::Header | Transport::TtHeader => Ordering::Multiplexed,
            Transport::Framed | Transport::Unframed => Ordering::Ordered,
        })
    }
}

impl ThriftConnection {
    fn write_changed(
        &mut self,
        frame: &[u8],
        mutation: &Mutation,
        id: Option<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let malformed = |_| EncodeError::Malformed("head of the frame");
        let transport = self.transport(frame).map_err(|_| EncodeError::Malformed("transport"))?;
        let start = out.len();
        let id = id.map(|id| id as u32);
        match transport {
            Transport::Header => {
                let head = theader::Head::read(frame, &self.limits).map_err(malformed)?;
                match mutation.is_empty() {
                    true => out.extend_from_slice(frame),
                    false => theader::rewrite(frame, &head, mutation, out)?,
                }
            }
            Transport::TtHeader => {
                let head = ttheader::Head::read(frame, &self.limits).map_err(malformed)?;
                match mutation.is_empty() {
                    true => out.extend_from_slice(frame),
                    false => ttheader::rewrite(frame, &head, mutation, out)?,
                }
            }
            Transport::Framed | Transport::Unframed if !mutation.is_empty() => {
                return Err(EncodeError::Unsupported("framed and unframed Thrift have no headers"));
            }
            Transport::Framed => {
                out.extend_from_slice(&[0; 4]);
                self.put_message(frame.get(4..).unwrap_or_default(), id, out)?;
                return close_frame(out, start);
            }
            Transport::Unframed => return self.put_message(frame, id, out),
        }
        if let (Some(id), Some(at)) = (id, out.get_mut(start.saturating_add(8)..start.saturating_add(12))) {
            at.copy_from_slice(&id.to_be_bytes());
        }
        Ok(())
    }

    /// Copies a message, with another sequence number if one is given.
    fn put_message(&self, message: &[u8], id: Option<u32>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let malformed = EncodeError::Malformed("message");
        let Some(id) = id else {
            out.extend_from_slice(message);
            return Ok(());
        };
        let head = Message::read(message, None, self.limits.max_header_bytes).map_err(|_| malformed)?;
        let (at, length) = head.sequence_at;
        let (before, rest) = message.split_at_checked(at).ok_or(malformed)?;
        out.extend_from_slice(before);
        match head.form {
            Form::Compact => put_varint(out, u64::from(id)),
            Form::Strict | Form::Old => out.extend_from_slice(&id.to_be_bytes()),
        }
        out.extend_from_slice(rest.get(length..).ok_or(malformed)?);
        Ok(())
    }
}
