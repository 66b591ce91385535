//! Which clients of a worker read too slowly.
//!
//! While the write buffer of a client's connection is above its high watermark, Envoy stops reading the upstream
//! connection of every reply that begins. It starts again when the buffer has drained, but by then a whole reply is long
//! through and its connection back in the pool: unread for ever, it lets every later request time out. HTTP upstreams
//! don't suffer from this, and the ABI shows the outlet neither the client nor the state of its connection. So the inlet
//! says here who is congested, and the outlet gives the connection up after a reply to one of those. Envoy keeps all
//! filters of a request on one worker thread.

use core::cell::{Cell, RefCell};

thread_local! {
    static NEXT: Cell<u64> = const { Cell::new(0) };
    static CONGESTED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// A client of this worker.
pub(super) struct Client {
    number: u64,
    congested: Cell<bool>,
}

impl Client {
    pub(super) fn new() -> Self {
        let number = NEXT.get();
        NEXT.set(number.wrapping_add(1));
        Self { number, congested: Cell::new(false) }
    }

    /// What outlets know the client by.
    pub(super) fn name(&self) -> String {
        self.number.to_string()
    }

    pub(super) fn set_congested(&self, congested: bool) {
        if self.congested.replace(congested) != congested {
            CONGESTED.with_borrow_mut(|clients| {
                if congested {
                    clients.push(self.number);
                } else {
                    clients.retain(|number| *number != self.number);
                }
            });
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.set_congested(false);
    }
}

/// The client of this [`name`](Client::name) reads too slowly. `None`, no client of ours, never does.
pub(super) fn is_congested(number: Option<u64>) -> bool {
    CONGESTED.with_borrow(|clients| !clients.is_empty() && number.is_some_and(|number| clients.contains(&number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_congested_until_it_drains_or_goes() {
        let (one, other) = (Client::new(), Client::new());
        let number = |client: &Client| client.name().parse().ok();
        let (first, second) = (number(&one), number(&other));
        one.set_congested(true);
        one.set_congested(true);
        assert!(is_congested(first) && !is_congested(second) && !is_congested(None));
        one.set_congested(false);
        assert!(!is_congested(first));
        other.set_congested(true);
        drop(other);
        assert!(!is_congested(second));
    }
}
