use flate2::{Decompress, FlushDecompress};
use meltemi::{
    Connection, DecodeError, Decoded, EncodeError, Failure, Frame, InFlight, Limits, Marks, Metadata, Mutation,
    Ordering, Rejected, Ticket,
};

use super::{
    Thrift,
    detect::{Detected, HEADER_MAGIC, TTHEADER_MAGIC, Transport, transport},
    message::{Message, NoMessage, WRONG_PROTOCOL},
    reply::{self, Around},
    skip::Walk,
    theader, ttheader,
};

/// Bytes of a compressed message that are looked at: enough for its head and its first field.
pub(super) const INFLATED: usize = 4096;

/// Protocol state of one connection.
pub(super) struct ThriftConnection {
    pub(super) codec: Thrift,
    pub(super) limits: Limits,
    /// Of the last message.
    transport: Option<Transport>,
    /// A message had a transport whose replies are told apart by their order alone.
    ordered: bool,
    /// The walk over an unframed message that is not whole yet.
    walk: Walk,
    pub(super) context: Vec<u8>,
    pub(super) inflate: Option<Decompress>,
    pub(super) inflated: Vec<u8>,
}

impl ThriftConnection {
    pub(super) fn new(codec: Thrift, limits: Limits) -> Self {
        Self {
            transport: None,
            ordered: false,
            codec,
            limits,
            walk: Walk::new(),
            context: Vec::new(),
            inflate: None,
            inflated: Vec::new(),
        }
    }

    /// The transport of the message at the start of `buf`. A proxy in front of us may share its connections among clients
    /// of several, so the next message can have another than the last.
    pub(super) fn transport(&mut self, buf: &[u8]) -> Result<Transport, NoMessage> {
        if let Some(only) = self.codec.transport {
            return Ok(only);
        }
        let found = match (transport(buf), self.transport) {
            (Detected::Transport(found), _) | (Detected::Guess(found), None) => found,
            (Detected::Guess(_) | Detected::Nothing, Some(last)) => last,
            (Detected::NeedMore(needed), _) => return Err(NoMessage::Short(needed)),
            (Detected::Nothing, None) => return Err(NoMessage::Bad(DecodeError::malformed("not Thrift", 0))),
        };
        self.transport = Some(found);
        self.ordered |= matches!(found, Transport::Framed | Transport::Unframed);
        Ok(found)
    }

    fn decode_unframed<'a>(&'a mut self, buf: &'a [u8]) -> Result<Decoded<'a>, NoMessage> {
        let around = Around::plain(Transport::Unframed);
        let message = match Message::read(buf, self.codec.protocol, self.limits.max_header_bytes) {
            Ok(message) => message,
            Err(NoMessage::Bad(error)) => return self.refuse(around, buf, false, Rejected::NO_END, error),
            Err(short) => return Err(short),
        };
        if !self.walk.is_under_way() {
            self.walk.begin(message.form.protocol(), message.length);
        }
        match self.walk.go_on(buf, &self.limits) {
            Ok(end) => {
                let frame = buf.get(..end).unwrap_or_default();
                Ok(self.frame(frame, message, Found::new(around), 0))
            }
            // Nobody knows where it ends, but it can be answered.
            Err(NoMessage::Bad(error)) => self.refuse(around, buf, false, Rejected::NO_END, error),
            Err(short) => Err(short),
        }
    }

    fn decode_framed<'a>(&'a mut self, buf: &'a [u8], transport: Transport) -> Result<Decoded<'a>, NoMessage> {
        let &[l3, l2, l1, l0, ..] = buf else { return Err(NoMessage::Short(4usize.saturating_sub(buf.len()))) };
        check_magic(buf, transport)?;
        let length = u64::from(u32::from_be_bytes([l3, l2, l1, l0])).saturating_add(4);
        let whole = usize::try_from(length).unwrap_or(usize::MAX);
        if whole > self.limits.max_frame {
            let there = buf.get(..whole).unwrap_or(buf);
            let error = DecodeError::too_large("frame", 0);
            return self.refuse_frame(transport, there, there.len() == whole, length, error);
        }
        let Some(frame) = buf.get(..whole) else {
            return Err(NoMessage::Short(whole.saturating_sub(buf.len())));
        };
        match transport {
            Transport::Header => self.decode_theader(frame),
            Transport::TtHeader => self.decode_ttheader(frame),
            _ => {
                let body = frame.get(4..).unwrap_or_default();
                match Message::read(body, self.codec.protocol, self.limits.max_header_bytes) {
                    Ok(message) => Ok(self.frame(frame, message, Found::new(Around::plain(transport)), 4)),
                    Err(error) => self.refuse_frame(transport, frame, true, length, never_whole(error)),
                }
            }
        }
    }

    fn decode_theader<'a>(&'a mut self, frame: &'a [u8]) -> Result<Decoded<'a>, NoMessage> {
        let refuse =
            |this: &'a mut Self, error| this.refuse_frame(Transport::Header, frame, true, frame.len() as u64, error);
        let head = match theader::Head::read(frame, &self.limits) {
            Ok(head) => head,
            Err(error) => return refuse(self, error),
        };
        if self.codec.protocol.is_some_and(|only| only != head.protocol) {
            return refuse(self, DecodeError::malformed(WRONG_PROTOCOL, 0));
        }
        let body = frame.get(head.message..).unwrap_or_default();
        let around = Around { outer: head.sequence, ..Around::plain(Transport::Header) };
        let found = Found { headers: Some((head.marks(), theader::walk)), ..Found::new(around) };
        if !head.zlib {
            return match Message::read(body, Some(head.protocol), self.limits.max_header_bytes) {
                Ok(message) => Ok(self.frame(frame, message, found, head.message)),
                Err(error) => refuse(self, never_whole(error)),
            };
        }
        if let Err(error) = self.look_into(body) {
            return refuse(self, error);
        }
        if let Err(error) = Message::read(&self.inflated, Some(head.protocol), INFLATED) {
            return refuse(self, never_whole(error));
        }
        let Self { inflated, context, codec, .. } = self;
        match Message::read(inflated, Some(head.protocol), INFLATED) {
            Ok(message) => Ok(found.frame(frame, message, inflated, context, &codec.service)),
            Err(error) => Err(NoMessage::Bad(never_whole(error))),
        }
    }

    /// Decompresses the beginning of a message.
    pub(super) fn look_into(&mut self, compressed: &[u8]) -> Result<(), DecodeError> {
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
        let refuse =
            |this: &'a mut Self, error| this.refuse_frame(Transport::TtHeader, frame, true, frame.len() as u64, error);
        let head = match ttheader::Head::read(frame, &self.limits) {
            Ok(head) => head,
            Err(error) => return refuse(self, error),
        };
        if self.codec.protocol.is_some_and(|only| only != head.protocol) {
            return refuse(self, DecodeError::malformed(WRONG_PROTOCOL, 0));
        }
        let (start, inner_frame) = ttheader::message_at(frame, head.message, frame.len() as u64);
        let body = frame.get(start..).unwrap_or_default();
        match Message::read(body, Some(head.protocol), self.limits.max_header_bytes) {
            Ok(message) => {
                let around = Around { outer: head.sequence, inner_frame, ..Around::plain(Transport::TtHeader) };
                let found = Found {
                    service: head.service,
                    headers: Some((head.marks(), ttheader::walk)),
                    ..Found::new(around)
                };
                Ok(self.frame(frame, message, found, start))
            }
            Err(error) => refuse(self, never_whole(error)),
        }
    }

    fn frame<'a>(&'a mut self, bytes: &'a [u8], message: Message<'a>, found: Found<'a>, start: usize) -> Decoded<'a> {
        let body = bytes.get(start..).unwrap_or_default();
        found.frame(bytes, message, body, &mut self.context, &self.codec.service)
    }
}

/// What a frame said around its message.
struct Found<'a> {
    around: Around,
    service: &'a [u8],
    headers: Option<(Marks, meltemi::HeaderWalk)>,
}

impl<'a> Found<'a> {
    const fn new(around: Around) -> Self {
        Self { around, service: b"", headers: None }
    }

    /// `body` starts with the message.
    fn frame(
        self,
        bytes: &'a [u8],
        message: Message<'a>,
        body: &'a [u8],
        context: &'a mut Vec<u8>,
        default_service: &'a str,
    ) -> Decoded<'a> {
        reply::put_context(&self.around, &message, context);
        let (named, method) = message.service_and_method();
        let service = [named, self.service, default_service.as_bytes()].into_iter().find(|name| !name.is_empty());
        let mut metadata = Metadata::new(service.unwrap_or_default(), method);
        if let Some((marks, walk)) = self.headers {
            metadata = metadata.with_headers(bytes, marks, walk);
        }
        Decoded::Frame(Frame {
            bytes,
            kind: message.frame_kind(body.get(message.length..).unwrap_or_default()),
            // Not the number of a header frame, where they differ: servers answer with the message's in both places.
            id: u64::from(message.sequence),
            metadata,
            context,
        })
    }
}

/// Where the transport is given, every frame has its magic.
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
        self.transport = None;
        self.ordered = false;
        self.walk.stop();
    }

    fn ordering(&self) -> Option<Ordering> {
        match self.codec.transport.or(self.transport)? {
            Transport::Header | Transport::TtHeader if !self.ordered => Some(Ordering::Multiplexed),
            _ => Some(Ordering::Ordered),
        }
    }
}
