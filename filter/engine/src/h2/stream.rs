use super::frame::{DEFAULT_WINDOW, MAX_WINDOW, put_window_update};

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
    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }
}

/// What the peer may send us.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiveWindow {
    /// What we gave at first.
    full: u32,
    /// What is left of it.
    left: i64,
}

impl ReceiveWindow {
    pub(super) fn new(full: u32) -> Self {
        Self { full, left: i64::from(full) }
    }

    /// For a peer that may not have seen our settings yet, and still counts with the default.
    pub(super) fn unsettled(full: u32) -> Self {
        Self { full, left: i64::from(full).max(DEFAULT_WINDOW) }
    }

    /// The peer of an [`unsettled`](Self::unsettled) window counts with our settings now.
    pub(super) fn settle(&mut self) {
        self.left = self.left.saturating_sub(DEFAULT_WINDOW.saturating_sub(i64::from(self.full)).max(0));
    }

    /// The peer sent that much; `false` if that was more than it may.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.left >= 0
    }

    /// Gives back what was used, if that is worth a frame.
    pub(super) fn refill(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        let used = i64::from(self.full).saturating_sub(self.left);
        if used > 0 && used >= i64::from(self.full / 2) {
            self.left = i64::from(self.full);
            put_window_update(out, stream, u32::try_from(used.min(MAX_WINDOW)).unwrap_or(0));
        }
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
