use crate::{DecodeError, FailureKind, Metadata, Ticket};

/// What [`Connection::decode`](crate::Connection::decode) found at the start of its buffer.
#[derive(Debug, Clone, Copy)]
pub enum Decoded<'a> {
    /// No whole frame yet.
    Incomplete {
        /// At least this many more bytes (≥ 1) before it is worth asking again.
        needed: usize,
    },
    /// One whole frame.
    Frame(Frame<'a>),
    /// A frame that will not be taken. The engine answers it and goes on behind it, if its extent is known.
    Rejected(Rejected<'a>),
}

/// One message on the wire, borrowed from the buffer it came in.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The whole frame, length prefix and all.
    pub bytes: &'a [u8],
    /// What it is.
    pub kind: FrameKind,
    /// Correlation id; stream id for stream frames; 0 where the protocol has none.
    pub id: u64,
    /// What routing may look at.
    pub metadata: Metadata<'a>,
    /// What the codec wants to see again when it must answer this frame or understand its reply; kept in the
    /// [`Ticket`]. At most a few dozen bytes, a header or a method name: up to 128 are kept without allocation.
    pub context: &'a [u8],
}

impl Frame<'_> {
    /// What remains of this frame while its reply is awaited.
    pub fn ticket(&self) -> Ticket {
        Ticket::new(self.id, self.kind, self.context)
    }
}

/// A frame that was found but not accepted (too large, or its content is not understood).
#[derive(Debug, Clone, Copy)]
pub struct Rejected<'a> {
    /// What the frame is as far as known.
    pub kind: FrameKind,
    /// Its correlation id.
    pub id: u64,
    /// As [`Frame::context`].
    pub context: &'a [u8],
    /// Length of the frame in bytes, counted from the start of the buffer; may reach beyond it.
    /// [`NO_END`](Self::NO_END) if nobody can tell.
    pub length: u64,
    /// Why it was not accepted.
    pub error: DecodeError,
}

impl Rejected<'_> {
    /// Length of a frame whose end is not known. The engine answers it, and what came before, and reads no more.
    pub const NO_END: u64 = u64::MAX;

    /// What remains of this frame to answer it.
    pub fn ticket(&self) -> Ticket {
        Ticket::new(self.id, self.kind, self.context)
    }
}

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameKind {
    /// A call that wants a reply.
    Request,
    /// A call that gets no reply.
    OneWay,
    /// A reply, and how it went.
    Response(Outcome),
    /// "Are you there?": wants a [`HeartbeatReply`](Self::HeartbeatReply).
    Heartbeat,
    /// The answer to a heartbeat.
    HeartbeatReply,
    /// From the server without having been asked.
    Push,
    /// Part of the connection's opening, before calls.
    Handshake,
    /// The peer asks to take the next calls elsewhere.
    Drain,
    /// Opens a stream; routed like a request.
    StreamOpen,
    /// Belongs to an open stream.
    StreamData,
    /// The sender is done with the stream.
    StreamClose,
}

/// How a call went, as its reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It returned.
    Ok,
    /// It threw an exception that its interface declares, or that the application raised: the server works.
    Exception,
    /// The protocol or the server failed.
    Failure(FailureKind),
}
