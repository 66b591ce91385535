use core::fmt;

/// Why a request got no reply from its server, in words that every protocol maps to its own error frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// No route matched.
    NoRoute,
    /// The route names a cluster that does not exist.
    NoCluster,
    /// The cluster has no healthy endpoint.
    NoHealthyUpstream,
    /// No connection to the server could be made.
    ConnectFailure,
    /// The connection to the server was lost before the reply was complete.
    UpstreamReset,
    /// The reply did not come in time.
    Timeout,
    /// Too many connections, requests or pending requests (circuit breaker).
    Overflow,
    /// A local or global rate limit said no.
    RateLimited,
    /// An injected fault.
    Aborted,
    /// Authorization said no.
    Denied,
    /// The request is above the limits.
    TooLarge,
    /// The request could not be decoded.
    Malformed,
    /// The server's reply could not be decoded, or belongs to another request.
    BadReply,
    /// The proxy or the server is going away.
    Draining,
    /// The server does not know the service.
    UnknownService,
    /// The server does not know the method.
    UnknownMethod,
    /// The server says that it is overloaded.
    Overloaded,
    /// Anything else.
    Internal,
}

impl FailureKind {
    /// All kinds, for tables and counters.
    pub const ALL: [Self; 18] = [
        Self::NoRoute,
        Self::NoCluster,
        Self::NoHealthyUpstream,
        Self::ConnectFailure,
        Self::UpstreamReset,
        Self::Timeout,
        Self::Overflow,
        Self::RateLimited,
        Self::Aborted,
        Self::Denied,
        Self::TooLarge,
        Self::Malformed,
        Self::BadReply,
        Self::Draining,
        Self::UnknownService,
        Self::UnknownMethod,
        Self::Overloaded,
        Self::Internal,
    ];

    /// The kind as it stands in statistics and headers: lower case with underscores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoCluster => "no_cluster",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::ConnectFailure => "connect_failure",
            Self::UpstreamReset => "upstream_reset",
            Self::Timeout => "timeout",
            Self::Overflow => "overflow",
            Self::RateLimited => "rate_limited",
            Self::Aborted => "aborted",
            Self::Denied => "denied",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::BadReply => "bad_reply",
            Self::Draining => "draining",
            Self::UnknownService => "unknown_service",
            Self::UnknownMethod => "unknown_method",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }

    /// The kind with this [`as_str`](Self::as_str) name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().as_bytes() == name)
    }

    /// The HTTP status under which HCM, retries, outlier detection and access logs see this failure.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Denied => 403,
            Self::NoRoute | Self::UnknownService | Self::UnknownMethod => 404,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::BadReply => 502,
            Self::NoCluster
            | Self::NoHealthyUpstream
            | Self::ConnectFailure
            | Self::UpstreamReset
            | Self::Overflow
            | Self::Aborted
            | Self::Draining
            | Self::Overloaded => 503,
            Self::Timeout => 504,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure to be told to a client in its protocol.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// Why.
    pub kind: FailureKind,
    /// For people: one line, no secrets. UTF-8, at most 1 KiB (the engine cuts it).
    pub message: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::from_name(kind.as_str().as_bytes()), Some(kind));
        }
        assert_eq!(FailureKind::from_name(b"nonsense"), None);
    }
}
