use core::time::Duration;

/// What a protocol can do. Hosts and the control plane read this to refuse, at configuration time, what could only
/// fail at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How replies are matched to requests, unless a connection says otherwise ([`Connection::ordering`]).
    ///
    /// [`Connection::ordering`]: crate::Connection::ordering
    pub ordering: Ordering,
    /// What can be changed in a request.
    pub request_mutation: MutationSupport,
    /// What can be changed in a reply.
    pub reply_mutation: MutationSupport,
    /// A frame can be given another correlation id by [`Connection::rewrite`](crate::Connection::rewrite).
    pub rewrites_id: bool,
    /// Calls without a reply exist.
    pub one_way: bool,
    /// Heartbeat frames exist; the engine answers them.
    pub heartbeat: bool,
    /// Servers close a connection on which they read nothing for about three times this long.
    ///
    /// In request mode no heartbeat is sent to servers: pooled connections that nobody uses are given up by Envoy before
    /// the server would (the control plane sets the cluster's idle timeout to twice this), and those in use are not idle. In
    /// connection mode the client's own heartbeats reach the server; one of ours is sent when the server was sent nothing
    /// for this long, as far as the host knows of the time: Envoy's ABI gives network filters no timer, so that the
    /// module's relay only looks at the clock when bytes come, from either side, or their flow is held or let go.
    pub upstream_heartbeat: Option<Duration>,
    /// The server speaks first. Nothing can be sniffed, and no cluster can be picked by content.
    pub server_first: bool,
    /// Calls may have more than one frame in a direction.
    pub streaming: bool,
    /// A reply can only be understood with its request in mind (see [`InFlight`](crate::InFlight)).
    pub reply_needs_request: bool,
    /// Connections carry state between calls (transactions, subscriptions), so that calls of one connection must
    /// not be spread over servers: connection mode only.
    pub session: bool,
    /// The protocol can tell a client to take its next calls elsewhere.
    pub drain_signal: bool,
}

impl Capabilities {
    /// A plain request/reply protocol of the given ordering; everything else off. Set the rest on the result.
    pub const fn new(ordering: Ordering) -> Self {
        Self {
            ordering,
            request_mutation: MutationSupport::None,
            reply_mutation: MutationSupport::None,
            rewrites_id: false,
            one_way: false,
            heartbeat: false,
            upstream_heartbeat: None,
            server_first: false,
            streaming: false,
            reply_needs_request: false,
            session: false,
            drain_signal: false,
        }
    }
}

/// How a client matches replies to its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// Replies come in request order.
    Ordered,
    /// Replies carry the correlation id of their request and may come in any order.
    Multiplexed,
}

/// What [`Connection::rewrite`](crate::Connection::rewrite) can apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MutationSupport {
    /// Nothing: a rule that mutates is refused by configuration.
    None,
    /// Headers can be set and removed, if the frame at hand has a place for them.
    Headers,
}
