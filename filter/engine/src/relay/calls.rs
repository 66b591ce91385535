use std::collections::VecDeque;

use core::time::Duration;

use meltemi_core::{FrameKind, InFlight, Ordering, Ticket};

/// One frame of the client that is answered.
pub(super) struct Call {
    pub(super) ticket: Ticket,
    /// Its route; `None` if it has none.
    pub(super) route: Option<usize>,
    pub(super) started: Duration,
    /// Our own reply, ready to be written; `None`: the server has it.
    pub(super) reply: Option<Vec<u8>>,
    /// A heartbeat of ours: what the server answers is not for the client.
    pub(super) ours: bool,
}

/// The calls of one connection, in the order their requests came.
#[derive(Default)]
pub(super) struct Calls {
    queue: VecDeque<Call>,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, call: Call) {
        self.queue.push_back(call);
    }

    /// Takes the call that a reply of the server belongs to.
    pub(super) fn take_sent(&mut self, ordering: Ordering, id: u64) -> Option<Call> {
        // Some servers of ordered protocols answer out of order all the same (Apache Thrift for Node), to clients that
        // go by the id.
        let by_id = self.take(|call| call.ticket.id == id);
        by_id.or_else(|| if ordering == Ordering::Ordered { self.take(|_| true) } else { None })
    }

    /// The same, if that call is of this kind.
    pub(super) fn take_sent_of(&mut self, kind: FrameKind, ordering: Ordering, id: u64) -> Option<Call> {
        let oldest = self.oldest().is_some_and(|ticket| ticket.kind == kind);
        self.take(|call| {
            call.ticket.kind == kind && if ordering == Ordering::Ordered { oldest } else { call.ticket.id == id }
        })
    }

    fn take(&mut self, is_it: impl Fn(&Call) -> bool) -> Option<Call> {
        let index = self.queue.iter().position(|call| call.reply.is_none() && is_it(call))?;
        self.queue.remove(index)
    }

    /// Takes a call with a reply of our own whose turn it is: the oldest, or with multiplexed ids the oldest of its id.
    pub(super) fn take_ready(&mut self, ordering: Ordering) -> Option<Call> {
        let index = self.queue.iter().enumerate().find_map(|(index, call)| {
            let earlier = || self.queue.iter().take(index);
            let waits = || earlier().any(|other| ordering == Ordering::Ordered || other.ticket.id == call.ticket.id);
            (call.reply.is_some() && !waits()).then_some(index)
        })?;
        self.queue.remove(index)
    }

    /// The server has a call.
    pub(super) fn waits_for_server(&self) -> bool {
        self.queue.iter().any(|call| call.reply.is_none())
    }

    /// The calls that the server has.
    pub(super) fn sent(&mut self) -> impl Iterator<Item = &mut Call> {
        self.queue.iter_mut().filter(|call| call.reply.is_none())
    }
}

impl InFlight for Calls {
    fn oldest(&self) -> Option<&Ticket> {
        self.queue.iter().find(|call| call.reply.is_none()).map(|call| &call.ticket)
    }

    fn by_id(&self, id: u64) -> Option<&Ticket> {
        self.queue.iter().find(|call| call.reply.is_none() && call.ticket.id == id).map(|call| &call.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_belongs_to_the_call_with_its_id_or_to_the_oldest() {
        let mut calls = Calls::default();
        for (id, route) in [(1, 0), (2, 1), (2, 2), (3, 3)] {
            let ticket = Ticket::new(id, FrameKind::Request, b"");
            calls.push(Call { ticket, route: Some(route), started: Duration::ZERO, reply: None, ours: false });
        }
        let mut route = |ordering, id| calls.take_sent(ordering, id).and_then(|call| call.route);
        assert_eq!(route(Ordering::Ordered, 2), Some(1), "out of order");
        assert_eq!(route(Ordering::Ordered, 9), Some(0), "an id that says nothing");
        assert_eq!(route(Ordering::Multiplexed, 9), None);
        assert_eq!(route(Ordering::Multiplexed, 3), Some(3));
        assert_eq!(route(Ordering::Ordered, 2), Some(2));
    }
}
