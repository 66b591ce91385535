//! HTTP/2 (RFC 9113) without I/O: what stands between the engines and the HTTP connection manager in the same process.
//!
//! Our own, because the maintained crates do not fit: `h2` owns its socket and needs an async runtime; `fluke-hpack` and
//! `hpack` allocate for every header. Here bytes come in and go out, and a call in steady state allocates nothing. Both
//! kinds of crates are used as judges in the tests.

mod block;
mod connection;
mod control;
mod error;
mod flow;
mod frame;
mod hpack;
mod receive;
mod send;
mod stream;
#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use error::{Error, ErrorCode};
pub use hpack::{HeaderWriter, Headers};
pub use stream::StreamId;

/// The largest window there is.
const MAX_WINDOW: u32 = 0x7fff_ffff;

/// What we announce to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes a peer may send on one stream before we give more.
    pub initial_window: u32,
    /// Bytes a peer may send on all streams together before we give more; at least 65,535.
    pub connection_window: u32,
    /// Bytes of names and values in one header block that we take.
    pub max_header_list: u32,
}

impl Settings {
    /// For bodies of one frame each: a whole one fits the stream's window, and all that there are the connection's.
    pub(crate) fn of_frames(max_frame: usize) -> Self {
        let frame = u32::try_from(max_frame).unwrap_or(MAX_WINDOW);
        let window = frame.saturating_add(64 * 1024).min(MAX_WINDOW);
        Self { initial_window: window, connection_window: MAX_WINDOW, ..Self::default() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { initial_window: 256 * 1024, connection_window: 1024 * 1024, max_header_list: 64 * 1024 }
    }
}

/// What a peer sent.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The first header block of a stream, or an interim response (1xx).
    Headers {
        /// Its stream.
        stream: StreamId,
        /// The headers.
        headers: Headers<'a>,
        /// Nothing follows.
        end_stream: bool,
    },
    /// A piece of a body.
    Data {
        /// Its stream.
        stream: StreamId,
        /// The piece; may be empty.
        data: &'a [u8],
        /// Nothing follows.
        end_stream: bool,
    },
    /// The last header block of a stream; nothing follows.
    Trailers {
        /// Its stream.
        stream: StreamId,
        /// The headers.
        headers: Headers<'a>,
    },
    /// The stream is over before its end.
    Reset {
        /// The stream.
        stream: StreamId,
        /// The peer's reason (RFC 9113, section 7), or ours if the peer broke the rules of the stream.
        code: u32,
    },
    /// The peer takes no more streams.
    GoAway {
        /// The last one it takes.
        last_stream: StreamId,
        /// Its reason.
        code: u32,
    },
}
