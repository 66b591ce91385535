//! Flow control of what the peer sends (RFC 9113, section 5.2).

use super::{
    StreamId,
    frame::{DEFAULT_WINDOW, MAX_WINDOW, put_window_update},
};

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
