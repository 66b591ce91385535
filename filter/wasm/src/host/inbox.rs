use core::cell::Cell;

use crate::abi::{self, Buffer};

/// Envoy's buffer of what the peer in front sent, and what goes on to the filters behind us.
///
/// A call of Envoy costs more than all that we do with a message: what the engine has taken is not taken out of the buffer
/// before something else is put into it, or nothing comes of it.
#[derive(Default)]
pub(super) struct Inbox {
    /// Bytes that lie in it.
    size: Cell<usize>,
    /// The engine has them: they must not go on, unless what it has to send is the same.
    taken: Cell<bool>,
}

/// Bytes that there is no room for and that had to make way, before the peer is let go: as many as the inlet has in flight. It
/// takes a manager whose windows are smaller than a frame, and a client that does not wait for its replies.
const MAX_HELD: usize = 32 << 20;

impl Inbox {
    /// So many bytes lie in the buffer. What was there before is among them.
    pub(super) fn arrive(&self, size: usize) {
        self.size.set(size);
        self.taken.set(false);
    }

    pub(super) fn size(&self) -> usize {
        self.size.get()
    }

    /// There are bytes that nobody has taken: they are left where they are. When the buffer is full, Envoy reads no more.
    pub(super) fn waits(&self) -> bool {
        self.size.get() > 0 && !self.taken.get()
    }

    /// Lends what waits, piece by piece, and whether that is all of it: it is taken then.
    pub(super) fn take(&self, visit: &mut dyn FnMut(&[u8], bool)) {
        if self.waits() {
            self.taken.set(true);
            let size = self.size.get();
            abi::read(Buffer::Read, size, &mut |piece| visit(piece, piece.len() == size));
        }
    }

    /// Puts what waits aside, so that other bytes can go on; `false` if that is too much.
    pub(super) fn make_way(&self, held: &mut Vec<u8>) -> bool {
        self.take(&mut |piece, _| held.extend_from_slice(piece));
        held.len() <= MAX_HELD
    }

    /// Puts bytes in the place of those that were taken; `false` if Envoy does not let us.
    pub(super) fn put(&self, bytes: &[u8]) -> bool {
        self.size.set(0);
        self.taken.set(false);
        abi::write(Buffer::Read, bytes)
    }

    /// Lets go on what lies there, now.
    pub(super) fn resume(&self) {
        self.leave();
        abi::resume();
    }

    /// What lies there goes on when the hook ends.
    pub(super) fn leave(&self) {
        self.size.set(0);
        self.taken.set(false);
    }

    /// Throws away what was taken.
    pub(super) fn clear(&self) {
        if self.taken.get() {
            self.put(b"");
        }
    }
}
