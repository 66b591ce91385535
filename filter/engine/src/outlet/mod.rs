//! Outlet: the HTTP request that the router sends becomes the frame again that the client sent, and the server's reply
//! becomes an HTTP response.
//!
//! One outlet serves one request, over a connection that nobody else uses meanwhile.

mod response;

use std::sync::Arc;

use meltemi_core::{
    Codec, Connection, DecodeErrorKind, Decoded, EncodeError, FailureKind, FrameKind, Limits, Mutation,
    MutationSupport, NothingInFlight, Outcome, Peer, Ticket,
};

use self::response::Built;
pub use self::response::Response;
pub(crate) use self::response::decimal;
use crate::{
    buffer::{self, decode},
    config::{ConfigError, OutletConfig},
    h2,
    http::{HeaderSource, HeaderStore, PassHeaders, candidates, diff, represent},
};

/// Bytes that a socket takes at once. Envoy closes the connection of a one-way call when it is answered, which is before
/// its request has formally ended, and sends what fits on the way out. Larger ones are answered when the server closes.
const AT_ONCE: usize = 8 * 1024;

/// What all outlets of a cluster share.
pub struct OutletShared {
    codec: Box<dyn Codec>,
    limits: Limits,
    pass: PassHeaders,
}

impl OutletShared {
    /// Puts a configuration and its codec together.
    ///
    /// # Errors
    /// If the codec's connections carry state between calls: such a protocol cannot be spread over servers.
    pub fn new(config: &OutletConfig, codec: Box<dyn Codec>) -> Result<Self, ConfigError> {
        request_mode_or_error(codec.as_ref())?;
        Ok(Self { codec, limits: Limits::from(&config.limits), pass: PassHeaders::new(&config.pass_headers)? })
    }

    /// Windows into which a whole frame fits.
    pub(crate) fn windows(&self) -> h2::Settings {
        h2::Settings::of_frames(self.limits.max_frame)
    }
}

/// Refuses protocols that only work in connection mode.
pub(crate) fn request_mode_or_error(codec: &dyn Codec) -> Result<(), ConfigError> {
    let capabilities = codec.capabilities();
    let name = codec.name();
    if capabilities.streaming {
        return Err(ConfigError(format!(
            "field `codec.name`: calls of `{name}` may have more than one frame in a direction; use it in connection mode (filter `relay`)"
        )));
    }
    if capabilities.session || capabilities.server_first {
        return Err(ConfigError(format!(
            "field `codec.name`: `{name}` keeps state between calls of a connection; use it in connection mode (filter `relay`)"
        )));
    }
    Ok(())
}

/// Sans-IO engine of the upstream bridge: one request, one reply.
pub struct Outlet {
    shared: Arc<OutletShared>,
    /// Reads the request as the client wrote it.
    client: Box<dyn Connection>,
    /// Reads the reply and writes what a client writes.
    server: Box<dyn Connection>,
    state: State,
    /// Request headers that stand for metadata.
    headers: HeaderStore,
    mutation: Mutation,
    /// The request, as long as it is not whole.
    request: Vec<u8>,
    /// What came from the server.
    reply: Vec<u8>,
    wanted: usize,
    /// The server said that it is going away.
    server_drains: bool,
    /// The server said something, or closed, before it was asked.
    out_of_step: bool,
    to_server: Vec<u8>,
    built: Built,
}

enum State {
    /// Until the request is whole.
    Request,
    /// Until the reply is whole.
    Reply(Ticket),
    /// Until the server has closed, and so has read all of a large one-way call.
    Delivery,
    Done,
}

impl Outlet {
    /// An outlet for the first request.
    pub fn new(shared: Arc<OutletShared>) -> Self {
        let connect = |peer| shared.codec.connect(peer, &shared.limits);
        Self {
            client: connect(Peer::Client),
            server: connect(Peer::Server),
            state: State::Request,
            headers: HeaderStore::new(),
            mutation: Mutation::new(),
            request: Vec::new(),
            reply: Vec::new(),
            wanted: 1,
            server_drains: false,
            out_of_step: false,
            to_server: Vec::new(),
            built: Built::default(),
            shared,
        }
    }

    /// Makes the outlet ready for another request, with the memory it has.
    pub fn reset(&mut self) {
        self.client.reset();
        self.server.reset();
        self.state = State::Request;
        self.headers.clear();
        self.mutation.clear();
        buffer::release(&mut self.request);
        buffer::release(&mut self.reply);
        buffer::release(&mut self.to_server);
        self.wanted = 1;
        self.server_drains = false;
        self.out_of_step = false;
        self.built.clear();
    }

    /// The request's headers, before its body.
    pub fn on_request_headers(&mut self, headers: &dyn HeaderSource) {
        if self.shared.codec.capabilities().request_mutation != MutationSupport::None {
            candidates(headers, &self.shared.pass, &mut self.headers);
        }
    }

    /// The request's body: one frame, maybe in pieces.
    pub fn on_request_data(&mut self, data: &[u8], end: bool) {
        if !matches!(self.state, State::Request) {
            return;
        }
        if self.request.len().saturating_add(data.len()) > self.shared.limits.max_frame.saturating_add(64) {
            return self.fail(FailureKind::TooLarge, false);
        }
        match (end, self.request.is_empty()) {
            (true, true) => self.send(data),
            (true, false) => {
                let mut request = core::mem::take(&mut self.request);
                request.extend_from_slice(data);
                self.send(&request);
                self.request = request;
                buffer::release(&mut self.request);
            }
            (false, _) => self.request.extend_from_slice(data),
        }
    }

    /// Bytes from the server; `end` if it sends no more.
    pub fn on_server_data(&mut self, data: &[u8], end: bool) {
        // It must not be taken for the reply to a request that is not sent yet.
        self.out_of_step |= matches!(self.state, State::Request) && (end || !data.is_empty());
        if matches!(self.state, State::Delivery) && end {
            self.state = State::Done;
            self.built.frame(Outcome::Ok, 0..0, false);
        }
        if !matches!(self.state, State::Reply(_)) {
            return;
        }
        self.reply.extend_from_slice(data);
        if self.reply.len() >= self.wanted {
            self.read_reply();
        }
        if end && matches!(self.state, State::Reply(_)) {
            self.fail(FailureKind::UpstreamReset, true);
        }
    }

    /// Bytes for the server; the host takes and clears them, or says that they are [`sent`](Self::sent).
    pub fn to_server(&mut self) -> &mut Vec<u8> {
        &mut self.to_server
    }

    /// The server has got what was to be sent: nothing is kept of it while its reply is awaited.
    pub fn sent(&mut self) {
        buffer::release(&mut self.to_server);
    }

    /// No more will be sent: the host closes its side of the connection behind [`to_server`](Self::to_server).
    pub fn ends_sending(&self) -> bool {
        matches!(self.state, State::Delivery)
    }

    /// Has the response that is complete, if one is, give up the connection: for hosts that know a reason which the reply
    /// does not show.
    pub fn retire(&mut self) {
        self.built.retire();
    }

    /// The response, once it is complete: given once.
    pub fn response(&mut self) -> Option<Response<'_>> {
        self.built.take(&self.reply)
    }

    /// Decodes the whole request, applies what routes and filters changed, hands it to the server.
    fn send(&mut self, request: &[u8]) {
        if self.out_of_step {
            return self.fail(FailureKind::UpstreamReset, true);
        }
        let frame = match decode(self.client.as_mut(), request, &NothingInFlight) {
            Ok(Decoded::Frame(frame)) if frame.bytes.len() == request.len() => frame,
            Ok(Decoded::Rejected(rejected)) => {
                let kind = of_decode_error(rejected.error.kind);
                return self.fail(kind, false);
            }
            // Not what the inlet let through: somebody changed the body on the way.
            _ => return self.fail(FailureKind::Malformed, false),
        };
        let ticket = frame.ticket();
        if self.shared.codec.capabilities().request_mutation != MutationSupport::None {
            diff(&frame.metadata, &mut self.headers, &self.shared.pass, &mut self.mutation);
        }
        if self.mutation.is_empty() {
            self.to_server.extend_from_slice(request);
        } else {
            match self.client.rewrite(request, &self.mutation, None, &mut self.to_server) {
                Ok(()) => {}
                // This frame has no place for headers: it goes as it is.
                Err(EncodeError::Unsupported(_)) => self.to_server.extend_from_slice(request),
                Err(EncodeError::TooLarge(_)) => return self.fail(FailureKind::TooLarge, false),
                Err(_) => return self.fail(FailureKind::Malformed, false),
            }
        }
        if ticket.kind == FrameKind::OneWay && self.to_server.len() > AT_ONCE {
            self.state = State::Delivery;
        } else if ticket.kind == FrameKind::OneWay {
            self.state = State::Done;
            self.built.frame(Outcome::Ok, 0..0, false);
        } else {
            self.state = State::Reply(ticket);
        }
    }

    fn read_reply(&mut self) {
        let mut start = 0usize;
        while let State::Reply(ticket) = &self.state {
            let Some(rest) = self.reply.get(start..).filter(|rest| !rest.is_empty()) else { break };
            let frame = match decode(self.server.as_mut(), rest, ticket) {
                Ok(Decoded::Incomplete { needed }) => {
                    self.wanted = self.reply.len().saturating_sub(start).saturating_add(needed.max(1));
                    break;
                }
                Ok(Decoded::Frame(frame)) => frame,
                Ok(Decoded::Rejected(_)) | Err(_) => return self.fail(FailureKind::BadReply, true),
            };
            let end = start.saturating_add(frame.bytes.len());
            match frame.kind {
                FrameKind::Response(outcome) if frame.id == ticket.id => {
                    represent(&frame.metadata, &self.shared.pass, self.built.headers());
                    self.built.cap_headers();
                    // Bytes behind the reply were not asked for: the connection is out of step.
                    let retire = end != self.reply.len() || self.server_drains;
                    self.built.frame(outcome, start..end, retire);
                    self.state = State::Done;
                }
                // Somebody else's reply: nothing on this connection can be trusted.
                FrameKind::Response(_) => return self.fail(FailureKind::BadReply, true),
                FrameKind::Heartbeat => {
                    let heartbeat = frame.ticket();
                    // A server whose heartbeat cannot be answered will find out by itself.
                    let _ = self.server.heartbeat_reply(&heartbeat, &mut self.to_server);
                }
                FrameKind::Drain => self.server_drains = true,
                _ => {}
            }
            start = end;
            self.wanted = 1;
        }
        if matches!(self.state, State::Reply(_)) && start > 0 {
            self.reply.drain(..start);
        }
    }

    /// Answers with a failure of our own. `retire`: the connection is not to be used again.
    fn fail(&mut self, kind: FailureKind, retire: bool) {
        self.state = State::Done;
        self.built.failure(kind, retire);
    }
}

/// What a frame that was not taken means to the one who sent it.
pub(crate) const fn of_decode_error(kind: DecodeErrorKind) -> FailureKind {
    match kind {
        DecodeErrorKind::TooLarge | DecodeErrorKind::TooDeep => FailureKind::TooLarge,
        _ => FailureKind::Malformed,
    }
}

#[cfg(test)]
mod tests;
