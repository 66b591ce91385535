use meltemi_core::{FailureKind, Fault};

/// What happened since the host asked last.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct InletStats {
    /// Requests that want a reply.
    pub requests: u64,
    /// Requests that want none.
    pub one_way: u64,
    /// Replies of servers given to the client, whatever they say.
    pub replies: u64,
    /// Of these: declared exceptions.
    pub exceptions: u64,
    /// Of these: failures of the protocol or server.
    pub failures: u64,
    /// Heartbeats answered.
    pub heartbeats: u64,
    /// Frames that could not be decoded.
    pub decode_errors: u64,
    /// Of these: allowed by the protocol, but above the limits.
    pub over_limit: u64,
    /// Of these: allowed by the protocol, but not supported by the codec.
    pub unsupported: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Calls begun less calls ended.
    pub in_flight: i64,
    errors: [u64; FailureKind::ALL.len()],
}

impl InletStats {
    /// The counters' names in statistics, without their prefix.
    pub const NAMES: [&str; 11] = [
        "requests",
        "one_way",
        "replies",
        "exceptions",
        "failures",
        "heartbeats",
        "decode_errors",
        "decode_errors.limit",
        "decode_errors.unsupported",
        "bytes_in",
        "bytes_out",
    ];

    /// What is to be added to the counters, in the order of [`NAMES`](Self::NAMES).
    pub const fn counts(&self) -> [u64; Self::NAMES.len()] {
        [
            self.requests,
            self.one_way,
            self.replies,
            self.exceptions,
            self.failures,
            self.heartbeats,
            self.decode_errors,
            self.over_limit,
            self.unsupported,
            self.bytes_in,
            self.bytes_out,
        ]
    }

    /// Requests answered with an error of our own, by kind, in the order of [`FailureKind::ALL`].
    pub const fn errors(&self) -> &[u64; FailureKind::ALL.len()] {
        &self.errors
    }

    /// Adds what happened elsewhere, or later.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.requests, other.requests),
            (&mut self.one_way, other.one_way),
            (&mut self.replies, other.replies),
            (&mut self.exceptions, other.exceptions),
            (&mut self.failures, other.failures),
            (&mut self.heartbeats, other.heartbeats),
            (&mut self.decode_errors, other.decode_errors),
            (&mut self.over_limit, other.over_limit),
            (&mut self.unsupported, other.unsupported),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        for (sum, more) in self.errors.iter_mut().zip(other.errors) {
            *sum = sum.saturating_add(more);
        }
    }

    pub(crate) fn count_decode_error(&mut self, fault: Fault) {
        self.decode_errors = self.decode_errors.saturating_add(1);
        match fault {
            Fault::Peer => {}
            Fault::Limit => self.over_limit = self.over_limit.saturating_add(1),
            Fault::Codec => self.unsupported = self.unsupported.saturating_add(1),
        }
    }

    pub(crate) fn count_error(&mut self, kind: FailureKind) {
        let index = FailureKind::ALL.iter().position(|k| *k == kind);
        if let Some(counter) = index.and_then(|index| self.errors.get_mut(index)) {
            *counter = counter.saturating_add(1);
        }
    }
}
