//! A small protocol that can do everything the engines know, for their tests.
//!
//! `u32` length of the rest | `u8` kind | `u32` id | `u8` length, method | `u8` number of headers, each `u8` length, name,
//! `u8` length, value | body. Big endian. The service is what stands before the method's last dot.

use meltemi_core::{
    Capabilities, Change, Codec, Connection, DecodeError, Decoded, EncodeError, Failure, FailureKind, Frame, FrameKind,
    InFlight, Limits, Marks, Metadata, Mutation, MutationSupport, Ordering, Outcome, Peer, Rejected, Ticket,
    wire::Reader,
};

pub(crate) struct TestCodec(pub(crate) Ordering);

/// The same with streams.
pub(crate) struct StreamCodec(pub(crate) Ordering);

impl Codec for StreamCodec {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = TestCodec(self.0).capabilities();
        capabilities.streaming = true;
        capabilities
    }

    fn connect(&self, peer: Peer, limits: &Limits) -> Box<dyn Connection> {
        TestCodec(self.0).connect(peer, limits)
    }
}

impl Codec for TestCodec {
    fn name(&self) -> &'static str {
        "test"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.0);
        capabilities.request_mutation = MutationSupport::Headers;
        capabilities.reply_mutation = MutationSupport::Headers;
        capabilities.rewrites_id = true;
        capabilities.one_way = true;
        capabilities.heartbeat = true;
        capabilities.upstream_heartbeat = Some(core::time::Duration::from_secs(60));
        capabilities.drain_signal = self.0 == Ordering::Multiplexed;
        capabilities
    }

    fn connect(&self, _: Peer, limits: &Limits) -> Box<dyn Connection> {
        Box::new(TestConnection { max_frame: limits.max_frame })
    }
}

struct TestConnection {
    max_frame: usize,
}

const REQUEST: u8 = 0;
const ONE_WAY: u8 = 1;
const OK: u8 = 2;
const EXCEPTION: u8 = 3;
const FAILURE: u8 = 4;
const HEARTBEAT: u8 = 5;
const HEARTBEAT_REPLY: u8 = 6;
const DRAIN: u8 = 7;
pub(crate) const STREAM_OPEN: u8 = 8;
pub(crate) const STREAM_DATA: u8 = 9;
pub(crate) const STREAM_CLOSE: u8 = 10;
pub(crate) const HANDSHAKE: u8 = 11;
pub(crate) const PUSH: u8 = 12;
/// Of no bytes: a bug of the codec.
pub(crate) const EMPTY: u8 = 13;
/// A request that is not taken and whose end is not known.
pub(crate) const ENDLESS: u8 = 14;

impl Connection for TestConnection {
    fn decode<'a>(&'a mut self, buf: &'a [u8], _: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let mut reader = Reader::new(buf);
        let (length, kind, id) = match (reader.u32(), reader.u8(), reader.u32()) {
            (Ok(length), Ok(kind), Ok(id)) => (length as usize + 4, kind, u64::from(id)),
            _ => return Ok(Decoded::Incomplete { needed: 9usize.saturating_sub(buf.len()).max(1) }),
        };
        let kind = match kind {
            REQUEST => FrameKind::Request,
            ONE_WAY => FrameKind::OneWay,
            OK => FrameKind::Response(Outcome::Ok),
            EXCEPTION => FrameKind::Response(Outcome::Exception),
            FAILURE => FrameKind::Response(Outcome::Failure(FailureKind::Internal)),
            HEARTBEAT => FrameKind::Heartbeat,
            HEARTBEAT_REPLY => FrameKind::HeartbeatReply,
            DRAIN => FrameKind::Drain,
            STREAM_OPEN => FrameKind::StreamOpen,
            STREAM_DATA => FrameKind::StreamData,
            STREAM_CLOSE => FrameKind::StreamClose,
            HANDSHAKE => FrameKind::Handshake,
            PUSH => FrameKind::Push,
            EMPTY => {
                let bytes = &buf[..0];
                let metadata = Metadata::EMPTY;
                return Ok(Decoded::Frame(Frame { bytes, kind: FrameKind::Push, id, metadata, context: b"" }));
            }
            ENDLESS => {
                let error = DecodeError::too_large("message", 0);
                let (kind, length) = (FrameKind::Request, Rejected::NO_END);
                return Ok(Decoded::Rejected(Rejected { kind, id, context: b"", length, error }));
            }
            _ => return Err(DecodeError::malformed("kind", 4)),
        };
        let rejected = |error| Ok(Decoded::Rejected(Rejected { kind, id, context: b"", length: length as u64, error }));
        if length > self.max_frame {
            return rejected(DecodeError::too_large("frame", 0));
        }
        let Some(bytes) = buf.get(..length) else {
            return Ok(Decoded::Incomplete { needed: length - buf.len() });
        };
        match metadata(bytes) {
            Some(metadata) => Ok(Decoded::Frame(Frame { bytes, kind, id, metadata, context: metadata.method })),
            None => rejected(DecodeError::malformed("metadata", 9)),
        }
    }

    fn rewrite(
        &mut self,
        frame: &[u8],
        mutation: &Mutation,
        id: Option<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let metadata = metadata(frame).ok_or(EncodeError::Malformed("metadata"))?;
        for change in mutation.iter() {
            match change.name() {
                b"no-place" => return Err(EncodeError::Unsupported("no place")),
                b"no-room" => return Err(EncodeError::TooLarge("no room")),
                b"no-sense" => return Err(EncodeError::Malformed("no sense")),
                _ => {}
            }
        }
        let (mut headers, mut end) = (Vec::new(), 0);
        metadata.for_each_header(|name, value| {
            if mutation.get(name).is_none() {
                headers.push((name.to_vec(), value.to_vec()));
            }
            end = value.as_ptr() as usize + value.len() - frame.as_ptr() as usize;
        });
        headers.extend(mutation.iter().filter_map(|change| match change {
            Change::Set(name, value) => Some((name.to_vec(), value.to_vec())),
            Change::Remove(_) => None,
        }));
        let method = frame[10..10 + usize::from(frame[9])].to_vec();
        let body = &frame[end.max(11 + method.len())..];
        let id = id.unwrap_or(u64::from(u32::from_be_bytes(frame[5..9].try_into().unwrap())));
        let headers: Vec<(&[u8], &[u8])> = headers.iter().map(|(n, v)| (n.as_slice(), v.as_slice())).collect();
        out.extend(frame_of(frame[4], id as u32, &method, &headers, body));
        Ok(())
    }

    fn error_reply(&mut self, request: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let headers = [(&b"failure"[..], failure.kind.as_str().as_bytes())];
        out.extend(frame_of(FAILURE, request.id as u32, request.context(), &headers, failure.message.as_bytes()));
        Ok(())
    }

    fn heartbeat_reply(&mut self, heartbeat: &Ticket, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(frame_of(HEARTBEAT_REPLY, heartbeat.id as u32, b"", &[], b""));
        Ok(())
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(heartbeat(0xbeef));
        Ok(())
    }

    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(drain());
        Ok(())
    }

    fn reset(&mut self) {}
}

fn metadata(frame: &[u8]) -> Option<Metadata<'_>> {
    let mut reader = Reader::at(frame, 9);
    let length = usize::from(reader.u8().ok()?);
    let full = reader.take(length).ok()?;
    let start = reader.position();
    for _ in 0..reader.u8().ok()? * 2 {
        let length = usize::from(reader.u8().ok()?);
        reader.skip(length).ok()?;
    }
    let (service, method) = match full.iter().rposition(|byte| *byte == b'.') {
        Some(dot) => (&full[..dot], &full[dot + 1..]),
        None => (&[][..], full),
    };
    Some(Metadata::new(service, method).with_headers(&frame[start..], Marks::default(), walk))
}

fn walk<'b>(block: &'b [u8], _: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    let mut reader = Reader::new(block);
    for _ in 0..reader.u8().unwrap_or(0) {
        let mut text = || {
            let length = usize::from(reader.u8().unwrap_or(0));
            reader.take(length).unwrap_or_default()
        };
        let (name, value) = (text(), text());
        visit(name, value);
    }
}

fn frame_of(kind: u8, id: u32, method: &[u8], headers: &[(&[u8], &[u8])], body: &[u8]) -> Vec<u8> {
    let mut rest = vec![kind];
    rest.extend(id.to_be_bytes());
    rest.push(method.len() as u8);
    rest.extend(method);
    rest.push(headers.len() as u8);
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        rest.push(text.len() as u8);
        rest.extend(*text);
    }
    rest.extend(body);
    [&(rest.len() as u32).to_be_bytes()[..], &rest].concat()
}

fn with_headers(kind: u8, id: u32, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: Vec<(&[u8], &[u8])> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    frame_of(kind, id, method.as_bytes(), &headers, body)
}

/// Any frame without headers.
pub(crate) fn frame(kind: u8, id: u32, method: &str, body: &[u8]) -> Vec<u8> {
    with_headers(kind, id, method, &[], body)
}

pub(crate) fn request(id: u32, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    with_headers(REQUEST, id, method, headers, body)
}

pub(crate) fn one_way(id: u32, method: &str, body: &[u8]) -> Vec<u8> {
    with_headers(ONE_WAY, id, method, &[], body)
}

pub(crate) fn ok(id: u32, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    with_headers(OK, id, "", headers, body)
}

pub(crate) fn exception(id: u32, body: &[u8]) -> Vec<u8> {
    with_headers(EXCEPTION, id, "", &[], body)
}

pub(crate) fn failure(id: u32, body: &[u8]) -> Vec<u8> {
    with_headers(FAILURE, id, "", &[], body)
}

/// The error reply of an engine to a request of `method`.
pub(crate) fn error(id: u32, method: &str, kind: FailureKind, message: &str) -> Vec<u8> {
    // The ticket keeps the method without its service.
    let method = method.rsplit('.').next().unwrap_or_default();
    with_headers(FAILURE, id, method, &[("failure", kind.as_str())], message.as_bytes())
}

pub(crate) fn heartbeat(id: u32) -> Vec<u8> {
    with_headers(HEARTBEAT, id, "", &[], b"")
}

pub(crate) fn heartbeat_reply(id: u32) -> Vec<u8> {
    with_headers(HEARTBEAT_REPLY, id, "", &[], b"")
}

pub(crate) fn drain() -> Vec<u8> {
    with_headers(DRAIN, 0, "", &[], b"")
}
