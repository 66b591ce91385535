use crate::{
    Capabilities, DecodeError, Decoded, EncodeError, Failure, InFlight, Limits, Mutation, OptionDoc, OptionError,
    Options, Ordering, Ticket,
};

/// One protocol. Shared by all connections of a listener or cluster; holds configuration, never connection state.
pub trait Codec: Send + Sync + 'static {
    /// The protocol's name as it stands in port names and statistics: lower case, `[a-z0-9_]`.
    fn name(&self) -> &'static str;

    /// What the protocol can do.
    fn capabilities(&self) -> Capabilities;

    /// State for one connection whose other end is `peer`.
    fn connect(&self, peer: Peer, limits: &Limits) -> Box<dyn Connection>;

    /// Whether a client that sends `head` first speaks this protocol. Must decide within 32 bytes.
    fn probe(&self, head: &[u8]) -> Probe {
        let _ = head;
        Probe::NoMatch
    }
}

/// Protocol state of one connection, on one side of the proxy.
///
/// Towards a client ([`Peer::Client`]) it decodes requests and builds replies, towards a server ([`Peer::Server`]) it
/// decodes replies and builds requests.
///
/// # Contract
/// * After an `Err` from [`decode`](Self::decode) the connection is never read again.
/// * No method panics, whatever the bytes; no allocation is sized by wire data before it was checked against the
///   [`Limits`] given to [`Codec::connect`].
pub trait Connection: Send {
    /// Finds the frame at the start of `buf`.
    ///
    /// `buf` starts where the last frame ended. After [`Decoded::Incomplete`] the next call passes the same bytes
    /// with at least `needed` more, so a codec that must walk a frame to find its end may keep a cursor and need
    /// not start again. It must not decide more than the bytes say: the result for a frame is the same whatever
    /// pieces it comes in.
    ///
    /// `in_flight` looks up the requests this connection has not had a reply to; only codecs with
    /// [`Capabilities::reply_needs_request`] use it.
    fn decode<'a>(&'a mut self, buf: &'a [u8], in_flight: &dyn InFlight) -> Result<Decoded<'a>, DecodeError>;

    /// Writes `frame` to `out` with `mutation` applied and, if given, another correlation id. Bytes that neither
    /// touches are copied as they are. `frame` is one whole frame that [`decode`](Self::decode) would accept.
    ///
    /// Names in a mutation are matched as the protocol matches them. On `Err` nothing was appended to `out`.
    fn rewrite(
        &mut self,
        frame: &[u8],
        mutation: &Mutation,
        id: Option<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let _ = (frame, mutation, id, out);
        Err(EncodeError::Unsupported("this protocol cannot be rewritten"))
    }

    /// As [`rewrite`](Self::rewrite) for a reply to `request`, for codecs with [`Capabilities::reply_needs_request`].
    fn rewrite_reply(
        &mut self,
        request: &Ticket,
        frame: &[u8],
        mutation: &Mutation,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let _ = request;
        self.rewrite(frame, mutation, None, out)
    }

    /// Writes the protocol's own error reply to `request`. Not called for one-way requests.
    fn error_reply(&mut self, request: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Writes the answer to a heartbeat.
    fn heartbeat_reply(&mut self, heartbeat: &Ticket, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let _ = (heartbeat, out);
        Err(EncodeError::Unsupported("this protocol has no heartbeat"))
    }

    /// Writes a heartbeat of our own to a server ([`Capabilities::upstream_heartbeat`]).
    fn heartbeat(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let _ = out;
        Err(EncodeError::Unsupported("this protocol has no heartbeat"))
    }

    /// Writes the signal that asks the client to take its next calls elsewhere
    /// ([`Capabilities::drain_signal`]).
    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let _ = out;
        Err(EncodeError::Unsupported("this protocol has no drain signal"))
    }

    /// Makes the state as new, for another connection to the same kind of peer; keeps the memory, so that hosts can
    /// reuse it without allocating.
    fn reset(&mut self);

    /// How replies are matched on this very connection, where that depends on what was detected on it.
    fn ordering(&self) -> Option<Ordering> {
        None
    }
}

/// Who is at the other end of a [`Connection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client: requests come in, replies go out.
    Client,
    /// A server: requests go out, replies come in.
    Server,
}

/// Answer of [`Codec::probe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// These bytes are the start of this protocol.
    Match,
    /// They are not.
    NoMatch,
    /// This many more bytes are needed to tell.
    NeedMore(usize),
}

/// How a codec enters a host: its name, its documentation, and how it is made from options.
#[derive(Clone, Copy)]
pub struct CodecEntry {
    /// Same as [`Codec::name`].
    pub name: &'static str,
    /// One line for reference pages and `--help`.
    pub summary: &'static str,
    /// The options that [`build`](Self::build) understands.
    pub options: &'static [OptionDoc],
    /// Metadata names by which users may also call the service (`interface` for Dubbo).
    pub service_aliases: &'static [&'static str],
    /// Makes the codec, or says which option is wrong and why.
    pub build: fn(&Options) -> Result<Box<dyn Codec>, OptionError>,
}

impl core::fmt::Debug for CodecEntry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CodecEntry").field("name", &self.name).finish_non_exhaustive()
    }
}
