//! Inlet: every request frame of a client becomes an HTTP/2 request to the HTTP connection manager behind us, and every
//! response becomes the protocol's reply.
//!
//! Requests are answered exactly once: with the server's reply, or with the protocol's own error.

mod calls;
mod reply;
mod request;
mod stats;

use std::sync::Arc;

use core::time::Duration;

use meltemi_core::{
    Codec, Connection, Decoded, FailureKind, Frame, FrameKind, Limits, NothingInFlight, Ordering, Peer, Rejected,
    Ticket,
};

pub(crate) use self::reply::describe;
pub use self::stats::InletStats;
use self::{
    calls::{Calls, Done},
    reply::Replies,
    request::RequestHead,
};
use crate::{
    buffer::{Pending, Progress, decode},
    close::Close,
    config::{ConfigError, Destination, InletConfig},
    h2,
    http::PassHeaders,
    outlet::{of_decode_error, request_mode_or_error},
};

/// Request bytes that may wait for HTTP/2 windows before we stop reading the client.
const MAX_UNSENT: usize = 256 * 1024;

/// Reply bytes that may wait for their turn before we stop reading the client. Replies are not kept back in HCM by windows:
/// each is whole when it gets there, so that would save no memory, and Envoy would give upstream connections back to their
/// pool unread (see `initial_window`).
const MAX_WAITING: usize = 2 * 1024 * 1024;

/// The largest window there is in HTTP/2.
const MAX_WINDOW: u32 = 0x7fff_ffff;

/// What all inlets of a listener share.
pub struct InletShared {
    codec: Box<dyn Codec>,
    limits: Limits,
    ordering: Ordering,
    authority: Option<String>,
    destinations: Vec<Destination>,
    max_in_flight: usize,
    pass: PassHeaders,
    h2: h2::Settings,
}

impl InletShared {
    /// Puts a configuration and its codec together.
    ///
    /// # Errors
    /// If the codec's connections carry state between calls: such a protocol cannot be routed call by call.
    pub fn new(config: &InletConfig, codec: Box<dyn Codec>) -> Result<Self, ConfigError> {
        request_mode_or_error(codec.as_ref())?;
        let limits = Limits::from(&config.limits);
        // A whole reply fits the stream's window, and all of them the connection's: HCM must never have to wait for us with
        // the end of a response. Envoy would give the upstream connection back to its pool with reading switched off,
        // and the next request on it would hang. What bounds memory is `max_in_flight` and `MAX_WAITING`.
        let window = config.limits.max_frame_bytes.saturating_add(64 * 1024).min(MAX_WINDOW);
        Ok(Self {
            ordering: codec.capabilities().ordering,
            authority: config.authority.clone(),
            destinations: config.destinations.clone(),
            max_in_flight: usize::try_from(config.max_in_flight.max(1)).unwrap_or(usize::MAX),
            pass: PassHeaders::new(&config.pass_headers)?,
            h2: h2::Settings { initial_window: window, connection_window: MAX_WINDOW, max_header_list: 64 * 1024 },
            codec,
            limits,
        })
    }

    /// The protocol's name.
    pub fn protocol(&self) -> &'static str {
        self.codec.name()
    }

    /// As [`authority`](Self::authority) for connections whose address is no IP: ours only if all are.
    pub fn authority_without_address(&self) -> Option<String> {
        self.destinations.is_empty().then(|| self.authority.clone().unwrap_or_else(|| self.codec.name().to_owned()))
    }

    /// Whether connections to this address are ours, and if so the `:authority` of their requests.
    pub fn authority(&self, address: std::net::IpAddr, port: u16) -> Option<String> {
        let default = || self.authority.clone().unwrap_or_else(|| std::net::SocketAddr::new(address, port).to_string());
        if self.destinations.is_empty() {
            return Some(default());
        }
        let destination = self.destinations.iter().find(|destination| destination.is(address, port))?;
        Some(destination.authority.clone().unwrap_or_else(default))
    }
}

impl Destination {
    /// This is that address.
    pub fn is(&self, address: std::net::IpAddr, port: u16) -> bool {
        self.port == port && self.address.is_none_or(|own| own == address.to_canonical() || own == address)
    }
}

/// Sans-IO engine of the network filter `inlet`: one client connection.
pub struct Inlet {
    client: Box<dyn Connection>,
    pending: Pending,
    progress: Progress,
    client_ended: bool,
    flow: Flow,
}

/// Everything but the client's decoder, which lends frames while the rest works on them.
struct Flow {
    shared: Arc<InletShared>,
    authority: Vec<u8>,
    /// Opened with the first request: an idle connection costs no HTTP/2 state.
    h2: Option<h2::Connection>,
    nothing: Vec<u8>,
    head: RequestHead,
    calls: Calls,
    replies: Replies,
    to_client: Vec<u8>,
    stats: InletStats,
    durations: Vec<Duration>,
    client_writable: bool,
    /// No more requests will come, or be read: close when the last call has its reply.
    finishing: bool,
    /// HCM will go away: the client was told, or is closed when it waits for nothing.
    draining: bool,
    /// HCM takes no more requests: those that still come are refused, and the connection closed when none is left.
    refusing: bool,
    /// HCM is not there any more.
    hcm_gone: bool,
    close: Option<Close>,
}

impl Inlet {
    /// An engine for a new connection.
    pub fn new(shared: Arc<InletShared>, authority: &[u8]) -> Self {
        Self {
            client: shared.codec.connect(Peer::Client, &shared.limits),
            pending: Pending::default(),
            progress: Progress::default(),
            client_ended: false,
            flow: Flow {
                authority: authority.to_vec(),
                h2: None,
                nothing: Vec::new(),
                head: RequestHead::default(),
                calls: Calls::default(),
                replies: Replies::new(shared.codec.as_ref(), &shared.limits),
                to_client: Vec::new(),
                stats: InletStats::default(),
                durations: Vec::new(),
                client_writable: true,
                finishing: false,
                draining: false,
                refusing: false,
                hcm_gone: false,
                close: None,
                shared,
            },
        }
    }

    /// Gives the connection a name that stands in each of its requests ([`CONNECTION`](crate::names::CONNECTION)), for
    /// hosts whose outlets must know whom a reply is for.
    pub fn set_connection_name(&mut self, name: &[u8]) {
        name.clone_into(&mut self.flow.head.connection);
    }

    /// Bytes from the client, all of which are taken; `end` if it sends no more.
    pub fn on_client_data(&mut self, now: Duration, data: &[u8], end: bool) {
        let bytes = data.len() as u64;
        self.flow.stats.bytes_in = self.flow.stats.bytes_in.saturating_add(bytes);
        self.client_ended |= end;
        if !self.flow.finishing && self.flow.close.is_none() {
            self.read(now, data);
        }
        self.settle(now);
    }

    /// Bytes that the HTTP connection manager wrote towards the client; `end` if it closes.
    pub fn on_hcm_data(&mut self, now: Duration, data: &[u8], end: bool) {
        self.flow.read_hcm(self.client.as_mut(), data);
        if end {
            self.flow.lose_hcm(FailureKind::Draining);
        }
        self.settle(now);
    }

    /// The client takes bytes (`true`), or has too many waiting (`false`): then nothing is asked of servers for it.
    pub fn on_client_writable(&mut self, now: Duration, writable: bool) {
        self.flow.client_writable = writable;
        self.settle(now);
    }

    /// Bytes for HCM; the host takes and clears them after each call.
    pub fn to_hcm(&mut self) -> &mut Vec<u8> {
        match &mut self.flow.h2 {
            Some(h2) => h2.output(),
            None => &mut self.flow.nothing,
        }
    }

    /// Bytes for the client; the host takes and clears them after each call.
    pub fn to_client(&mut self) -> &mut Vec<u8> {
        &mut self.flow.to_client
    }

    /// `false`: stop reading the client until it is `true` again.
    pub fn wants_client_data(&self) -> bool {
        self.flow.has_room()
    }

    /// Set when the connection is to be closed, after everything written.
    pub fn close(&self) -> Option<Close> {
        self.flow.close
    }

    /// What happened since the last call.
    pub fn take_stats(&mut self) -> InletStats {
        core::mem::take(&mut self.flow.stats)
    }

    /// How long a finished call took, from its frame being whole to its reply being written; each is given once.
    pub fn take_duration(&mut self) -> Option<Duration> {
        self.flow.durations.pop()
    }

    /// Service and method of the last request, as header values.
    pub fn current(&self) -> (&[u8], &[u8]) {
        self.flow.head.current()
    }

    /// Decodes as much as there is room for; the rest is kept.
    fn read(&mut self, now: Duration, data: &[u8]) {
        let mut data = self.progress.without_rejected(data);
        if self.pending.is_empty() {
            while let Some(taken) = self.flow.decode_one(now, self.client.as_mut(), &mut self.progress, data) {
                data = data.get(taken..).unwrap_or_default();
            }
        }
        self.pending.append(data);
    }

    /// Decodes what is left over from earlier; whether anything came of it.
    fn read_pending(&mut self, now: Duration) -> bool {
        let mut any = false;
        while let Some(taken) =
            self.flow.decode_one(now, self.client.as_mut(), &mut self.progress, self.pending.bytes())
        {
            self.pending.consume(taken);
            any = true;
        }
        any
    }

    /// Writes what may be written, and reads on where that made room.
    fn settle(&mut self, now: Duration) {
        loop {
            self.flow.write_replies(now, self.client.as_mut());
            if !self.read_pending(now) {
                break;
            }
        }
        let flow = &mut self.flow;
        if self.client_ended && flow.has_room() && !flow.finishing {
            if !self.pending.is_empty() {
                flow.count_decode_error();
            }
            flow.finishing = true;
        }
        // Requests that are not decoded yet for want of room get their answers first.
        let done = flow.finishing
            || (flow.refusing && flow.has_room())
            // A client that cannot be told is let go between two calls, as late as possible.
            || (flow.draining && !flow.signals() && self.pending.is_empty());
        if done && flow.calls.is_empty() && flow.close.is_none() {
            flow.close = Some(Close::Flush);
        }
        if flow.finishing || flow.close.is_some() {
            self.pending.clear();
        }
    }
}

impl Flow {
    /// Decodes the frame at the start of `data`, if there is room for it: how much of `data` it took.
    fn decode_one(
        &mut self,
        now: Duration,
        client: &mut dyn Connection,
        progress: &mut Progress,
        data: &[u8],
    ) -> Option<usize> {
        if self.finishing || !self.has_room() || !progress.is_worth_trying(data.len()) {
            return None;
        }
        match decode(client, data, &NothingInFlight) {
            Ok(Decoded::Incomplete { needed }) => {
                progress.want(data.len(), needed);
                None
            }
            Ok(Decoded::Frame(frame)) => {
                let length = frame.bytes.len();
                progress.next_frame();
                if let Some(heartbeat) = self.on_frame(now, &frame) {
                    self.answer_heartbeat(now, client, heartbeat);
                }
                if self.h2.as_ref().is_some_and(h2::Connection::is_used_up) && !self.refusing {
                    // HCM cannot be asked anything on this connection any more.
                    self.announce_drain(client);
                    self.refusing = true;
                }
                Some(length)
            }
            Ok(Decoded::Rejected(rejected)) => {
                let there = usize::try_from(rejected.length).unwrap_or(usize::MAX).min(data.len());
                progress.next_frame();
                progress.reject(rejected.length, there);
                let (ticket, kind) = (rejected.ticket(), of_decode_error(rejected.error.kind));
                let is_last = rejected.length == Rejected::NO_END;
                self.count_decode_error();
                // Nothing else wants an answer.
                if matches!(ticket.kind, FrameKind::Request | FrameKind::StreamOpen) {
                    self.refuse(now, ticket, kind);
                }
                self.finishing |= is_last;
                Some(there)
            }
            Err(_) => {
                // Where the next frame starts is not known: answer what is in flight, then close.
                self.count_decode_error();
                self.finishing = true;
                None
            }
        }
    }

    fn count_decode_error(&mut self) {
        self.stats.decode_errors = self.stats.decode_errors.saturating_add(1);
    }

    fn has_room(&self) -> bool {
        let unsent = self.h2.as_ref().map_or(0, h2::Connection::unsent);
        let room = self.client_writable
            && self.calls.len() < self.shared.max_in_flight
            && self.calls.waiting_bytes() <= MAX_WAITING
            && unsent < MAX_UNSENT;
        // Without HCM nothing more is read, and what there is can be answered at once.
        room || self.hcm_gone
    }

    /// Takes a frame; gives back its ticket if it is to be answered by us at once.
    fn on_frame(&mut self, now: Duration, frame: &Frame<'_>) -> Option<Ticket> {
        match frame.kind {
            FrameKind::Request | FrameKind::OneWay => {
                let counter =
                    if frame.kind == FrameKind::OneWay { &mut self.stats.one_way } else { &mut self.stats.requests };
                *counter = counter.saturating_add(1);
                if let Err(kind) = self.open(now, frame) {
                    self.refuse(now, frame.ticket(), kind);
                }
                None
            }
            FrameKind::Heartbeat => Some(frame.ticket()),
            FrameKind::StreamOpen => {
                self.refuse(now, frame.ticket(), FailureKind::Malformed);
                None
            }
            // Nothing that a client of a request/reply protocol must be answered.
            _ => None,
        }
    }

    /// Hands a request to HCM.
    fn open(&mut self, now: Duration, frame: &Frame<'_>) -> Result<(), FailureKind> {
        if self.refusing {
            return Err(FailureKind::Draining);
        }
        self.head.read(frame, &self.shared)?;
        let h2 = self.h2.get_or_insert_with(|| h2::Connection::client(&self.shared.h2));
        if !h2.can_open() {
            return Err(FailureKind::Overflow);
        }
        let (head, authority, protocol) = (&self.head, &self.authority, self.shared.codec.name());
        let stream =
            h2.open(&mut |to| head.write(frame, protocol, authority, to), false).ok_or(FailureKind::Overflow)?;
        h2.send_data(stream, frame.bytes, true);
        self.calls.push(stream, frame.ticket(), now);
        self.stats.in_flight = self.stats.in_flight.saturating_add(1);
        Ok(())
    }

    /// Answers a request with an error of our own, in its turn.
    fn refuse(&mut self, now: Duration, ticket: Ticket, kind: FailureKind) {
        self.calls.push_done(ticket, now, Done::Failed(kind), b"");
        self.stats.in_flight = self.stats.in_flight.saturating_add(1);
    }

    /// Answers a heartbeat: at once, or in its turn where replies are ordered.
    fn answer_heartbeat(&mut self, now: Duration, client: &mut dyn Connection, heartbeat: Ticket) {
        self.stats.heartbeats = self.stats.heartbeats.saturating_add(1);
        // What was refused just now comes first.
        self.write_replies(now, client);
        let start = self.to_client.len();
        // A codec that reports heartbeats can answer them.
        if client.heartbeat_reply(&heartbeat, &mut self.to_client).is_err() {
            return self.to_client.truncate(start);
        }
        if self.ordering(client) == Ordering::Ordered && !self.calls.is_empty() {
            let reply = self.to_client.split_off(start);
            self.calls.push_done(heartbeat, now, Done::Ready, &reply);
            self.stats.in_flight = self.stats.in_flight.saturating_add(1);
        } else {
            self.count_out(start);
        }
    }

    fn ordering(&self, client: &dyn Connection) -> Ordering {
        client.ordering().unwrap_or(self.shared.ordering)
    }

    fn count_out(&mut self, start: usize) {
        let written = self.to_client.len().saturating_sub(start) as u64;
        self.stats.bytes_out = self.stats.bytes_out.saturating_add(written);
    }

    fn read_hcm(&mut self, client: &mut dyn Connection, data: &[u8]) {
        let Some(h2) = &mut self.h2 else { return };
        let mut input = data;
        let mut went_away = None;
        loop {
            let event = match h2.next_event(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => {
                    self.lose_hcm(FailureKind::Internal);
                    break;
                }
            };
            let ended = match event {
                h2::Event::GoAway { last_stream, .. } => {
                    went_away = Some(last_stream);
                    continue;
                }
                h2::Event::Headers { stream, end_stream: true, .. }
                | h2::Event::Data { stream, end_stream: true, .. }
                | h2::Event::Trailers { stream, .. } => Some(stream),
                _ => None,
            };
            let given_up = self.replies.on_event(&event, &mut self.calls, &self.shared.pass);
            // Answered before it had read our request: the rest of it is of no use, and would wait for window for ever.
            if let Some(stream) = given_up.or(ended.filter(|stream| h2.is_open(*stream))) {
                h2.reset(stream, h2::ErrorCode::Cancel);
            }
        }
        if let Some(last) = went_away {
            self.drain(client, last);
        }
    }

    fn signals(&self) -> bool {
        self.shared.codec.capabilities().drain_signal
    }

    /// Tells the client, once, to take its next calls elsewhere.
    fn announce_drain(&mut self, client: &mut dyn Connection) {
        if self.signals() && !self.draining {
            let start = self.to_client.len();
            if client.drain(&mut self.to_client).is_err() {
                self.to_client.truncate(start);
            }
            self.count_out(start);
        }
        self.draining = true;
    }

    /// HCM goes away: the first notice still lets requests through, the final one names the last it took.
    fn drain(&mut self, client: &mut dyn Connection, last: h2::StreamId) {
        self.announce_drain(client);
        for call in self.calls.open() {
            if call.stream().is_some_and(|stream| stream > last) {
                call.done = Some(Done::Failed(FailureKind::Draining));
            }
        }
        self.refusing |= last.0 < 0x7fff_ffff;
    }

    /// No more comes from HCM.
    fn lose_hcm(&mut self, kind: FailureKind) {
        self.fail_open_calls(kind);
        self.refusing = true;
        self.hcm_gone = true;
    }

    fn fail_open_calls(&mut self, kind: FailureKind) {
        for call in self.calls.open() {
            call.done = Some(Done::Failed(kind));
        }
    }

    /// Writes the replies whose turn it is.
    fn write_replies(&mut self, now: Duration, client: &mut dyn Connection) {
        let ordering = self.ordering(client);
        while let Some(mut call) = self.calls.next_ready(ordering) {
            let start = self.to_client.len();
            self.replies.write(&mut call, client, &self.shared.pass, &mut self.to_client, &mut self.stats);
            self.count_out(start);
            self.stats.in_flight = self.stats.in_flight.saturating_sub(1);
            self.durations.push(now.saturating_sub(call.started));
            self.calls.recycle(call);
        }
    }
}

#[cfg(test)]
mod tests;
