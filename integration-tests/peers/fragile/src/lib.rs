//! Lines, with a bug: the line `bug` makes the codec panic.

use meltemi::{
    Capabilities, Codec, CodecEntry, Connection, DecodeError, Decoded, EncodeError, Failure, Frame, FrameKind,
    InFlight, Limits, Metadata, Ordering, Outcome, Peer, Ticket,
};

meltemi::export!(&[ENTRY]);

/// The codec.
pub const ENTRY: CodecEntry = CodecEntry {
    name: "fragile",
    summary: "Lines, with a bug",
    options: &[],
    service_aliases: &[],
    build: |options| options.check_names(&[]).map(|()| Box::new(Fragile) as Box<dyn Codec>),
};

struct Fragile;

impl Codec for Fragile {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Ordering::Ordered)
    }

    fn connect(&self, peer: Peer, _: &Limits) -> Box<dyn Connection> {
        Box::new(Lines(peer))
    }
}

struct Lines(Peer);

impl Connection for Lines {
    fn decode<'a>(&'a mut self, buf: &'a [u8], _: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let Some(end) = buf.iter().position(|byte| *byte == b'\n') else {
            return Ok(Decoded::Incomplete { needed: 1 });
        };
        let (line, bytes) = (&buf[..end], &buf[..=end]);
        assert_ne!(line, b"bug");
        let (kind, metadata) = match self.0 {
            Peer::Client => (FrameKind::Request, Metadata::new(b"", line)),
            Peer::Server => (FrameKind::Response(Outcome::Ok), Metadata::EMPTY),
        };
        Ok(Decoded::Frame(Frame { bytes, kind, id: 0, metadata, context: b"" }))
    }

    fn error_reply(&mut self, _: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(format!("-{}\n", failure.kind).as_bytes());
        Ok(())
    }

    fn reset(&mut self) {}
}
