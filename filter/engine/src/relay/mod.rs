//! Relay: connection mode. The first frame that finds a route picks the cluster; every message is still decoded,
//! counted, checked and changed, in both directions.
//!
//! Each request has exactly one outcome: the server's reply, or the protocol's own error.

mod calls;
mod config;
mod flow;
mod replies;

use std::sync::Arc;

use core::time::Duration;

use meltemi_core::{Codec, Connection, FailureKind, Fault, Limits, Ordering, Peer};

pub use self::config::RelayConfig;
use self::flow::Flow;
use crate::{
    buffer::{Pending, Progress},
    close::Close,
    config::ConfigError,
    destinations::Destinations,
    inlet::InletStats,
    route::RouteTable,
};

/// What all relays of a listener share.
pub struct RelayShared {
    codec: Box<dyn Codec>,
    limits: Limits,
    ordering: Ordering,
    destinations: Destinations,
    routes: RouteTable,
    max_in_flight: usize,
    streaming: bool,
    heartbeat: Option<Duration>,
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
            streaming: capabilities.streaming,
            heartbeat: capabilities.upstream_heartbeat,
            codec,
            limits: Limits::from(&config.limits),
            destinations: Destinations::new(&config.destinations),
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
        self.destinations.have(address)
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
            flow: Flow::new(shared, random),
        }
    }

    /// Bytes from the client, all of which are taken; `end` if it sends no more.
    pub fn on_client_data(&mut self, now: Duration, data: &[u8], end: bool) {
        self.flow.stats.bytes_in = self.flow.stats.bytes_in.saturating_add(data.len() as u64);
        self.flow.client_ended |= end;
        // What comes behind bytes that are no frame has no meaning, and must not pile up.
        if !self.flow.finishing {
            let mut data = self.client_progress.without_rejected(data);
            if self.from_client.is_empty() {
                let (client, progress) = (self.client.as_mut(), &mut self.client_progress);
                while let Some(taken) = self.flow.client_frame(now, client, progress, data) {
                    data = data.get(taken..).unwrap_or_default();
                }
            }
            self.from_client.append(data);
        }
        self.settle(now);
    }

    /// Bytes from the server, all of which are taken; `end` if it sends no more: what it still owes is answered here.
    pub fn on_server_data(&mut self, now: Duration, data: &[u8], end: bool) {
        let mut data = data;
        let (server, client) = (self.server.as_mut(), self.client.as_mut());
        if self.from_server.is_empty() {
            while let Some(taken) = self.flow.server_frame(now, server, client, &mut self.server_progress, data) {
                data = data.get(taken..).unwrap_or_default();
            }
        }
        self.from_server.append(data);
        while let Some(taken) =
            self.flow.server_frame(now, server, client, &mut self.server_progress, self.from_server.bytes())
        {
            self.from_server.consume(taken);
        }
        if end {
            self.flow.lose_server(now, client, FailureKind::UpstreamReset);
        }
        if self.flow.server_gone {
            self.from_server.clear();
        }
        self.settle(now);
    }

    /// The last of the client's bytes are there, and the host cannot keep its end back from the server: they are dealt with
    /// whatever else is in flight, so that what goes to the server next is all of it.
    pub fn take_all(&mut self) {
        self.flow.takes_all = true;
    }

    /// The client takes bytes (`true`), or has too many waiting (`false`): then it is not read, so that it cannot make
    /// us answer more than it reads.
    pub fn on_client_writable(&mut self, now: Duration, writable: bool) {
        self.flow.client_writable = writable;
        self.settle(now);
    }

    /// Lets time pass. Where the protocol's servers close connections on which they read nothing
    /// ([`upstream_heartbeat`](meltemi_core::Capabilities::upstream_heartbeat)), a heartbeat goes to a server that was
    /// sent nothing for that long. Hosts call this as often as they can.
    pub fn on_time(&mut self, now: Duration) {
        let flow = &mut self.flow;
        let due = flow.shared.heartbeat.is_some_and(|pause| now.saturating_sub(flow.last_sent) >= pause);
        let open = flow.cluster.is_some() && !(flow.sending_ended || flow.server_gone || flow.finishing);
        // Unanswered, it would hold up what has its turn behind it; a second one would not help.
        if due && open && (flow.own_heartbeat.is_none() || flow.ordering(self.client.as_ref()) == Ordering::Multiplexed)
        {
            flow.beat(now, self.client.as_ref(), self.server.as_mut());
        }
    }

    /// Decodes what is left over of the client's bytes as far as there is room, then sees whether that is the end.
    fn settle(&mut self, now: Duration) {
        let (client, progress, flow) = (self.client.as_mut(), &mut self.client_progress, &mut self.flow);
        while let Some(taken) = flow.client_frame(now, client, progress, self.from_client.bytes()) {
            self.from_client.consume(taken);
        }
        flow.finishing |= flow.server_gone;
        // Without room, whole requests may be left: only with room is what remains known to be no frame.
        if flow.client_ended && flow.has_room() && !flow.finishing && !flow.sending_ended {
            if !self.from_client.is_empty() {
                flow.stats.count_decode_error(Fault::Peer);
                self.from_client.clear();
            }
            // Where nothing was sent, nobody is to be told.
            flow.finishing = flow.cluster.is_none();
            flow.sending_ended = true;
        }
        if flow.finishing {
            self.from_client.clear();
        }
        flow.close_if_finished();
    }

    /// Where the connection goes, once that is known.
    pub fn cluster(&self) -> Option<&str> {
        self.flow.cluster.as_deref()
    }

    /// Service and method of the call that chose [`cluster`](Self::cluster); empty if it was none.
    pub fn routed(&self) -> (&[u8], &[u8]) {
        (&self.flow.service, &self.flow.method)
    }

    /// The server has calls that it will answer.
    pub fn awaits_server(&self) -> bool {
        !self.flow.server_gone && self.flow.calls.waits_for_server()
    }

    /// The connection was closed by somebody else than the client: counts the calls that are not answered any more.
    pub fn on_lost(&mut self) {
        self.flow.count_lost();
    }

    /// Bytes for the server; the host takes and clears them after each call. There are none before
    /// [`cluster`](Self::cluster) is known.
    pub fn to_server(&mut self) -> &mut Vec<u8> {
        &mut self.flow.to_server
    }

    /// The client sends no more: the host ends the connection to the server in that direction, behind
    /// [`to_server`](Self::to_server).
    pub fn ends_sending(&self) -> bool {
        self.flow.sending_ended && self.flow.cluster.is_some()
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

#[cfg(test)]
mod tests;
