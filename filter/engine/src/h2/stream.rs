use super::flow::ReceiveWindow;

/// Number of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The connection itself.
    pub(super) const CONNECTION: Self = Self(0);
}

/// One open stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    /// Bytes the peer takes; below zero after it made its window smaller.
    pub(super) send_window: i64,
    pub(super) receive: ReceiveWindow,
    pub(super) outbox: Outbox,
    /// We have sent, or queued, the last of it.
    pub(super) local_done: bool,
    /// The peer has sent the last of it.
    pub(super) remote_done: bool,
    /// The peer's header block that is not an interim one was there: the next one is trailers.
    pub(super) headers_seen: bool,
}

/// Body bytes that wait for window, and what follows them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    pub(super) then: Then,
}

/// What follows the waiting bytes.
#[derive(Debug, Default)]
pub(super) enum Then {
    #[default]
    More,
    End,
    /// The header block of trailers.
    Trailers(Vec<u8>),
}

impl Outbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // A stream that is never quite empty must not keep all it ever sent.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start.min(self.bytes.len()));
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }
}

/// Open streams by number, and the memory of past ones.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Vec<Stream>,
    spare: Vec<Vec<u8>>,
}

/// Buffers of closed streams that are kept, and how large they may be.
const SPARE: usize = 4;
const SPARE_BYTES: usize = 16 * 1024;

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn position(&self, id: StreamId) -> Option<usize> {
        self.open.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    pub(super) fn by_id(&mut self, id: StreamId) -> Option<&mut Stream> {
        let index = self.position(id)?;
        self.open.get_mut(index)
    }

    pub(super) fn at(&mut self, index: usize) -> Option<&mut Stream> {
        self.open.get_mut(index)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.open.iter_mut()
    }

    /// Opens a stream; numbers only grow.
    pub(super) fn open(&mut self, id: StreamId, send_window: i64, receive: ReceiveWindow) {
        self.open.push(Stream {
            id,
            send_window,
            receive,
            outbox: Outbox { bytes: self.spare.pop().unwrap_or_default(), ..Outbox::default() },
            local_done: false,
            remote_done: false,
            headers_seen: false,
        });
    }

    /// The youngest open stream.
    pub(super) fn last(&self) -> Option<StreamId> {
        self.open.last().map(|stream| stream.id)
    }

    /// Closes a stream; gives back how many of its bytes were still waiting.
    pub(super) fn close(&mut self, id: StreamId) -> usize {
        let Some(index) = self.position(id) else { return 0 };
        let Outbox { mut bytes, start, .. } = self.open.remove(index).outbox;
        let waiting = bytes.len().saturating_sub(start);
        if self.spare.len() < SPARE && bytes.capacity() <= SPARE_BYTES {
            bytes.clear();
            self.spare.push(bytes);
        }
        waiting
    }
}
