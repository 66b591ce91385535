//! Requests on their way to the HTTP connection manager, and what it answers.

use std::sync::Arc;

use core::time::Duration;

use meltemi_core::{Connection, Decoded, FailureKind, Frame, FrameKind, NothingInFlight, Ordering, Rejected, Ticket};

use super::{
    InletShared, InletStats,
    calls::{Calls, Done},
    reply::Replies,
    request::RequestHead,
};
use crate::{
    buffer::{Progress, decode},
    clock::Clock,
    close::Close,
    h2,
    outlet::of_decode_error,
};

/// Everything but the client's decoder, which lends frames while the rest works on them.
pub(super) struct Flow {
    pub(super) shared: Arc<InletShared>,
    pub(super) authority: Vec<u8>,
    /// Opened with the first request: an idle connection costs no HTTP/2 state.
    pub(super) h2: Option<h2::Connection>,
    pub(super) nothing: Vec<u8>,
    pub(super) head: RequestHead,
    pub(super) calls: Calls,
    pub(super) replies: Replies,
    pub(super) to_client: Vec<u8>,
    pub(super) stats: InletStats,
    pub(super) durations: Vec<Duration>,
    pub(super) client_writable: bool,
    /// No more requests will come, or be read: close when the last call has its reply.
    pub(super) finishing: bool,
    /// HCM will go away: the client was told, or is closed when it waits for nothing.
    pub(super) draining: bool,
    /// HCM takes no more requests: those that still come are refused, and the connection closed when none is left.
    pub(super) refusing: bool,
    /// HCM is not there any more.
    pub(super) hcm_gone: bool,
    pub(super) close: Option<Close>,
}

impl Flow {
    pub(super) fn new(shared: Arc<InletShared>, authority: &[u8]) -> Self {
        Self {
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
        }
    }

    /// Decodes the frame at the start of `data`, if there is room for it: how much of `data` it took.
    pub(super) fn decode_one(
        &mut self,
        now: &dyn Clock,
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
                self.stats.count_decode_error(rejected.error.fault());
                // Nothing else wants an answer.
                if matches!(ticket.kind, FrameKind::Request | FrameKind::StreamOpen) {
                    self.refuse(now, ticket, kind);
                }
                self.finishing |= is_last;
                Some(there)
            }
            Err(error) => {
                // Where the next frame starts is not known: answer what is in flight, then close.
                self.stats.count_decode_error(error.fault());
                self.finishing = true;
                None
            }
        }
    }

    pub(super) fn has_room(&self) -> bool {
        let unsent = self.h2.as_ref().map_or(0, h2::Connection::unsent);
        let room = self.client_writable
            && self.calls.len() < self.shared.max_in_flight
            && self.calls.asked_bytes() <= MAX_ASKED
            && self.calls.waiting_bytes() <= MAX_WAITING
            && unsent < MAX_UNSENT;
        // Without HCM nothing more is read, and what there is can be answered at once.
        room || self.hcm_gone
    }

    /// Takes a frame; gives back its ticket if it is to be answered by us at once.
    fn on_frame(&mut self, now: &dyn Clock, frame: &Frame<'_>) -> Option<Ticket> {
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
    fn open(&mut self, now: &dyn Clock, frame: &Frame<'_>) -> Result<(), FailureKind> {
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
        self.calls.push(stream, frame.ticket(), now.now(), frame.bytes.len());
        self.stats.in_flight = self.stats.in_flight.saturating_add(1);
        Ok(())
    }

    /// Answers a request with an error of our own, in its turn.
    fn refuse(&mut self, now: &dyn Clock, ticket: Ticket, kind: FailureKind) {
        self.calls.push_done(ticket, now.now(), Done::Failed(kind), b"");
        self.stats.in_flight = self.stats.in_flight.saturating_add(1);
    }

    /// Answers a heartbeat: at once, or in its turn where replies are ordered.
    fn answer_heartbeat(&mut self, now: &dyn Clock, client: &mut dyn Connection, heartbeat: Ticket) {
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
            self.calls.push_done(heartbeat, now.now(), Done::Ready, &reply);
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

    pub(super) fn read_hcm(&mut self, client: &mut dyn Connection, data: &[u8]) {
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

    pub(super) fn signals(&self) -> bool {
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
    pub(super) fn lose_hcm(&mut self, kind: FailureKind) {
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
    pub(super) fn write_replies(&mut self, now: &dyn Clock, client: &mut dyn Connection) {
        let ordering = self.ordering(client);
        while let Some(mut call) = self.calls.next_ready(ordering) {
            let start = self.to_client.len();
            self.replies.write(&mut call, client, &self.shared.pass, &mut self.to_client, &mut self.stats);
            self.count_out(start);
            self.stats.in_flight = self.stats.in_flight.saturating_sub(1);
            self.durations.push(now.now().saturating_sub(call.started));
            self.calls.recycle(call);
        }
    }
}

/// Request bytes of calls without a reply before we stop reading the client: Envoy may hold them all, for a server that
/// takes none or to ask another one. One call is always let through, however large.
const MAX_ASKED: usize = 32 * 1024 * 1024;

/// Request bytes that may wait for HTTP/2 windows before we stop reading the client.
const MAX_UNSENT: usize = 256 * 1024;

/// Reply bytes that may wait for their turn before we stop reading the client. Replies are not kept back in HCM by windows:
/// each is whole when it gets there, so that would save no memory, and Envoy would give upstream connections back to their
/// pool unread (see `initial_window`).
const MAX_WAITING: usize = 2 * 1024 * 1024;
