//! What the client sends: routed, checked, changed, sent on or answered.

use std::sync::Arc;

use core::time::Duration;

use meltemi_core::{
    Connection, Decoded, EncodeError, Failure, FailureKind, Frame, FrameKind, Metadata, NothingInFlight, Ordering,
    Peer, Rejected, Ticket,
};

use super::{
    RelayShared,
    calls::{Call, Calls},
};
use crate::{
    buffer::{Progress, decode},
    close::Close,
    inlet::{InletStats, describe},
    outlet::of_decode_error,
    route::Route,
};

/// Everything but the decoders, which lend frames while the rest works on them.
pub(super) struct Flow {
    pub(super) shared: Arc<RelayShared>,
    random: u64,
    pub(super) cluster: Option<String>,
    /// Of the call that chose the cluster.
    pub(super) service: Vec<u8>,
    pub(super) method: Vec<u8>,
    pub(super) calls: Calls,
    /// Streams that the server was never told of: what belongs to them is dropped.
    refused_streams: Vec<u64>,
    pub(super) to_client: Vec<u8>,
    pub(super) to_server: Vec<u8>,
    pub(super) stats: InletStats,
    pub(super) durations: Vec<Duration>,
    pub(super) client_writable: bool,
    /// There is room for all that comes.
    pub(super) takes_all: bool,
    /// The client sends no more.
    pub(super) client_ended: bool,
    /// All that it sent was dealt with: the server may be told that no more comes.
    pub(super) sending_ended: bool,
    /// Nothing of the server is read any more. Requests that it did not get are answered with an error.
    pub(super) server_gone: bool,
    /// No more is read: close when everything is answered.
    pub(super) finishing: bool,
    /// When the server was last sent something.
    pub(super) last_sent: Duration,
    /// The id of a heartbeat of ours whose answer is not for the client.
    pub(super) own_heartbeat: Option<u64>,
    pub(super) close: Option<Close>,
}

/// What becomes of a frame of the client.
enum Verdict {
    /// It goes on, by this route if it was routed; the first one says where to.
    Send { route: Option<usize>, cluster: Option<String> },
    /// It is answered here.
    Refuse(FailureKind),
    /// The same, without an error.
    Heartbeat,
    /// It goes nowhere.
    Drop,
}

impl Flow {
    pub(super) fn new(shared: Arc<RelayShared>, random: u64) -> Self {
        Self {
            shared,
            random: random | 1,
            cluster: None,
            service: Vec::new(),
            method: Vec::new(),
            calls: Calls::default(),
            refused_streams: Vec::new(),
            to_client: Vec::new(),
            to_server: Vec::new(),
            stats: InletStats::default(),
            durations: Vec::new(),
            client_writable: true,
            takes_all: false,
            client_ended: false,
            sending_ended: false,
            server_gone: false,
            finishing: false,
            last_sent: Duration::ZERO,
            own_heartbeat: None,
            close: None,
        }
    }

    /// A frame of the client may be taken. When the server is gone, what there is of them is answered at once: no more
    /// will be read.
    pub(super) fn has_room(&self) -> bool {
        self.server_gone || self.takes_all || (self.client_writable && self.calls.len() < self.shared.max_in_flight)
    }

    pub(super) fn ordering(&self, client: &dyn Connection) -> Ordering {
        client.ordering().unwrap_or(self.shared.ordering)
    }

    /// Takes the client's next frame, if there is room for it: how much of `data` it took.
    pub(super) fn client_frame(
        &mut self,
        now: Duration,
        client: &mut dyn Connection,
        progress: &mut Progress,
        data: &[u8],
    ) -> Option<usize> {
        if self.finishing || !self.has_room() || !progress.is_worth_trying(data.len()) {
            return None;
        }
        let (ticket, verdict, length) = match decode(client, data, &NothingInFlight) {
            Ok(Decoded::Incomplete { needed }) => {
                progress.want(data.len(), needed);
                return None;
            }
            Ok(Decoded::Frame(frame)) => (frame.ticket(), self.judge(now, &frame), frame.bytes.len()),
            Ok(Decoded::Rejected(rejected)) => {
                let there = usize::try_from(rejected.length).unwrap_or(usize::MAX).min(data.len());
                progress.reject(rejected.length, there);
                self.finishing |= rejected.length == Rejected::NO_END;
                self.stats.count_decode_error(rejected.error.fault());
                (rejected.ticket(), Verdict::Refuse(of_decode_error(rejected.error.kind)), there)
            }
            Err(error) => {
                self.stats.count_decode_error(error.fault());
                self.finishing = true;
                return None;
            }
        };
        progress.next_frame();
        match verdict {
            Verdict::Send { route, cluster } => {
                self.send(now, client, ticket, route, cluster, data.get(..length).unwrap_or_default());
            }
            Verdict::Refuse(kind) => self.refuse(now, client, ticket, kind),
            Verdict::Heartbeat => self.answer_heartbeat(now, client, ticket),
            Verdict::Drop => {}
        }
        Some(length)
    }

    /// Decides about a frame.
    fn judge(&mut self, now: Duration, frame: &Frame<'_>) -> Verdict {
        let counter = match frame.kind {
            FrameKind::Request | FrameKind::StreamOpen => &mut self.stats.requests,
            FrameKind::OneWay => &mut self.stats.one_way,
            // Nobody to ask: we are there.
            FrameKind::Heartbeat if self.cluster.is_none() || self.server_gone => return Verdict::Heartbeat,
            _ if self.server_gone || self.is_of_refused_stream(frame) => return Verdict::Drop,
            // The route was chosen by an earlier frame.
            _ if self.cluster.is_some() => return Verdict::Send { route: None, cluster: None },
            // What cannot be routed by what it says, such as a handshake, takes the route that asks for nothing.
            _ => {
                return match self.shared.routes.catch_all() {
                    Some(index) => self.route(now, index, &Metadata::EMPTY),
                    None => Verdict::Refuse(FailureKind::NoRoute),
                };
            }
        };
        *counter = counter.saturating_add(1);
        if self.server_gone {
            return Verdict::Refuse(FailureKind::UpstreamReset);
        }
        match self.shared.routes.find(&frame.metadata) {
            Some(index) => self.route(now, index, &frame.metadata),
            None => Verdict::Refuse(FailureKind::NoRoute),
        }
    }

    /// What a route says.
    fn route(&mut self, now: Duration, index: usize, metadata: &Metadata<'_>) -> Verdict {
        let shared = self.shared.clone();
        let Some(route) = shared.routes.get(index) else { return Verdict::Refuse(FailureKind::NoRoute) };
        if let Some(kind) = self.check(now, route) {
            return Verdict::Refuse(kind);
        }
        let mut cluster = None;
        if self.cluster.is_none() {
            let random = self.next_random();
            cluster = route.cluster(metadata, random).map(str::to_owned);
            if cluster.is_none() {
                return Verdict::Refuse(FailureKind::NoCluster);
            }
            self.service = metadata.service.to_vec();
            self.method = metadata.method.to_vec();
        }
        Verdict::Send { route: Some(index), cluster }
    }

    fn check(&mut self, now: Duration, route: &Route) -> Option<FailureKind> {
        if route.deny {
            return Some(FailureKind::Denied);
        }
        if route.aborts(self.next_random()) {
            return Some(FailureKind::Aborted);
        }
        (!route.admits(now)).then_some(FailureKind::RateLimited)
    }

    /// Xorshift: chance enough for weights, and the host's own seed.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn is_of_refused_stream(&mut self, frame: &Frame<'_>) -> bool {
        if !matches!(frame.kind, FrameKind::StreamData | FrameKind::StreamClose) {
            return false;
        }
        let Some(index) = self.refused_streams.iter().position(|id| *id == frame.id) else { return false };
        if frame.kind == FrameKind::StreamClose {
            self.refused_streams.remove(index);
        }
        true
    }

    /// Sends a frame on, with the changes of its route.
    fn send(
        &mut self,
        now: Duration,
        client: &mut dyn Connection,
        ticket: Ticket,
        route: Option<usize>,
        cluster: Option<String>,
        frame: &[u8],
    ) {
        let shared = self.shared.clone();
        let start = self.to_server.len();
        let mutation = route.and_then(|index| shared.routes.get(index)).map(|route| &route.request_mutation);
        let result = match mutation.filter(|mutation| !mutation.is_empty()) {
            Some(mutation) => client.rewrite(frame, mutation, None, &mut self.to_server),
            None => Err(EncodeError::Unsupported("nothing to change")),
        };
        match result {
            Ok(()) => {}
            // This frame has no place for headers: it goes as it is.
            Err(EncodeError::Unsupported(_)) => {
                self.to_server.truncate(start);
                self.to_server.extend_from_slice(frame);
            }
            // Sent without the change, it would not be what the route promises its servers.
            Err(error) => {
                self.to_server.truncate(start);
                let too_large = matches!(error, EncodeError::TooLarge(_));
                let kind = if too_large { FailureKind::TooLarge } else { FailureKind::Malformed };
                return self.refuse(now, client, ticket, kind);
            }
        }
        self.cluster = cluster.or(self.cluster.take());
        self.last_sent = now;
        let waits = match ticket.kind {
            FrameKind::Request | FrameKind::StreamOpen => true,
            // Its answer has its turn between the replies.
            FrameKind::Heartbeat => self.ordering(client) == Ordering::Ordered,
            _ => false,
        };
        if waits {
            self.push(Call { ticket, route, started: now, reply: None, ours: false });
        }
    }

    fn push(&mut self, call: Call) {
        self.stats.in_flight = self.stats.in_flight.saturating_add(1);
        self.calls.push(call);
    }

    /// Answers a heartbeat, in its turn.
    fn answer_heartbeat(&mut self, now: Duration, client: &mut dyn Connection, heartbeat: Ticket) {
        self.stats.heartbeats = self.stats.heartbeats.saturating_add(1);
        let mut reply = Vec::new();
        // A codec that reports heartbeats can answer them.
        if client.heartbeat_reply(&heartbeat, &mut reply).is_ok() {
            self.push(Call { ticket: heartbeat, route: None, started: now, reply: Some(reply), ours: false });
            self.write_ready(now, self.ordering(client));
        }
    }

    /// Sends a heartbeat of our own.
    pub(super) fn beat(&mut self, now: Duration, client: &dyn Connection, server: &mut dyn Connection) {
        let start = self.to_server.len();
        if server.heartbeat(&mut self.to_server).is_err() {
            return self.to_server.truncate(start);
        }
        self.last_sent = now;
        // Read by itself: the client's own decoder may be in the middle of a frame.
        let mut reader = self.shared.codec.connect(Peer::Client, &self.shared.limits);
        let written = self.to_server.get(start..).unwrap_or_default();
        let Ok(Decoded::Frame(frame)) = decode(reader.as_mut(), written, &NothingInFlight) else { return };
        let ticket = frame.ticket();
        self.own_heartbeat = Some(ticket.id);
        if self.ordering(client) == Ordering::Ordered {
            self.push(Call { ticket, route: None, started: now, reply: None, ours: true });
        }
    }

    /// Answers a request with an error of our own, in its turn.
    fn refuse(&mut self, now: Duration, client: &mut dyn Connection, ticket: Ticket, kind: FailureKind) {
        self.stats.count_error(kind);
        match ticket.kind {
            FrameKind::Request => {}
            FrameKind::StreamOpen => {
                if self.refused_streams.len() >= self.shared.max_in_flight {
                    self.refused_streams.remove(0);
                }
                self.refused_streams.push(ticket.id);
            }
            // A one-way call wants no answer.
            FrameKind::OneWay => return,
            // Others have none, and what follows them would make no sense without them.
            _ if self.cluster.is_none() => return self.finishing = true,
            _ => return,
        }
        let reply = self.error_reply(client, &ticket, kind);
        self.push(Call { ticket, route: None, started: now, reply: Some(reply), ours: false });
        self.write_ready(now, self.ordering(client));
    }

    pub(super) fn error_reply(&self, client: &mut dyn Connection, ticket: &Ticket, kind: FailureKind) -> Vec<u8> {
        let mut reply = Vec::new();
        // A codec that cannot say it leaves the client without an answer, but not out of step.
        if client.error_reply(ticket, &Failure { kind, message: describe(kind) }, &mut reply).is_err() {
            reply.clear();
        }
        reply
    }

    /// Writes our own replies whose turn it is.
    pub(super) fn write_ready(&mut self, now: Duration, ordering: Ordering) {
        while let Some(call) = self.calls.take_ready(ordering) {
            let start = self.to_client.len();
            self.to_client.extend_from_slice(call.reply.as_deref().unwrap_or_default());
            self.count_out(start);
            self.ended(now, &call);
        }
    }

    pub(super) fn ended(&mut self, now: Duration, call: &Call) {
        self.stats.in_flight = self.stats.in_flight.saturating_sub(1);
        if call.ticket.kind != FrameKind::Heartbeat {
            self.durations.push(now.saturating_sub(call.started));
        }
    }

    /// Counts the calls whose reply the server owes, where nobody can be answered.
    pub(super) fn count_lost(&mut self) {
        let asked = |call: &&mut Call| matches!(call.ticket.kind, FrameKind::Request | FrameKind::StreamOpen);
        for _ in 0..self.calls.sent().filter(asked).count() {
            self.stats.count_error(FailureKind::UpstreamReset);
        }
    }

    pub(super) fn count_out(&mut self, start: usize) {
        let written = self.to_client.len().saturating_sub(start) as u64;
        self.stats.bytes_out = self.stats.bytes_out.saturating_add(written);
    }

    pub(super) fn close_if_finished(&mut self) {
        if self.finishing && self.calls.is_empty() {
            self.close = Some(Close::Flush);
        }
    }
}
