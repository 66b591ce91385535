//! A codec for tests of what runs codecs.

use crate::{
    Capabilities, Codec, CodecEntry, Connection, DecodeError, Decoded, EncodeError, Failure, FailureKind, Frame,
    FrameKind, InFlight, Limits, Metadata, Ordering, Outcome, Peer, Rejected, Ticket,
};

/// [`Lines`].
pub const LINES: CodecEntry = CodecEntry {
    name: "lines",
    summary: "",
    options: &[],
    service_aliases: &[],
    build: |options| options.check_names(&[]).map(|()| Box::new(Lines) as Box<dyn Codec>),
};

/// Lines: what a client sends is a method, what a server sends a result. A client's `fire` is one-way, its `bad` is refused;
/// a server's `busy` is a failure. The line `bug` is one, of the codec.
#[derive(Debug)]
pub struct Lines;

impl Codec for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Ordering::Ordered)
    }

    fn connect(&self, peer: Peer, _: &Limits) -> Box<dyn Connection> {
        Box::new(LineConnection(peer))
    }
}

struct LineConnection(Peer);

impl Connection for LineConnection {
    fn decode<'a>(&'a mut self, buf: &'a [u8], _: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let Some(bytes) = buf.split_inclusive(|byte| *byte == b'\n').next().filter(|line| line.ends_with(b"\n")) else {
            return Ok(Decoded::Incomplete { needed: 1 });
        };
        let line = bytes.strip_suffix(b"\n").unwrap_or_default();
        assert_ne!(line, b"bug", "a bug of the codec");
        let kind = match (self.0, line) {
            (Peer::Client, b"bad") => {
                let (kind, error) = (FrameKind::Request, DecodeError::malformed("bad", 0));
                return Ok(Decoded::Rejected(Rejected {
                    kind,
                    id: 0,
                    context: b"",
                    length: bytes.len() as u64,
                    error,
                }));
            }
            (Peer::Client, b"fire") => FrameKind::OneWay,
            (Peer::Client, _) => FrameKind::Request,
            (Peer::Server, b"busy") => FrameKind::Response(Outcome::Failure(FailureKind::Overflow)),
            (Peer::Server, _) => FrameKind::Response(Outcome::Ok),
        };
        Ok(Decoded::Frame(Frame { bytes, kind, id: 0, metadata: Metadata::new(b"", line), context: b"" }))
    }

    fn error_reply(&mut self, _: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(format!("{}\n", failure.kind).as_bytes());
        Ok(())
    }

    fn reset(&mut self) {}
}
