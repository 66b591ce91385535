use smallvec::SmallVec;

use crate::FrameKind;

/// What is kept of a request while its reply is awaited: enough to answer it and to understand its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The request's correlation id.
    pub id: u64,
    /// What kind of frame it was.
    pub kind: FrameKind,
    context: SmallVec<[u8; 128]>,
}

impl Ticket {
    /// A ticket that keeps a copy of `context`; without allocation up to 128 bytes.
    pub fn new(id: u64, kind: FrameKind, context: &[u8]) -> Self {
        Self { id, kind, context: SmallVec::from_slice(context) }
    }

    /// What the codec wanted kept ([`Frame::context`](crate::Frame::context)).
    pub fn context(&self) -> &[u8] {
        &self.context
    }
}

/// The requests of a connection that have not had their reply.
pub trait InFlight {
    /// The one that was sent first.
    fn oldest(&self) -> Option<&Ticket>;

    /// The oldest one with this correlation id.
    fn by_id(&self, id: u64) -> Option<&Ticket>;
}

/// No request is in flight, or the codec does not need to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingInFlight;

impl InFlight for NothingInFlight {
    fn oldest(&self) -> Option<&Ticket> {
        None
    }

    fn by_id(&self, _: u64) -> Option<&Ticket> {
        None
    }
}

/// Exactly one request is in flight.
impl InFlight for Ticket {
    fn oldest(&self) -> Option<&Ticket> {
        Some(self)
    }

    fn by_id(&self, id: u64) -> Option<&Ticket> {
        (self.id == id).then_some(self)
    }
}
