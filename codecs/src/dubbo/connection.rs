use meltemi::{
    Connection, DecodeError, Decoded, EncodeError, Failure, FailureKind, Frame, FrameKind, InFlight, Limits, Metadata,
    Mutation, Outcome, Peer, Rejected, Ticket,
};

use super::{
    Dubbo, attachments,
    body::{Form, HESSIAN2},
    header::{self, Header, Start},
    reply,
    request::{Call, unseen},
    text,
};

/// Longest body of an event that is kept to be answered: a null in any serialization.
const NULL: usize = 16;

/// Protocol state of one connection.
pub(super) struct DubboConnection {
    peer: Peer,
    limits: Limits,
    codec: Dubbo,
    /// The serialization that the peer used last, for events of our own.
    serialization: u8,
}

impl DubboConnection {
    pub(super) const fn new(peer: Peer, limits: Limits, codec: Dubbo) -> Self {
        Self { peer, limits, codec, serialization: HESSIAN2 }
    }

    fn whole<'a>(&mut self, bytes: &'a [u8], header: &Header) -> Decoded<'a> {
        if Form::of(header.serialization()).is_some() {
            self.serialization = header.serialization();
        }
        let body = bytes.get(header::LENGTH..).unwrap_or_default();
        let mut context = header::LENGTH;
        let (kind, metadata) = match (header.is_request(), header.is_event()) {
            (true, true) => {
                context = context.saturating_add(body.len().min(NULL));
                (event(header, body), Metadata::EMPTY)
            }
            (false, true) => (FrameKind::HeartbeatReply, Metadata::EMPTY),
            (false, false) => {
                let outcome = reply::outcome(header, bytes, &self.limits);
                (FrameKind::Response(outcome), reply::metadata(header, bytes, &self.limits))
            }
            // A call back into the client.
            (true, false) if self.peer == Peer::Server => (FrameKind::Push, Metadata::EMPTY),
            (true, false) => match self.call(bytes, header) {
                Ok(metadata) => (call_kind(header), metadata),
                Err(error) => return rejected(bytes, header, error),
            },
        };
        let context = bytes.get(..context).unwrap_or_default();
        Decoded::Frame(Frame { bytes, kind, id: header.id, metadata, context })
    }

    fn call<'a>(&self, bytes: &'a [u8], header: &Header) -> Result<Metadata<'a>, DecodeError> {
        if !self.codec.takes(header.serialization()) {
            return Err(DecodeError::unsupported("a serialization that the configuration does not take", 2));
        }
        match Form::of(header.serialization()) {
            Some(form) => Call::read(bytes, form, &self.limits)?.metadata(bytes, &self.limits),
            None => Ok(unseen(bytes)),
        }
    }
}

impl Connection for DubboConnection {
    fn decode<'a>(&'a mut self, buf: &'a [u8], _: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let header = match Header::read(buf)? {
            Start::Header(header) => header,
            Start::Short(needed) => return Ok(Decoded::Incomplete { needed }),
        };
        if header.is_endless() {
            return Ok(rejected(buf, &header, DecodeError::malformed("negative body length", 12)));
        }
        let length = usize::try_from(header.frame()).unwrap_or(usize::MAX);
        if length > self.limits.max_frame {
            return Ok(rejected(buf, &header, DecodeError::too_large("body", 12)));
        }
        Ok(match buf.get(..length) {
            Some(bytes) => self.whole(bytes, &header),
            None => Decoded::Incomplete { needed: length.saturating_sub(buf.len()).max(1) },
        })
    }

    fn rewrite(
        &mut self,
        frame: &[u8],
        mutation: &Mutation,
        id: Option<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let Ok(Start::Header(mut header)) = Header::read(frame) else {
            return Err(EncodeError::Malformed("no header"));
        };
        if header.frame() != frame.len() as u64 {
            return Err(EncodeError::Malformed("not one whole frame"));
        }
        header.id = id.unwrap_or(header.id);
        let start = out.len();
        if mutation.is_empty() {
            header.put(out);
            out.extend_from_slice(frame.get(header::LENGTH..).unwrap_or_default());
            return Ok(());
        }
        attachments::rewrite(frame, &header, mutation, &self.limits, out).inspect_err(|_| out.truncate(start))
    }

    fn error_reply(&mut self, request: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let request = ticket_header(request)?;
        let start = out.len();
        let serialization = reply::message_serialization(request.serialization());
        request.reply(reply::status(failure.kind)).in_serialization(serialization).put(out);
        let body_length = out.len().saturating_sub(4);
        let message = reply::put_message(serialization, failure.message, out);
        message
            .and_then(|()| text::close_length(out.get_mut(body_length..).unwrap_or_default(), 0))
            .inspect_err(|_| out.truncate(start))
    }

    fn heartbeat_reply(&mut self, heartbeat: &Ticket, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let header = ticket_header(heartbeat)?;
        // The answer carries the same null.
        let null = heartbeat.context().get(header::LENGTH..).unwrap_or_default();
        if null.len() as u64 != u64::from(header.body) {
            return Err(EncodeError::Unsupported("a heartbeat with a long body"));
        }
        Header { body: header.body, ..header.reply(header::OK) }.put(out);
        out.extend_from_slice(null);
        Ok(())
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        // In hessian2 whatever the calls are in: Java providers set to fastjson2 answer it as well.
        Header::event(HESSIAN2, true, 1).put(out);
        out.push(b'N');
        Ok(())
    }

    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let form = Form::of(self.serialization).unwrap_or(Form::Hessian2);
        let mut body = Vec::new();
        text::put_item(form, b"R", &mut body)?;
        Header::event(self.serialization, false, u32::try_from(body.len()).unwrap_or(0)).put(out);
        out.extend_from_slice(&body);
        Ok(())
    }

    fn reset(&mut self) {
        self.serialization = HESSIAN2;
    }
}

/// What an event asks for. `R` and `W` (read-only, writable again) are one-letter texts in every serialization and
/// end the body, but for the quote and newline of JSON.
fn event(header: &Header, body: &[u8]) -> FrameKind {
    let end = body.iter().rfind(|byte| !matches!(byte, b'"' | b'\n' | b'\r'));
    match end {
        Some(b'R') if body.len() <= NULL => FrameKind::Drain,
        Some(b'W') if body.len() <= NULL => FrameKind::Push,
        _ if header.is_two_way() => FrameKind::Heartbeat,
        _ => FrameKind::Push,
    }
}

const fn call_kind(header: &Header) -> FrameKind {
    if header.is_two_way() { FrameKind::Request } else { FrameKind::OneWay }
}

fn rejected<'a>(buf: &'a [u8], header: &Header, error: DecodeError) -> Decoded<'a> {
    let kind = match (header.is_request(), header.is_event()) {
        (true, false) => call_kind(header),
        // Nobody waits for an answer that could be given.
        (true, true) => FrameKind::OneWay,
        (false, true) => FrameKind::HeartbeatReply,
        (false, false) => FrameKind::Response(Outcome::Failure(FailureKind::BadReply)),
    };
    let context = buf.get(..header::LENGTH).unwrap_or_default();
    let length = if header.is_endless() { Rejected::NO_END } else { header.frame() };
    Decoded::Rejected(Rejected { kind, id: header.id, context, length, error })
}

fn ticket_header(ticket: &Ticket) -> Result<Header, EncodeError> {
    match Header::read(ticket.context()) {
        Ok(Start::Header(header)) => Ok(Header { id: ticket.id, ..header }),
        _ => Err(EncodeError::Malformed("not a ticket of this protocol")),
    }
}
