//! What inlet and outlet have in common: between a connection and an HTTP connection manager.

use core::cell::{Cell, RefCell};

use meltemi_engine::Close;

use super::inbox::Inbox;
use crate::{
    abi::{self, Buffer},
    vm::{Action, Context},
};

/// An engine that stands before an HTTP connection manager.
pub(super) trait Engine {
    /// Bytes of the peer in front.
    fn on_read(&mut self, data: &[u8]);
    /// Bytes that the manager wrote.
    fn on_write(&mut self, data: &[u8], end: bool);
    fn to_front(&mut self) -> &mut Vec<u8>;
    fn to_hcm(&mut self) -> &mut Vec<u8>;
    fn wants_data(&self) -> bool;
    fn prompt(&mut self);
    fn close(&self) -> Option<Close>;
    /// The connection is closed for want of another way: counted.
    fn give_up(&mut self);
    /// After every piece of work: statistics.
    fn report(&mut self);
}

/// Carries bytes between Envoy's buffers and an engine.
///
/// Two limits of the host shape it. Bytes for the peer can be written only while the manager writes: so it is asked for an
/// answer (an HTTP/2 PING) when it has none to give. Bytes for the manager can be given only when it is not at work itself:
/// what comes of its own bytes waits for a timer.
pub(super) struct Behind<E> {
    context: Context,
    engine: RefCell<E>,
    /// For the peer, when the manager next writes.
    to_front: RefCell<Vec<u8>>,
    /// The manager was asked to write.
    prompted: Cell<bool>,
    /// Bytes are being given to the manager: what it writes meanwhile finds us on the stack.
    pumping: Cell<bool>,
    inbox: Inbox,
    /// Bytes of the peer that there is no room for and that had to make way for ours.
    held: RefCell<Vec<u8>>,
    closed: Cell<bool>,
}

/// Capacity that an empty buffer may keep.
const KEEP: usize = 16 * 1024;

impl<E: Engine> Behind<E> {
    pub(super) fn new(context: Context, engine: E) -> Self {
        Self {
            context,
            engine: RefCell::new(engine),
            to_front: RefCell::default(),
            prompted: Cell::new(false),
            pumping: Cell::new(false),
            inbox: Inbox::default(),
            held: RefCell::default(),
            closed: Cell::new(false),
        }
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut E) -> T) -> T {
        work(&mut self.engine.borrow_mut())
    }

    /// All of the buffer is taken or left; never does the manager find bytes in it that are not HTTP.
    pub(super) fn on_read(&self, size: usize) -> Action {
        self.inbox.arrive(size);
        self.pump();
        Action::Pause
    }

    pub(super) fn on_write(&self, size: usize, end: bool) -> Action {
        let mut to_front = self.to_front.take();
        let more = self.with(|engine| {
            abi::read(Buffer::Write, size, &mut |piece| engine.on_write(piece, false));
            if end {
                engine.on_write(b"", true);
            }
            to_front.append(engine.to_front());
            engine.report();
            let waits = self.inbox.waits() || !self.held.borrow().is_empty();
            !engine.to_hcm().is_empty() || engine.close().is_some() || (waits && engine.wants_data())
        });
        if !abi::write(Buffer::Write, &to_front) {
            // What the manager wrote would pass as it is.
            self.give_up("Envoy does not take what is to be written");
        }
        self.prompted.set(false);
        to_front.clear();
        to_front.shrink_to(KEEP);
        *self.to_front.borrow_mut() = to_front;
        if more && !self.pumping.get() && !self.closed.get() {
            self.context.wake_later();
        }
        Action::Continue
    }

    pub(super) fn on_closed(&self) {
        self.closed.set(true);
        self.with(E::report);
    }

    /// Carries bytes until there are none left. The manager writes within.
    pub(super) fn pump(&self) {
        if self.pumping.replace(true) {
            return;
        }
        while !self.closed.get() {
            self.take_in();
            let (to_hcm, close) = self.with(|engine| {
                let mut to_front = self.to_front.borrow_mut();
                to_front.append(engine.to_front());
                if !to_front.is_empty() && !self.prompted.replace(true) {
                    engine.prompt();
                }
                engine.report();
                (core::mem::take(engine.to_hcm()), if to_front.is_empty() { engine.close() } else { None })
            });
            if !to_hcm.is_empty() {
                if !self.inbox.make_way(&mut self.held.borrow_mut()) || !self.inbox.put(&to_hcm) {
                    self.give_up("too much that there is no room for");
                    break;
                }
                self.inbox.resume();
                self.with(|engine| give_back(engine.to_hcm(), to_hcm));
            } else {
                if close.is_some() {
                    self.closed.set(true);
                    abi::close();
                }
                break;
            }
        }
        self.inbox.clear();
        self.pumping.set(false);
    }

    fn give_up(&self, reason: &str) {
        abi::log_error(&format!("meltemi: connection closed: {reason}"));
        self.with(E::give_up);
        self.closed.set(true);
        abi::close();
    }

    /// Lets the engine have what there is room for.
    fn take_in(&self) {
        let held = self.held.take();
        self.with(|engine| {
            if !engine.wants_data() {
                return *self.held.borrow_mut() = held;
            }
            if !held.is_empty() {
                engine.on_read(&held);
            }
            if engine.wants_data() {
                self.inbox.take(&mut |piece, _| engine.on_read(piece));
            }
        });
    }
}

/// Gives memory back that is to be used again, unless it grew large or something came meanwhile.
fn give_back(place: &mut Vec<u8>, mut buffer: Vec<u8>) {
    if place.is_empty() && buffer.capacity() <= KEEP {
        buffer.clear();
        *place = buffer;
    }
}
