//! A small protocol as an Envoy module: `cargo build --example lines --features module`.
//!
//! A request is a line `service.method argument`. Its reply is a line `+result` or `-reason`; replies come in request
//! order.

use meltemi::{
    Capabilities, Codec, CodecEntry, Connection, DecodeError, Decoded, EncodeError, Failure, Frame, FrameKind,
    InFlight, Limits, Metadata, Ordering, Outcome, Peer, Ticket,
};

meltemi::export!(&[ENTRY]);

/// How a host finds the codec by its name and makes it from the options of a configuration.
pub const ENTRY: CodecEntry = CodecEntry {
    name: "lines",
    summary: "Requests and replies of one line each",
    options: &[],
    service_aliases: &[],
    build: |options| {
        options.check_names(&[])?;
        Ok(Box::new(Lines))
    },
};

/// The protocol: what all connections share.
struct Lines;

impl Codec for Lines {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Ordering::Ordered)
    }

    fn connect(&self, peer: Peer, limits: &Limits) -> Box<dyn Connection> {
        Box::new(LineConnection { peer, max_line: limits.max_frame, searched: 0 })
    }
}

/// One connection, on one side of the proxy.
struct LineConnection {
    peer: Peer,
    max_line: usize,
    /// Bytes of an unfinished line in which there is no end of line.
    searched: usize,
}

impl Connection for LineConnection {
    fn decode<'a>(&'a mut self, buf: &'a [u8], _: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let end = buf.iter().skip(self.searched).position(|byte| *byte == b'\n');
        let length = end.map_or(buf.len(), |end| self.searched.saturating_add(end).saturating_add(1));
        if length > self.max_line {
            return Err(DecodeError::too_large("line longer than the limit", 0));
        }
        let (Some(_), Some(bytes)) = (end, buf.get(..length)) else {
            self.searched = length;
            return Ok(Decoded::Incomplete { needed: 1 });
        };
        self.searched = 0;
        let (kind, metadata) = match self.peer {
            Peer::Client => (FrameKind::Request, metadata(bytes)),
            Peer::Server => (FrameKind::Response(outcome(bytes)?), Metadata::EMPTY),
        };
        Ok(Decoded::Frame(Frame { bytes, kind, id: 0, metadata, context: b"" }))
    }

    fn error_reply(&mut self, _: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(format!("-{}: {}\n", failure.kind, failure.message).as_bytes());
        Ok(())
    }

    fn reset(&mut self) {
        self.searched = 0;
    }
}

/// Service and method of a request: what stands before and behind the last dot of its first word.
fn metadata(line: &[u8]) -> Metadata<'_> {
    let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let mut parts = word.rsplitn(2, |byte| *byte == b'.');
    let (method, service) = (parts.next(), parts.next());
    Metadata::new(service.unwrap_or_default(), method.unwrap_or_default())
}

fn outcome(line: &[u8]) -> Result<Outcome, DecodeError> {
    match line.first() {
        Some(b'+') => Ok(Outcome::Ok),
        Some(b'-') => Ok(Outcome::Exception),
        _ => Err(DecodeError::malformed("a reply begins with + or -", 0)),
    }
}
