//! Inlet: every request frame of a client becomes an HTTP/2 request to the HTTP connection manager behind us, and every
//! response becomes the protocol's reply.
//!
//! Requests are answered exactly once: with the server's reply, or with the protocol's own error.

mod calls;
mod flow;
mod reply;
mod request;
mod stats;

use std::sync::Arc;

use core::time::Duration;

use meltemi_core::{Codec, Connection, FailureKind, Fault, Limits, Ordering, Peer};

use self::flow::Flow;
pub(crate) use self::reply::describe;
pub use self::stats::InletStats;
use crate::{
    buffer::{Pending, Progress},
    clock::Clock,
    close::Close,
    config::{ConfigError, InletConfig},
    destinations::Destinations,
    h2,
    http::PassHeaders,
    outlet::request_mode_or_error,
};

/// What all inlets of a listener share.
pub struct InletShared {
    codec: Box<dyn Codec>,
    limits: Limits,
    ordering: Ordering,
    authority: Option<String>,
    destinations: Destinations,
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
        let h2 = h2::Settings::of_frames(limits.max_frame);
        Ok(Self {
            ordering: codec.capabilities().ordering,
            authority: config.authority.clone(),
            destinations: Destinations::new(&config.destinations),
            max_in_flight: usize::try_from(config.max_in_flight.max(1)).unwrap_or(usize::MAX),
            pass: PassHeaders::new(&config.pass_headers)?,
            h2,
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
        self.destinations.are_all().then(|| self.authority.clone().unwrap_or_else(|| self.codec.name().to_owned()))
    }

    /// Whether connections to this address are ours, and if so the `:authority` of their requests.
    pub fn authority(&self, address: std::net::IpAddr, port: u16) -> Option<String> {
        let default = || self.authority.clone().unwrap_or_else(|| std::net::SocketAddr::new(address, port).to_string());
        if self.destinations.are_all() {
            return Some(default());
        }
        Some(self.destinations.find(address, port)?.map_or_else(default, str::to_owned))
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

impl Inlet {
    /// An engine for a new connection.
    pub fn new(shared: Arc<InletShared>, authority: &[u8]) -> Self {
        Self {
            client: shared.codec.connect(Peer::Client, &shared.limits),
            pending: Pending::default(),
            progress: Progress::default(),
            client_ended: false,
            flow: Flow::new(shared, authority),
        }
    }

    /// Gives the connection a name that stands in each of its requests ([`CONNECTION`](crate::names::CONNECTION)), for
    /// hosts whose outlets must know whom a reply is for.
    pub fn set_connection_name(&mut self, name: &[u8]) {
        name.clone_into(&mut self.flow.head.connection);
    }

    /// Bytes from the client, all of which are taken; `end` if it sends no more.
    pub fn on_client_data(&mut self, now: impl Clock, data: &[u8], end: bool) {
        let bytes = data.len() as u64;
        self.flow.stats.bytes_in = self.flow.stats.bytes_in.saturating_add(bytes);
        self.client_ended |= end;
        if !self.flow.finishing && self.flow.close.is_none() {
            self.read(&now, data);
        }
        self.settle(&now);
    }

    /// Bytes that the HTTP connection manager wrote towards the client; `end` if it closes.
    pub fn on_hcm_data(&mut self, now: impl Clock, data: &[u8], end: bool) {
        self.flow.read_hcm(self.client.as_mut(), data);
        if end {
            self.flow.lose_hcm(FailureKind::Draining);
        }
        self.settle(&now);
    }

    /// The client takes bytes (`true`), or has too many waiting (`false`): then nothing is asked of servers for it.
    pub fn on_client_writable(&mut self, now: impl Clock, writable: bool) {
        self.flow.client_writable = writable;
        self.settle(&now);
    }

    /// Has HCM write something, for hosts that can give the client bytes only when HCM does.
    pub fn prompt(&mut self) {
        let settings = &self.flow.shared.h2;
        self.flow.h2.get_or_insert_with(|| h2::Connection::client(settings)).ping();
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
    fn read(&mut self, now: &dyn Clock, data: &[u8]) {
        let mut data = self.progress.without_rejected(data);
        if self.pending.is_empty() {
            while let Some(taken) = self.flow.decode_one(now, self.client.as_mut(), &mut self.progress, data) {
                data = data.get(taken..).unwrap_or_default();
            }
        }
        self.pending.append(data);
    }

    /// Decodes what is left over from earlier; whether anything came of it.
    fn read_pending(&mut self, now: &dyn Clock) -> bool {
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
    fn settle(&mut self, now: &dyn Clock) {
        loop {
            self.flow.write_replies(now, self.client.as_mut());
            if !self.read_pending(now) {
                break;
            }
        }
        let flow = &mut self.flow;
        if self.client_ended && flow.has_room() && !flow.finishing {
            if !self.pending.is_empty() {
                flow.stats.count_decode_error(Fault::Peer);
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

#[cfg(test)]
mod tests;
