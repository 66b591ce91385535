use std::collections::VecDeque;

use core::time::Duration;

use meltemi_core::{InFlight, Ordering, Ticket};

/// One request that the client waits for.
pub(super) struct Call {
    pub(super) ticket: Ticket,
    /// Its route; `None` if it was not sent.
    pub(super) route: Option<usize>,
    pub(super) started: Duration,
    /// Our own reply, ready to be written; `None`: the server has it.
    pub(super) reply: Option<Vec<u8>>,
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
        let index = self
            .queue
            .iter()
            .position(|call| call.reply.is_none() && (ordering == Ordering::Ordered || call.ticket.id == id))?;
        self.queue.remove(index)
    }

    /// Takes a call with a reply of our own whose turn it is.
    pub(super) fn take_ready(&mut self, ordering: Ordering) -> Option<Call> {
        let index = match ordering {
            Ordering::Ordered => self.queue.front().and_then(|call| call.reply.is_some().then_some(0))?,
            Ordering::Multiplexed => self.queue.iter().position(|call| call.reply.is_some())?,
        };
        self.queue.remove(index)
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
