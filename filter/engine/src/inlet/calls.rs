use std::collections::VecDeque;

use core::time::Duration;

use meltemi_core::{FailureKind, FrameKind, Ordering, Outcome, Ticket};

use crate::{h2::StreamId, http::HeaderStore};

/// One request from the moment it was decoded to the moment its reply is written.
pub(super) struct Call {
    /// Its place: streams have odd numbers, calls without a stream take the even number behind the last one.
    place: u32,
    pub(super) ticket: Ticket,
    pub(super) started: Duration,
    /// Bytes of its request, which somebody holds until it is answered.
    asked: usize,
    pub(super) head: ResponseHead,
    /// Body of the response so far; ready-made reply bytes for calls without a stream.
    pub(super) body: Vec<u8>,
    pub(super) done: Option<Done>,
}

/// What the headers of a response said.
#[derive(Default)]
pub(super) struct ResponseHead {
    pub(super) seen: bool,
    pub(super) status: u16,
    /// The outlet's mark: the body is the server's frame.
    pub(super) outcome: Option<Outcome>,
    pub(super) retire: bool,
    /// The reply's metadata is not in the headers.
    pub(super) unshown: bool,
    pub(super) content_length: Option<usize>,
    pub(super) details: Vec<u8>,
    /// Headers that stand for the reply's metadata.
    pub(super) headers: HeaderStore,
}

impl ResponseHead {
    fn clear(&mut self) {
        self.details.clear();
        self.headers.clear();
        *self = Self {
            details: core::mem::take(&mut self.details),
            headers: core::mem::take(&mut self.headers),
            ..Self::default()
        };
    }
}

/// How a call ended.
#[derive(Clone, Copy)]
pub(super) enum Done {
    /// The response is whole.
    Response,
    /// The body is native bytes, ready to be written.
    Ready,
    /// There is no response, or none of the server.
    Failed(FailureKind),
}

/// The calls of one connection, in the order their requests came.
#[derive(Default)]
pub(super) struct Calls {
    queue: VecDeque<Call>,
    /// Memory of past calls.
    spare: Vec<(ResponseHead, Vec<u8>)>,
    last_stream: u32,
    asked_bytes: usize,
    waiting_bytes: usize,
}

/// Calls whose memory is kept for the next ones, and how much each may keep.
const SPARE_CALLS: usize = 4;
const SPARE_BYTES: usize = 4 * 1024;

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Request bytes of all calls in the queue.
    pub(super) fn asked_bytes(&self) -> usize {
        self.asked_bytes
    }

    /// Reply bytes of all calls in the queue.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// A call of the queue got that much of its reply.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
    }

    /// A call that was handed to HCM, with a request of so many bytes.
    pub(super) fn push(&mut self, stream: StreamId, ticket: Ticket, started: Duration, asked: usize) {
        self.last_stream = stream.0;
        self.push_at(stream.0, ticket, started).asked = asked;
        self.asked_bytes = self.asked_bytes.saturating_add(asked);
    }

    /// A call that never got a stream, already done.
    pub(super) fn push_done(&mut self, ticket: Ticket, started: Duration, done: Done, body: &[u8]) {
        let call = self.push_at(self.last_stream.saturating_add(1), ticket, started);
        call.done = Some(done);
        call.body.extend_from_slice(body);
        self.add_bytes(body.len());
    }

    fn push_at(&mut self, place: u32, ticket: Ticket, started: Duration) -> &mut Call {
        let (head, body) = self.spare.pop().unwrap_or_default();
        self.queue.push_back(Call { place, ticket, started, asked: 0, head, body, done: None });
        let last = self.queue.len().saturating_sub(1);
        // The queue is not empty: its last element is there.
        #[allow(clippy::indexing_slicing)]
        &mut self.queue[last]
    }

    /// The call of a stream, unless it has ended.
    pub(super) fn by_stream(&mut self, stream: StreamId) -> Option<&mut Call> {
        let index = self.queue.binary_search_by(|call| call.place.cmp(&stream.0)).ok()?;
        self.queue.get_mut(index)
    }

    /// Every call that has not ended.
    pub(super) fn open(&mut self) -> impl Iterator<Item = &mut Call> {
        self.queue.iter_mut().filter(|call| call.done.is_none())
    }

    /// Takes the next call whose reply may be written now: the oldest, or with multiplexed ids the oldest of its id.
    pub(super) fn next_ready(&mut self, ordering: Ordering) -> Option<Call> {
        let index = self.queue.iter().enumerate().find_map(|(index, call)| {
            let earlier = || self.queue.iter().take(index);
            let ready = call.done.is_some()
                && (call.is_one_way()
                    || !earlier().any(|other| {
                        !other.is_one_way() && (ordering == Ordering::Ordered || other.ticket.id == call.ticket.id)
                    }));
            ready.then_some(index)
        })?;
        let call = self.queue.remove(index)?;
        self.asked_bytes = self.asked_bytes.saturating_sub(call.asked);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(call.body.len());
        Some(call)
    }

    /// Gives a call's memory back.
    pub(super) fn recycle(&mut self, call: Call) {
        let Call { mut head, mut body, .. } = call;
        if self.spare.len() < SPARE_CALLS && body.capacity() <= SPARE_BYTES {
            head.clear();
            body.clear();
            self.spare.push((head, body));
        }
    }
}

impl Call {
    pub(super) fn is_one_way(&self) -> bool {
        self.ticket.kind == FrameKind::OneWay
    }

    pub(super) fn stream(&self) -> Option<StreamId> {
        (self.place % 2 == 1).then_some(StreamId(self.place))
    }
}
