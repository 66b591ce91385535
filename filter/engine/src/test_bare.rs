//! A protocol whose replies have no head and can only be read with their requests in mind, as in Kafka or Memcached.
//!
//! Request: `u8` number of reply bytes | `u8` length, method. Reply: that many bytes; the first is 0 if all is well. A
//! reply's only header is `note`, its last byte, which a rewrite may set if the request has allowed it (method `open`).

use meltemi_core::{
    Capabilities, Change, Codec, Connection, DecodeError, Decoded, EncodeError, Failure, Frame, FrameKind, InFlight,
    Limits, Marks, Metadata, Mutation, MutationSupport, Ordering, Outcome, Peer, Ticket,
};

pub(crate) struct BareCodec;

struct BareConnection(Peer);

impl Codec for BareCodec {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(Ordering::Ordered);
        capabilities.reply_needs_request = true;
        capabilities.reply_mutation = MutationSupport::Headers;
        capabilities
    }

    fn connect(&self, peer: Peer, _: &Limits) -> Box<dyn Connection> {
        Box::new(BareConnection(peer))
    }
}

pub(crate) fn call(reply: u8, method: &str) -> Vec<u8> {
    [&[reply, method.len() as u8], method.as_bytes()].concat()
}

fn note<'b>(block: &'b [u8], _: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    visit(b"note", block);
}

impl Connection for BareConnection {
    fn decode<'a>(&'a mut self, buf: &'a [u8], in_flight: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let length = match (self.0, buf) {
            (Peer::Client, [_, method, ..]) => 2 + usize::from(*method),
            (Peer::Client, _) => return Ok(Decoded::Incomplete { needed: 2 - buf.len() }),
            (Peer::Server, _) => {
                let request = in_flight.oldest().ok_or(DecodeError::malformed("nobody asked", 0))?;
                usize::from(request.context()[0])
            }
        };
        let Some(bytes) = buf.get(..length) else {
            return Ok(Decoded::Incomplete { needed: length - buf.len() });
        };
        let (kind, metadata, context) = match self.0 {
            Peer::Client => (FrameKind::Request, Metadata::new(b"", &bytes[2..]), bytes),
            Peer::Server => {
                let outcome = if bytes.first() == Some(&0) { Outcome::Ok } else { Outcome::Exception };
                let block = bytes.last_chunk::<1>().map_or(&[][..], |last| last);
                (FrameKind::Response(outcome), Metadata::EMPTY.with_headers(block, Marks::default(), note), &[][..])
            }
        };
        Ok(Decoded::Frame(Frame { bytes, kind, id: 0, metadata, context }))
    }

    fn rewrite_reply(
        &mut self,
        request: &Ticket,
        frame: &[u8],
        mutation: &Mutation,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let (Some(Change::Set(_, value)), [_, _, method @ ..]) = (mutation.get(b"note"), request.context()) else {
            return Err(EncodeError::Unsupported("no place for it"));
        };
        let ([.., _], b"open") = (frame, method) else { return Err(EncodeError::Unsupported("not open")) };
        out.extend(&frame[..frame.len() - 1]);
        out.extend(&value[..1]);
        Ok(())
    }

    fn error_reply(&mut self, request: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let text = [&[1], failure.kind.as_str().as_bytes(), &[b' '; 255]].concat();
        out.extend(&text[..usize::from(request.context()[0])]);
        Ok(())
    }

    fn reset(&mut self) {}
}
