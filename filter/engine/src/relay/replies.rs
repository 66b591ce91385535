//! What the server sends.

use core::time::Duration;

use meltemi_core::{Connection, Decoded, EncodeError, FailureKind, FrameKind, Ordering, Outcome};

use super::{calls::Call, flow::Flow};
use crate::buffer::{Progress, decode};

impl Flow {
    /// Takes the server's next frame: how much of `data` it took.
    pub(super) fn server_frame(
        &mut self,
        now: Duration,
        server: &mut dyn Connection,
        client: &mut dyn Connection,
        progress: &mut Progress,
        data: &[u8],
    ) -> Option<usize> {
        if self.server_gone || !progress.is_worth_trying(data.len()) {
            return None;
        }
        let (kind, id, length) = match decode(server, data, &self.calls) {
            Ok(Decoded::Incomplete { needed }) => {
                progress.want(data.len(), needed);
                return None;
            }
            Ok(Decoded::Frame(frame)) => (frame.kind, frame.id, frame.bytes.len()),
            Ok(Decoded::Rejected(_)) | Err(_) => {
                self.lose_server(now, client, FailureKind::BadReply);
                return None;
            }
        };
        progress.next_frame();
        let bytes = data.get(..length).unwrap_or_default();
        let ordering = self.ordering(client);
        let call = match kind {
            FrameKind::Response(_) => self.calls.take_sent(ordering, id),
            FrameKind::HeartbeatReply if ordering == Ordering::Ordered => {
                self.calls.take_sent_of(FrameKind::Heartbeat, ordering, id)
            }
            FrameKind::HeartbeatReply if self.own_heartbeat == Some(id) => {
                self.own_heartbeat = None;
                return Some(length);
            }
            FrameKind::StreamClose => self.calls.take_sent_of(FrameKind::StreamOpen, ordering, id),
            _ => None,
        };
        match (&call, kind) {
            (Some(call), _) if call.ours => self.own_heartbeat = None,
            (Some(call), FrameKind::Response(outcome)) => self.write_reply(server, client, call, bytes, outcome),
            // Nobody asked: the connection is out of step, and the next reply would reach the wrong call.
            (None, FrameKind::Response(_)) if !self.shared.streaming => {
                self.lose_server(now, client, FailureKind::BadReply);
                return None;
            }
            _ => self.pass(bytes),
        }
        if let Some(call) = call {
            self.ended(now, &call);
            self.write_ready(now, ordering);
        }
        Some(length)
    }

    fn pass(&mut self, bytes: &[u8]) {
        let start = self.to_client.len();
        self.to_client.extend_from_slice(bytes);
        self.count_out(start);
    }

    /// Writes a reply with the changes of its call's route.
    fn write_reply(
        &mut self,
        server: &mut dyn Connection,
        client: &mut dyn Connection,
        call: &Call,
        bytes: &[u8],
        outcome: Outcome,
    ) {
        let shared = self.shared.clone();
        let mutation = call.route.and_then(|index| shared.routes.get(index)).map(|route| &route.response_mutation);
        let start = self.to_client.len();
        let result = match mutation.filter(|mutation| !mutation.is_empty()) {
            Some(mutation) => server.rewrite_reply(&call.ticket, bytes, mutation, &mut self.to_client),
            None => Err(EncodeError::Unsupported("nothing to change")),
        };
        match result {
            Ok(()) => self.count_out(start),
            // This frame has no place for headers: it goes as it is.
            Err(EncodeError::Unsupported(_)) => {
                self.to_client.truncate(start);
                self.pass(bytes);
            }
            Err(_) => {
                self.to_client.truncate(start);
                self.stats.count_error(FailureKind::BadReply);
                let reply = self.error_reply(client, &call.ticket, FailureKind::BadReply);
                return self.pass(&reply);
            }
        }
        self.count_reply(outcome);
    }

    fn count_reply(&mut self, outcome: Outcome) {
        self.stats.replies = self.stats.replies.saturating_add(1);
        match outcome {
            Outcome::Ok => {}
            Outcome::Exception => self.stats.exceptions = self.stats.exceptions.saturating_add(1),
            Outcome::Failure(_) => self.stats.failures = self.stats.failures.saturating_add(1),
        }
    }

    /// Nothing more comes from the server: answers what it owes.
    pub(super) fn lose_server(&mut self, now: Duration, client: &mut dyn Connection, kind: FailureKind) {
        if core::mem::replace(&mut self.server_gone, true) {
            return;
        }
        let mut owed = core::mem::take(&mut self.calls);
        for call in owed.sent() {
            let asked = call.ticket.kind != FrameKind::Heartbeat;
            call.reply = Some(if asked { self.error_reply(client, &call.ticket, kind) } else { Vec::new() });
            if asked {
                self.stats.count_error(kind);
            }
        }
        self.calls = owed;
        self.write_ready(now, self.ordering(client));
    }
}
