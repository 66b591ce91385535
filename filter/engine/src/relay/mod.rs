//! Relay: connection mode. The first request that finds a route picks the cluster; every message is still decoded,
//! counted, checked and changed, in both directions.

mod calls;
mod config;

use std::sync::Arc;

use core::time::Duration;

use meltemi_core::{
    Codec, Connection, Decoded, Failure, FailureKind, Frame, FrameKind, Limits, NothingInFlight, Ordering, Outcome,
    Peer, Ticket,
};

use self::calls::{Call, Calls};
pub use self::config::RelayConfig;
use crate::{
    buffer::{Pending, Progress},
    close::Close,
    config::{ConfigError, Destination},
    inlet::{InletStats, describe},
    outlet::of_decode_error,
    route::{Route, RouteTable},
};

/// What all relays of a listener share.
pub struct RelayShared {
    codec: Box<dyn Codec>,
    limits: Limits,
    ordering: Ordering,
    destinations: Vec<Destination>,
    routes: RouteTable,
    max_in_flight: usize,
}

impl RelayShared {
    /// Puts a configuration and its codec together.
    ///
    /// # Errors
    /// If a route is wrong, or the protocol's server speaks first, so that nothing could be routed by what a client
    /// says.
    pub fn new(config: &RelayConfig, codec: Box<dyn Codec>) -> Result<Self, ConfigError> {
        let capabilities = codec.capabilities();
        if capabilities.server_first {
            let name = codec.name();
            return Err(ConfigError(format!(
                "field `codec.name`: servers of `{name}` speak first: nothing can be routed"
            )));
        }
        Ok(Self {
            ordering: capabilities.ordering,
            codec,
            limits: Limits::from(&config.limits),
            destinations: config.destinations.clone(),
            routes: RouteTable::new(&config.routes)?,
            max_in_flight: usize::try_from(config.max_in_flight.max(1)).unwrap_or(usize::MAX),
        })
    }

    /// The protocol's name.
    pub fn protocol(&self) -> &'static str {
        self.codec.name()
    }

    /// Whether connections to this address are ours; `None`: the address is no IP.
    pub fn is_ours(&self, address: Option<(std::net::IpAddr, u16)>) -> bool {
        self.destinations.is_empty()
            || address.is_some_and(|(address, port)| self.destinations.iter().any(|d| d.is(address, port)))
    }
}

/// Sans-IO engine of the network filter `relay`: one client connection and the one behind it.
pub struct Relay {
    client: Box<dyn Connection>,
    server: Box<dyn Connection>,
    from_client: Pending,
    client_progress: Progress,
    from_server: Pending,
    server_progress: Progress,
    flow: Flow,
}

/// Everything but the decoders, which lend frames while the rest works on them.
struct Flow {
    shared: Arc<RelayShared>,
    random: u64,
    cluster: Option<String>,
    calls: Calls,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    stats: InletStats,
    durations: Vec<Duration>,
    /// No more is read: close when everything is answered.
    finishing: bool,
    close: Option<Close>,
}

impl Relay {
    /// An engine for a new connection. `random` decides where chance does.
    pub fn new(shared: Arc<RelayShared>, random: u64) -> Self {
        Self {
            client: shared.codec.connect(Peer::Client, &shared.limits),
            server: shared.codec.connect(Peer::Server, &shared.limits),
            from_client: Pending::default(),
            client_progress: Progress::default(),
            from_server: Pending::default(),
            server_progress: Progress::default(),
            flow: Flow {
                shared,
                random: random | 1,
                cluster: None,
                calls: Calls::default(),
                to_client: Vec::new(),
                to_server: Vec::new(),
                stats: InletStats::default(),
                durations: Vec::new(),
                finishing: false,
                close: None,
            },
        }
    }

    /// Bytes from the client, all of which are taken; `end` if it sends no more.
    pub fn on_client_data(&mut self, now: Duration, data: &[u8], end: bool) {
        self.flow.stats.bytes_in = self.flow.stats.bytes_in.saturating_add(data.len() as u64);
        let data = self.client_progress.without_rejected(data);
        self.from_client.append(data);
        self.read_client(now);
        if end && !self.from_client.is_empty() {
            self.flow.stats.decode_errors = self.flow.stats.decode_errors.saturating_add(1);
            self.from_client.clear();
        }
        self.flow.close_if_finished();
    }

    /// Bytes from the server, all of which are taken; `end` if it sends no more: what it still owes is answered here.
    pub fn on_server_data(&mut self, now: Duration, data: &[u8], end: bool) {
        let data = self.server_progress.without_rejected(data);
        self.from_server.append(data);
        while let Some(taken) = self.flow.server_frame(
            now,
            self.server.as_mut(),
            self.client.as_mut(),
            &mut self.server_progress,
            self.from_server.bytes(),
        ) {
            self.from_server.consume(taken);
        }
        // Replies made room for requests.
        self.read_client(now);
        if end {
            self.flow.fail_calls(now, self.client.as_mut(), FailureKind::UpstreamReset);
            self.flow.finishing = true;
        }
        self.flow.close_if_finished();
    }

    fn read_client(&mut self, now: Duration) {
        while let Some(taken) =
            self.flow.client_frame(now, self.client.as_mut(), &mut self.client_progress, self.from_client.bytes())
        {
            self.from_client.consume(taken);
        }
    }

    /// Where the connection goes, once that is known.
    pub fn cluster(&self) -> Option<&str> {
        self.flow.cluster.as_deref()
    }

    /// Bytes for the server; the host takes and clears them after each call, and gives them to nobody before
    /// [`cluster`](Self::cluster) is known.
    pub fn to_server(&mut self) -> &mut Vec<u8> {
        &mut self.flow.to_server
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

    /// How long a finished call took; each is given once.
    pub fn take_duration(&mut self) -> Option<Duration> {
        self.flow.durations.pop()
    }
}

impl Flow {
    fn has_room(&self) -> bool {
        self.calls.len() < self.shared.max_in_flight
    }

    fn ordering(&self, client: &dyn Connection) -> Ordering {
        client.ordering().unwrap_or(self.shared.ordering)
    }

    /// Takes the client's next frame, if there is room for it: how much of `data` it took.
    fn client_frame(
        &mut self,
        now: Duration,
        client: &mut dyn Connection,
        progress: &mut Progress,
        data: &[u8],
    ) -> Option<usize> {
        if self.finishing || !self.has_room() || !progress.is_worth_trying(data.len()) {
            return None;
        }
        let (ticket, refused, length) = match client.decode(data, &NothingInFlight) {
            Ok(Decoded::Incomplete { needed }) => {
                progress.want(data.len(), needed);
                return None;
            }
            Ok(Decoded::Frame(frame)) => {
                progress.next_frame();
                (frame.ticket(), self.on_client_frame(now, &frame), frame.bytes.len())
            }
            Ok(Decoded::Rejected(rejected)) => {
                let there = usize::try_from(rejected.length).unwrap_or(usize::MAX).min(data.len());
                progress.next_frame();
                progress.reject(rejected.length, there);
                self.stats.decode_errors = self.stats.decode_errors.saturating_add(1);
                (rejected.ticket(), Verdict::Refuse(of_decode_error(rejected.error.kind)), there)
            }
            Err(_) => {
                self.stats.decode_errors = self.stats.decode_errors.saturating_add(1);
                self.finishing = true;
                return None;
            }
        };
        match refused {
            Verdict::Pass => {}
            Verdict::Change(route) => self.change_request(client, route, data.get(..length).unwrap_or_default()),
            Verdict::Refuse(kind) => self.refuse(now, client, ticket, kind),
            Verdict::Heartbeat => self.heartbeat(client, &ticket),
        }
        Some(length)
    }

    /// Decides about a frame, and sends it on if nothing is to be changed.
    fn on_client_frame(&mut self, now: Duration, frame: &Frame<'_>) -> Verdict {
        let shared = self.shared.clone();
        let counter = match frame.kind {
            FrameKind::Request => &mut self.stats.requests,
            FrameKind::OneWay => &mut self.stats.one_way,
            // Nobody to ask yet: we are there.
            FrameKind::Heartbeat if self.cluster.is_none() => return Verdict::Heartbeat,
            _ => {
                self.to_server.extend_from_slice(frame.bytes);
                return Verdict::Pass;
            }
        };
        *counter = counter.saturating_add(1);
        let Some(index) = shared.routes.find(&frame.metadata) else { return Verdict::Refuse(FailureKind::NoRoute) };
        let Some(route) = shared.routes.get(index) else { return Verdict::Refuse(FailureKind::NoRoute) };
        if let Some(kind) = self.check(now, route) {
            return Verdict::Refuse(kind);
        }
        if self.cluster.is_none() {
            let random = self.next_random();
            self.cluster = route.cluster(&frame.metadata, random).map(str::to_owned);
        }
        if frame.kind == FrameKind::Request {
            self.calls.push(Call { ticket: frame.ticket(), route: Some(index), started: now, reply: None });
            self.stats.in_flight = self.stats.in_flight.saturating_add(1);
        }
        if !route.request_mutation.is_empty() {
            return Verdict::Change(index);
        }
        self.to_server.extend_from_slice(frame.bytes);
        Verdict::Pass
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

    fn change_request(&mut self, client: &mut dyn Connection, route: usize, frame: &[u8]) {
        let shared = self.shared.clone();
        let Some(route) = shared.routes.get(route) else { return };
        if client.rewrite(frame, &route.request_mutation, None, &mut self.to_server).is_err() {
            // This frame has no place for headers: it goes as it is.
            self.to_server.extend_from_slice(frame);
        }
    }

    fn heartbeat(&mut self, client: &mut dyn Connection, heartbeat: &Ticket) {
        self.stats.heartbeats = self.stats.heartbeats.saturating_add(1);
        let start = self.to_client.len();
        if client.heartbeat_reply(heartbeat, &mut self.to_client).is_err() {
            self.to_client.truncate(start);
        }
        self.count_out(start);
    }

    /// Answers a request with an error of our own, in its turn.
    fn refuse(&mut self, now: Duration, client: &mut dyn Connection, ticket: Ticket, kind: FailureKind) {
        self.stats.count_error(kind);
        if ticket.kind == FrameKind::OneWay {
            return;
        }
        let mut reply = Vec::new();
        // A codec that cannot say it leaves the client without an answer, but not out of step.
        let _ = client.error_reply(&ticket, &Failure { kind, message: describe(kind) }, &mut reply);
        self.stats.in_flight = self.stats.in_flight.saturating_add(1);
        self.calls.push(Call { ticket, route: None, started: now, reply: Some(reply) });
        self.write_ready(now, self.ordering(client));
    }

    /// Writes our own replies whose turn it is.
    fn write_ready(&mut self, now: Duration, ordering: Ordering) {
        while let Some(call) = self.calls.take_ready(ordering) {
            let start = self.to_client.len();
            self.to_client.extend_from_slice(call.reply.as_deref().unwrap_or_default());
            self.count_out(start);
            self.ended(now, &call);
        }
    }

    fn ended(&mut self, now: Duration, call: &Call) {
        self.stats.in_flight = self.stats.in_flight.saturating_sub(1);
        self.durations.push(now.saturating_sub(call.started));
    }

    fn count_out(&mut self, start: usize) {
        let written = self.to_client.len().saturating_sub(start) as u64;
        self.stats.bytes_out = self.stats.bytes_out.saturating_add(written);
    }

    /// Takes the server's next frame: how much of `data` it took.
    fn server_frame(
        &mut self,
        now: Duration,
        server: &mut dyn Connection,
        client: &mut dyn Connection,
        progress: &mut Progress,
        data: &[u8],
    ) -> Option<usize> {
        if !progress.is_worth_trying(data.len()) {
            return None;
        }
        let (frame_kind, id, length) = match server.decode(data, &self.calls) {
            Ok(Decoded::Incomplete { needed }) => {
                progress.want(data.len(), needed);
                return None;
            }
            Ok(Decoded::Frame(frame)) => (frame.kind, frame.id, frame.bytes.len()),
            Ok(Decoded::Rejected(_)) | Err(_) => {
                self.fail_calls(now, client, FailureKind::BadReply);
                self.finishing = true;
                return None;
            }
        };
        progress.next_frame();
        let bytes = data.get(..length).unwrap_or_default();
        let start = self.to_client.len();
        let ordering = self.ordering(client);
        let call = match frame_kind {
            FrameKind::Response(outcome) => {
                self.count_reply(outcome);
                self.calls.take_sent(ordering, id)
            }
            _ => None,
        };
        let shared = self.shared.clone();
        let mutation =
            call.as_ref().and_then(|call| shared.routes.get(call.route?)).map(|route| &route.response_mutation);
        let changed = mutation.is_some_and(|mutation| {
            !mutation.is_empty() && server.rewrite(bytes, mutation, None, &mut self.to_client).is_ok()
        });
        if !changed {
            self.to_client.extend_from_slice(bytes);
        }
        self.count_out(start);
        if let Some(call) = call {
            self.ended(now, &call);
            self.write_ready(now, ordering);
        }
        Some(length)
    }

    fn count_reply(&mut self, outcome: Outcome) {
        self.stats.replies = self.stats.replies.saturating_add(1);
        match outcome {
            Outcome::Ok => {}
            Outcome::Exception => self.stats.exceptions = self.stats.exceptions.saturating_add(1),
            Outcome::Failure(_) => self.stats.failures = self.stats.failures.saturating_add(1),
        }
    }

    fn fail_calls(&mut self, now: Duration, client: &mut dyn Connection, kind: FailureKind) {
        for call in self.calls.sent() {
            let mut reply = Vec::new();
            // As in `refuse`.
            let _ = client.error_reply(&call.ticket, &Failure { kind, message: describe(kind) }, &mut reply);
            call.reply = Some(reply);
            self.stats.count_error(kind);
        }
        self.write_ready(now, self.ordering(client));
    }

    fn close_if_finished(&mut self) {
        if self.finishing && self.calls.is_empty() {
            self.close = Some(Close::Flush);
        }
    }
}

/// What becomes of a frame of the client.
enum Verdict {
    /// It went on.
    Pass,
    /// It goes on with the changes of this route.
    Change(usize),
    /// It is answered here.
    Refuse(FailureKind),
    /// The same, without an error.
    Heartbeat,
}

#[cfg(test)]
mod tests;
