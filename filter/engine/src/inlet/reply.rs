use meltemi_core::{
    Codec, Connection, Decoded, EncodeError, Failure, FailureKind, Limits, Mutation, MutationSupport, Outcome, Peer,
};

use super::{
    calls::{Call, Calls, Done, ResponseHead},
    stats::InletStats,
};
use crate::{
    buffer::decode,
    h2::{Event, Headers, StreamId},
    http::{PassHeaders, candidates, diff, failure_kind},
    names,
};

/// Bytes of an error's text that are told to the client.
const MAX_MESSAGE: usize = 1024;

/// Turns HTTP responses into native replies.
pub(super) struct Replies {
    /// Reads and rewrites the server's frames, where the protocol's replies can be changed.
    server: Option<Box<dyn Connection>>,
    mutation: Mutation,
    max_reply: usize,
}

impl Replies {
    pub(super) fn new(codec: &dyn Codec, limits: &Limits) -> Self {
        let changes = codec.capabilities().reply_mutation != MutationSupport::None;
        Self {
            server: changes.then(|| codec.connect(Peer::Server, limits)),
            mutation: Mutation::new(),
            max_reply: limits.max_frame.saturating_add(64),
        }
    }

    /// Takes an event of a stream; gives back a stream that must be reset.
    pub(super) fn on_event(&self, event: &Event<'_>, calls: &mut Calls, pass: &PassHeaders) -> Option<StreamId> {
        match *event {
            Event::Headers { stream, headers, end_stream } => {
                let call = calls.by_stream(stream)?;
                self.read_head(headers, &mut call.head, pass);
                self.finish_if_whole(call, end_stream, stream)
            }
            Event::Data { stream, data, end_stream } => {
                let call = calls.by_stream(stream)?;
                if call.body.len().saturating_add(data.len()) > self.max_reply {
                    call.done = Some(Done::Failed(FailureKind::BadReply));
                    return Some(stream);
                }
                call.body.extend_from_slice(data);
                let reset = self.finish_if_whole(call, end_stream, stream);
                calls.add_bytes(data.len());
                reset
            }
            Event::Trailers { stream, .. } => self.finish_if_whole(calls.by_stream(stream)?, true, stream),
            Event::Reset { stream, .. } => {
                let call = calls.by_stream(stream)?;
                if call.done.is_none() {
                    call.done = Some(Done::Failed(FailureKind::UpstreamReset));
                }
                None
            }
            Event::GoAway { .. } => None,
        }
    }

    fn read_head(&self, headers: Headers<'_>, head: &mut ResponseHead, pass: &PassHeaders) {
        let status = headers.first(b":status").and_then(parse_number).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        if (100..200).contains(&status) {
            return;
        }
        head.seen = true;
        head.status = status;
        head.outcome = headers.first(names::REPLY.as_bytes()).map(outcome);
        head.retire = headers.first(names::RETIRE.as_bytes()).is_some();
        head.unshown = headers.first(names::UNSHOWN.as_bytes()).is_some();
        head.content_length = headers.first(b"content-length").and_then(parse_number);
        if head.outcome.is_none() {
            head.details.extend_from_slice(headers.first(names::DETAILS.as_bytes()).unwrap_or_default());
        } else if self.server.is_some() {
            candidates(&headers, pass, &mut head.headers);
        }
    }

    /// Ends a call whose response is whole. One whose connection is to be given up never ends by itself.
    fn finish_if_whole(&self, call: &mut Call, end_stream: bool, stream: StreamId) -> Option<StreamId> {
        if call.done.is_some() || !call.head.seen {
            return None;
        }
        let whole = call.head.content_length.is_some_and(|length| call.body.len() >= length);
        if end_stream || (call.head.retire && whole) {
            call.done = Some(Done::Response);
        }
        (call.head.retire && call.done.is_some() && !end_stream).then_some(stream)
    }

    /// Writes what the client gets for a call that has ended: one reply, or nothing for a one-way call.
    pub(super) fn write(
        &mut self,
        call: &mut Call,
        client: &mut dyn Connection,
        pass: &PassHeaders,
        out: &mut Vec<u8>,
        stats: &mut InletStats,
    ) {
        match call.done {
            Some(Done::Ready) => out.extend_from_slice(&call.body),
            Some(Done::Response) if call.head.outcome.is_some() => {
                let outcome = call.head.outcome.unwrap_or(Outcome::Ok);
                if call.is_one_way() {
                    return;
                }
                if call.body.is_empty() || !self.write_frame(call, pass, out) {
                    call.body.clear();
                    return fail(call, FailureKind::BadReply, client, out, stats);
                }
                stats.replies = stats.replies.saturating_add(1);
                match outcome {
                    Outcome::Ok => {}
                    Outcome::Exception => stats.exceptions = stats.exceptions.saturating_add(1),
                    Outcome::Failure(_) => stats.failures = stats.failures.saturating_add(1),
                }
            }
            Some(Done::Response) => {
                let kind = failure_kind(call.head.status, &call.head.details, &call.body);
                fail(call, kind, client, out, stats);
            }
            Some(Done::Failed(kind)) => {
                call.body.clear();
                fail(call, kind, client, out, stats);
            }
            None => {}
        }
    }

    /// Writes the server's frame, with what routes and filters changed in its headers; `false` if it cannot be changed so.
    fn write_frame(&mut self, call: &mut Call, pass: &PassHeaders, out: &mut Vec<u8>) -> bool {
        if let Some(server) = self.server.as_mut().filter(|_| !call.head.unshown) {
            server.reset();
            self.mutation.clear();
            let request = &call.ticket;
            if let Ok(Decoded::Frame(frame)) = decode(server.as_mut(), &call.body, request) {
                diff(&frame.metadata, &mut call.head.headers, pass, &mut self.mutation);
            }
            let start = out.len();
            if !self.mutation.is_empty() {
                match server.rewrite_reply(request, &call.body, &self.mutation, out) {
                    Ok(()) => return true,
                    // This frame has no place for headers: it goes as it is.
                    Err(EncodeError::Unsupported(_)) => out.truncate(start),
                    Err(_) => {
                        out.truncate(start);
                        return false;
                    }
                }
            }
        }
        out.extend_from_slice(&call.body);
        true
    }
}

/// Writes the protocol's own error reply.
fn fail(call: &Call, kind: FailureKind, client: &mut dyn Connection, out: &mut Vec<u8>, stats: &mut InletStats) {
    stats.count_error(kind);
    if call.is_one_way() {
        return;
    }
    let text = String::from_utf8_lossy(call.body.get(..call.body.len().min(MAX_MESSAGE)).unwrap_or_default());
    let said = one_line(&text);
    let message = if said.is_empty() { describe(kind) } else { said };
    let start = out.len();
    if client.error_reply(&call.ticket, &Failure { kind, message }, out).is_err() {
        out.truncate(start);
    }
}

/// The first line of `text`, of no more bytes than a message may have.
fn one_line(text: &str) -> &str {
    let text = text.trim();
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let line = text.split(breaks).next().unwrap_or_default();
    // What was no UTF-8 has grown.
    line.get(..line.floor_char_boundary(MAX_MESSAGE)).unwrap_or_default().trim_end()
}

/// What the client is told if nobody said more.
pub(crate) const fn describe(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::NoRoute => "meltemi: no route matches this request",
        FailureKind::NoCluster => "meltemi: the route names a cluster that does not exist",
        FailureKind::NoHealthyUpstream => "meltemi: no healthy upstream",
        FailureKind::ConnectFailure => "meltemi: could not connect to the server",
        FailureKind::UpstreamReset => "meltemi: the connection to the server was lost",
        FailureKind::Timeout => "meltemi: the server did not answer in time",
        FailureKind::Overflow => "meltemi: too many requests or connections to this service",
        FailureKind::RateLimited => "meltemi: rate limited",
        FailureKind::Aborted => "meltemi: injected fault",
        FailureKind::Denied => "meltemi: access denied",
        FailureKind::TooLarge => "meltemi: the request is too large",
        FailureKind::Malformed => "meltemi: the request could not be understood",
        FailureKind::BadReply => "meltemi: the server's reply could not be understood",
        FailureKind::Draining => "meltemi: the proxy is going away, call again on a new connection",
        FailureKind::UnknownService => "meltemi: unknown service",
        FailureKind::UnknownMethod => "meltemi: unknown method",
        FailureKind::Overloaded => "meltemi: overloaded",
        _ => "meltemi: internal error",
    }
}

/// Reads the outlet's mark.
fn outcome(mark: &[u8]) -> Outcome {
    match mark {
        b"ok" => Outcome::Ok,
        b"exception" => Outcome::Exception,
        kind => Outcome::Failure(FailureKind::from_name(kind).unwrap_or(FailureKind::Internal)),
    }
}

fn parse_number(digits: &[u8]) -> Option<usize> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(one_line("\r\n no healthy upstream \nsecret"), "no healthy upstream");
        assert_eq!(one_line("a\u{85}b"), "a");
        assert_eq!(one_line("a\u{2028}b"), "a");
        assert_eq!(one_line("a\0b"), "a");
        let text = String::from_utf8_lossy(&[0xff; MAX_MESSAGE]).into_owned();
        assert_eq!(one_line(&text).len(), 1023, "whole characters");
    }
}
