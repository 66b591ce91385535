//! Frames of the peer that steer the connection and its windows.

use super::{
    Connection, Error, ErrorCode, StreamId,
    frame::{self, Head, MAX_PAYLOAD, MAX_WINDOW, flag, kind, setting},
    receive::Happened,
};

impl Connection {
    pub(super) fn on_reset(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let code = payload.try_into().map(u32::from_be_bytes).map_err(|_| Error::frame_size("RST_STREAM"))?;
        if !self.was_opened(head.stream) || head.stream == StreamId::CONNECTION {
            return Err(Error::protocol("RST_STREAM on a stream that was never opened"));
        }
        if self.streams.position(head.stream).is_none() {
            return Ok(None);
        }
        self.chore()?;
        self.close(head.stream);
        Ok(Some(Happened::Reset { stream: head.stream, code }))
    }

    pub(super) fn on_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != StreamId::CONNECTION {
            return Err(Error::protocol("SETTINGS on a stream"));
        }
        if head.has(flag::ACK) {
            self.on_settled();
            return if payload.is_empty() { Ok(()) } else { Err(Error::frame_size("SETTINGS ACK")) };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Error::frame_size("SETTINGS"));
        }
        for [i1, i0, v3, v2, v1, v0] in settings {
            self.on_setting(u16::from_be_bytes([*i1, *i0]), u32::from_be_bytes([*v3, *v2, *v1, *v0]))?;
        }
        self.chore()?;
        frame::put(&mut self.out, kind::SETTINGS, flag::ACK, StreamId::CONNECTION, b"");
        self.flush();
        Ok(())
    }

    fn on_settled(&mut self) {
        if core::mem::replace(&mut self.settled, true) {
            return;
        }
        for stream in self.streams.iter_mut() {
            stream.receive.settle();
        }
        self.refill_all();
    }

    fn on_setting(&mut self, id: u16, value: u32) -> Result<(), Error> {
        match id {
            setting::INITIAL_WINDOW_SIZE => {
                let window = i64::from(value);
                if window > MAX_WINDOW {
                    return Err(Error::flow_control("initial window too large"));
                }
                let change = window.saturating_sub(self.peer.initial_window);
                self.peer.initial_window = window;
                for stream in self.streams.iter_mut() {
                    stream.send_window = stream.send_window.saturating_add(change);
                    if stream.send_window > MAX_WINDOW {
                        return Err(Error::flow_control("window too large"));
                    }
                }
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            setting::MAX_FRAME_SIZE => {
                let size = value as usize;
                if !(MAX_PAYLOAD..1 << 24).contains(&size) {
                    return Err(Error::protocol("frame size out of bounds"));
                }
                self.peer.max_frame = size;
            }
            setting::ENABLE_PUSH if value > 1 => return Err(Error::protocol("ENABLE_PUSH is neither 0 nor 1")),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn on_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != StreamId::CONNECTION {
            return Err(Error::protocol("PING on a stream"));
        }
        if payload.len() != 8 {
            return Err(Error::frame_size("PING"));
        }
        self.chore()?;
        if !head.has(flag::ACK) {
            frame::put(&mut self.out, kind::PING, flag::ACK, StreamId::CONNECTION, payload);
        }
        Ok(())
    }

    /// Counts a frame that costs us work, or an answer in the output, and brings nothing.
    pub(super) fn chore(&mut self) -> Result<(), Error> {
        self.chores = self.chores.saturating_add(1);
        if self.chores > MAX_CHORES { Err(Error::calm("a flood of frames that carry nothing")) } else { Ok(()) }
    }

    pub(super) fn on_go_away(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let [l3, l2, l1, l0, c3, c2, c1, c0, ..] = *payload else { return Err(Error::frame_size("GOAWAY")) };
        if head.stream != StreamId::CONNECTION {
            return Err(Error::protocol("GOAWAY on a stream"));
        }
        let last_stream = StreamId(u32::from_be_bytes([l3 & 0x7f, l2, l1, l0]));
        // The largest number is a notice: the final GOAWAY follows, and new streams are taken until then (RFC 9113, 6.8).
        self.going_away |= last_stream < StreamId(0x7fff_ffff);
        // What the peer does not take will never be answered.
        while let Some(refused) = self.streams.last().filter(|stream| *stream > last_stream && self.is_ours(*stream)) {
            self.close(refused);
        }
        Ok(Some(Happened::GoAway { last_stream, code: u32::from_be_bytes([c3, c2, c1, c0]) }))
    }

    pub(super) fn on_window_update(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let increment = payload.try_into().map(u32::from_be_bytes).map_err(|_| Error::frame_size("WINDOW_UPDATE"))?;
        let increment = i64::from(increment & 0x7fff_ffff);
        if increment == 0 && head.stream == StreamId::CONNECTION {
            return Err(Error::protocol("WINDOW_UPDATE of nothing"));
        }
        if head.stream == StreamId::CONNECTION {
            self.send_window = self.send_window.saturating_add(increment);
            if self.send_window > MAX_WINDOW {
                return Err(Error::flow_control("window too large"));
            }
        } else if let Some(open) = self.streams.by_id(head.stream) {
            open.send_window = open.send_window.saturating_add(increment);
            if open.send_window > MAX_WINDOW {
                return Ok(Some(self.stream_error(head.stream, ErrorCode::FlowControl)));
            }
            if increment == 0 {
                return Ok(Some(self.stream_error(head.stream, ErrorCode::Protocol)));
            }
        } else if !self.was_opened(head.stream) {
            return Err(Error::protocol("WINDOW_UPDATE on a stream that was never opened"));
        }
        self.flush();
        Ok(None)
    }
}

/// Far more than a sane peer sends between two looks at its bytes, and less than a megabyte of answers.
const MAX_CHORES: usize = 10_000;
