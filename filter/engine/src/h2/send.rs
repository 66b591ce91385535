//! Writing frames, as far as the peer's windows go.

use super::{
    Connection, HeaderWriter, StreamId,
    frame::{self, flag, kind},
    stream::Then,
};

impl Connection {
    /// Window was gained: sends what waits for it, oldest stream first.
    pub(super) fn flush(&mut self) {
        let mut index = 0;
        while self.unsent > 0 {
            let Some(stream) = self.streams.at(index) else { break };
            let (id, before) = (stream.id, stream.outbox.waiting().len());
            if before > 0 && stream.send_window > 0 {
                self.flush_stream(id);
            }
            // A stream that has ended made room for the next one at its place.
            if self.streams.at(index).is_some_and(|stream| stream.id == id) {
                index = index.saturating_add(1);
            }
            if self.send_window <= 0 {
                break;
            }
        }
    }

    fn flush_stream(&mut self, id: StreamId) {
        let Some(open) = self.streams.by_id(id) else { return };
        let mut outbox = core::mem::take(&mut open.outbox);
        let ends = matches!(outbox.then, Then::End);
        let sent = self.put_data(id, outbox.waiting(), ends);
        self.unsent = self.unsent.saturating_sub(sent);
        outbox.start = outbox.start.saturating_add(sent);
        if !outbox.is_empty() {
            if let Some(open) = self.streams.by_id(id) {
                open.outbox = outbox;
            }
            return;
        }
        outbox.bytes.clear();
        outbox.start = 0;
        let then = core::mem::take(&mut outbox.then);
        if let Some(open) = self.streams.by_id(id) {
            open.outbox = outbox;
        }
        match then {
            Then::More => {}
            Then::End => self.local_done(id),
            Then::Trailers(block) => {
                self.block = block;
                self.put_block(id, true);
                self.local_done(id);
            }
        }
    }

    /// Writes as much of `data` as the windows allow; the last frame ends the stream if `end` and all went out.
    pub(super) fn put_data(&mut self, id: StreamId, data: &[u8], end: bool) -> usize {
        let mut sent = 0usize;
        let Some(index) = self.streams.position(id) else { return 0 };
        while let Some(open) = self.streams.at(index) {
            let rest = data.get(sent..).unwrap_or_default();
            let window = usize::try_from(open.send_window.min(self.send_window)).unwrap_or(0);
            let length = rest.len().min(window).min(self.peer.max_frame);
            let Some(piece) = rest.get(..length).filter(|piece| !piece.is_empty()) else { break };
            let flags = if end && length == rest.len() { flag::END_STREAM } else { 0 };
            frame::put(&mut self.out, kind::DATA, flags, id, piece);
            sent = sent.saturating_add(length);
            open.send_window = open.send_window.saturating_sub(length as i64);
            self.send_window = self.send_window.saturating_sub(length as i64);
        }
        sent
    }

    pub(super) fn write_block(&mut self, headers: &mut dyn FnMut(&mut HeaderWriter<'_>)) {
        self.block.clear();
        if !core::mem::replace(&mut self.table_announced, true) {
            // Dynamic table size update to 0 (RFC 7541, section 6.3): due if the peer's setting is below the default.
            self.block.push(0x20);
        }
        headers(&mut HeaderWriter::new(&mut self.block));
    }

    pub(super) fn put_block(&mut self, stream: StreamId, end_stream: bool) {
        let end_stream = if end_stream { flag::END_STREAM } else { 0 };
        let max = self.peer.max_frame;
        let mut rest = self.block.as_slice();
        let mut first = true;
        loop {
            let (piece, behind) = rest.split_at_checked(max).unwrap_or((rest, &[]));
            let end_headers = if behind.is_empty() { flag::END_HEADERS } else { 0 };
            let (kind, flags) = if first { (kind::HEADERS, end_stream) } else { (kind::CONTINUATION, 0) };
            frame::put(&mut self.out, kind, flags | end_headers, stream, piece);
            if behind.is_empty() {
                break;
            }
            (rest, first) = (behind, false);
        }
    }
}
