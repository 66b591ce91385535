//! Reading what the peer sends.

use super::{
    Connection, Error, ErrorCode, StreamId,
    connection::Role,
    frame::{self, HEAD, Head, MAX_PAYLOAD, MAX_WINDOW, PREFACE, flag, kind, setting},
    hpack::{Decoder, HeaderBlock, HpackError},
};

/// Answers to the peer's PINGs and SETTINGS that may wait in the output: a peer that asks without reading is cut off.
const MAX_ANSWERS: usize = 1024 * 1024;

/// Where the reader stands in the peer's bytes.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// Bytes of a head or payload that is not whole.
    partial: Vec<u8>,
    /// Header block in pieces, and what its first frame said.
    block: Vec<u8>,
    block_of: Option<(StreamId, bool)>,
    decoder: Decoder,
    pub(super) headers: HeaderBlock,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Preface,
    Head,
    Payload(Head),
    /// In a DATA frame, with so many bytes of body and then of padding to come.
    Data { stream: StreamId, body: usize, padding: usize, end_stream: bool },
}

/// An event without what it borrows from the connection.
pub(super) enum Happened<'i> {
    Headers { stream: StreamId, end_stream: bool },
    Trailers { stream: StreamId },
    Data { stream: StreamId, data: &'i [u8], end_stream: bool },
    Reset { stream: StreamId, code: u32 },
    GoAway { last_stream: StreamId, code: u32 },
}

impl Reader {
    pub(super) const fn new(role: Role) -> Self {
        Self {
            state: match role {
                Role::Client => State::Head,
                Role::Server => State::Preface,
            },
            partial: Vec::new(),
            block: Vec::new(),
            block_of: None,
            decoder: Decoder::new(),
            headers: HeaderBlock::new(),
        }
    }

    /// Takes `length` bytes off the input, or keeps what there is and waits for more.
    fn take<const N: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        let missing = N.saturating_sub(self.partial.len()).min(input.len());
        let (head, rest) = input.split_at_checked(missing)?;
        *input = rest;
        if let (true, Ok(whole)) = (self.partial.is_empty(), head.try_into()) {
            return Some(whole);
        }
        self.partial.extend_from_slice(head);
        let whole = self.partial.as_slice().try_into().ok()?;
        self.partial.clear();
        Some(whole)
    }
}

impl Connection {
    pub(super) fn advance<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Happened<'i>>, Error> {
        loop {
            match self.reader.state {
                State::Preface => {
                    let Some(preface) = self.reader.take::<{ PREFACE.len() }>(input) else { return Ok(None) };
                    if preface != *PREFACE {
                        return Err(Error::protocol("not the HTTP/2 preface"));
                    }
                    self.reader.state = State::Head;
                }
                State::Head => {
                    let Some(head) = self.reader.take::<HEAD>(input) else { return Ok(None) };
                    self.reader.state = State::Payload(self.check_head(Head::read(head))?);
                }
                State::Payload(head) if head.kind == kind::DATA => {
                    // Only the padding's length is awaited; the body is lent as it comes.
                    let mut body = head.length;
                    let mut padding = 0;
                    if head.has(flag::PADDED) {
                        let Some([length]) = self.reader.take::<1>(input) else { return Ok(None) };
                        padding = usize::from(length);
                        body = body
                            .checked_sub(padding.saturating_add(1))
                            .ok_or(Error::protocol("more padding than frame"))?;
                    }
                    let end_stream = head.has(flag::END_STREAM);
                    self.reader.state = State::Data { stream: head.stream, body, padding, end_stream };
                    if let Some(reset) = self.begin_data(head)? {
                        return Ok(Some(reset));
                    }
                    if body == 0 && !end_stream {
                        continue;
                    }
                    if let Some(happened) = self.lend_data(input, true) {
                        return Ok(Some(happened));
                    }
                }
                State::Payload(head) => {
                    let missing = head.length.saturating_sub(self.reader.partial.len()).min(input.len());
                    let Some((piece, rest)) = input.split_at_checked(missing) else { return Ok(None) };
                    *input = rest;
                    let happened = if self.reader.partial.is_empty() && piece.len() == head.length {
                        self.reader.state = State::Head;
                        self.on_frame(head, piece)?
                    } else {
                        self.reader.partial.extend_from_slice(piece);
                        if self.reader.partial.len() < head.length {
                            return Ok(None);
                        }
                        self.reader.state = State::Head;
                        let mut payload = core::mem::take(&mut self.reader.partial);
                        let happened = self.on_frame(head, &payload)?;
                        payload.clear();
                        self.reader.partial = payload;
                        happened
                    };
                    if let Some(happened) = happened {
                        return Ok(Some(happened));
                    }
                }
                State::Data { .. } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    if let Some(happened) = self.lend_data(input, false) {
                        return Ok(Some(happened));
                    }
                }
            }
        }
    }

    fn check_head(&self, head: Head) -> Result<Head, Error> {
        if head.length > MAX_PAYLOAD {
            return Err(Error::frame_size("frame larger than announced"));
        }
        match self.reader.block_of {
            Some((stream, _)) if head.kind != kind::CONTINUATION || head.stream != stream => {
                Err(Error::protocol("a header block was interrupted"))
            }
            None if head.kind == kind::CONTINUATION => Err(Error::protocol("CONTINUATION of nothing")),
            _ => Ok(head),
        }
    }

    /// Accounts a whole DATA frame at its head.
    fn begin_data(&mut self, head: Head) -> Result<Option<Happened<'static>>, Error> {
        if head.stream == StreamId::CONNECTION || !self.was_opened(head.stream) {
            return Err(Error::protocol("DATA on a stream that was never opened"));
        }
        if !self.receive.take(head.length) {
            return Err(Error::flow_control("more than the connection's window"));
        }
        let Some(open) = self.streams.by_id(head.stream) else {
            // We reset it, and the peer did not know yet.
            self.refill(None);
            return Ok(None);
        };
        let broken = if open.remote_done {
            Some(ErrorCode::StreamClosed)
        } else if !open.receive.take(head.length) {
            Some(ErrorCode::FlowControl)
        } else {
            None
        };
        Ok(broken.map(|code| self.stream_error(head.stream, code)))
    }

    fn stream_error(&mut self, stream: StreamId, code: ErrorCode) -> Happened<'static> {
        self.reset(stream, code);
        Happened::Reset { stream, code: code as u32 }
    }

    /// Lends the next piece of the body, then drops the padding. `at_once`: also if there is nothing to lend yet but
    /// the frame is empty.
    fn lend_data<'i>(&mut self, input: &mut &'i [u8], at_once: bool) -> Option<Happened<'i>> {
        let State::Data { stream, body, padding, end_stream } = self.reader.state else { return None };
        if body == 0 && !at_once {
            let dropped = padding.min(input.len());
            *input = input.get(dropped..).unwrap_or_default();
            self.data_state(stream, 0, padding.saturating_sub(dropped), end_stream);
            return None;
        }
        let (data, rest) = input.split_at_checked(body.min(input.len()))?;
        if data.is_empty() && body > 0 {
            return None;
        }
        *input = rest;
        let left = body.saturating_sub(data.len());
        self.data_state(stream, left, padding, end_stream);
        self.streams.position(stream)?;
        let end_stream = end_stream && left == 0;
        if end_stream {
            self.remote_done(stream);
        }
        self.refill(Some(stream));
        Some(Happened::Data { stream, data, end_stream })
    }

    fn data_state(&mut self, stream: StreamId, body: usize, padding: usize, end_stream: bool) {
        self.reader.state =
            if body == 0 && padding == 0 { State::Head } else { State::Data { stream, body, padding, end_stream } };
    }

    fn on_frame(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        match head.kind {
            kind::HEADERS => self.on_headers(head, payload),
            kind::CONTINUATION => self.on_continuation(head, payload),
            kind::RST_STREAM => self.on_reset(head, payload),
            kind::SETTINGS => self.on_settings(head, payload).map(|()| None),
            kind::PING => self.on_ping(head, payload).map(|()| None),
            kind::GOAWAY => self.on_go_away(head, payload),
            kind::WINDOW_UPDATE => self.on_window_update(head, payload),
            kind::PUSH_PROMISE => Err(Error::protocol("push was not allowed")),
            // PRIORITY says nothing to us; unknown kinds are to be passed over.
            _ => Ok(None),
        }
    }

    fn on_headers(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let mut block = payload;
        if head.has(flag::PADDED) {
            let (length, rest) = block.split_first().ok_or(Error::frame_size("no padding length"))?;
            let end = rest.len().checked_sub(usize::from(*length)).ok_or(Error::protocol("more padding than frame"))?;
            block = rest.get(..end).unwrap_or_default();
        }
        if head.has(flag::PRIORITY) {
            block = block.get(5..).ok_or(Error::frame_size("no priority"))?;
        }
        let end_stream = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.on_block(head.stream, end_stream, block);
        }
        self.reader.block.clear();
        self.reader.block.extend_from_slice(block);
        self.reader.block_of = Some((head.stream, end_stream));
        Ok(None)
    }

    fn on_continuation(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let Some((stream, end_stream)) = self.reader.block_of else { return Ok(None) };
        let max = self.settings.max_header_list as usize;
        // An empty CONTINUATION costs its sender nine bytes and could go on for ever.
        if payload.is_empty() || self.reader.block.len().saturating_add(payload.len()) > max {
            return Err(Error::calm("header block without end"));
        }
        self.reader.block.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(None);
        }
        self.reader.block_of = None;
        let block = core::mem::take(&mut self.reader.block);
        let happened = self.on_block(stream, end_stream, &block);
        self.reader.block = block;
        happened
    }

    fn on_block(
        &mut self,
        id: StreamId,
        end_stream: bool,
        block: &[u8],
    ) -> Result<Option<Happened<'static>>, Error> {
        let max = self.settings.max_header_list as usize;
        // Read even for streams that are gone: both ends must agree on the table.
        self.reader.decoder.decode(block, max, &mut self.reader.headers).map_err(|error| match error {
            HpackError::Invalid => Error { code: ErrorCode::Compression, reason: "not a header block" },
            HpackError::TooLarge => Error::calm("headers larger than announced"),
        })?;
        if self.role == Role::Server && id.0 % 2 == 1 && id.0 > self.last_peer_stream {
            self.last_peer_stream = id.0;
            self.streams.open(id, self.peer.initial_window, self.new_window());
        }
        if id == StreamId::CONNECTION || !self.was_opened(id) {
            return Err(Error::protocol("HEADERS on a stream that was never opened"));
        }
        let interim = self.role == Role::Client
            && self.reader.headers.headers().first(b":status").is_some_and(|status| status.starts_with(b"1"));
        let Some(open) = self.streams.by_id(id) else { return Ok(None) };
        if open.remote_done {
            return Ok(Some(self.stream_error(id, ErrorCode::StreamClosed)));
        }
        let trailers = open.headers_seen;
        if (trailers || interim) && end_stream == interim {
            return Ok(Some(self.stream_error(id, ErrorCode::Protocol)));
        }
        open.headers_seen = !interim;
        if end_stream {
            self.remote_done(id);
        }
        Ok(Some(if trailers { Happened::Trailers { stream: id } } else { Happened::Headers { stream: id, end_stream } }))
    }

    fn on_reset(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let code = payload.try_into().map(u32::from_be_bytes).map_err(|_| Error::frame_size("RST_STREAM"))?;
        if !self.was_opened(head.stream) || head.stream == StreamId::CONNECTION {
            return Err(Error::protocol("RST_STREAM on a stream that was never opened"));
        }
        if self.streams.position(head.stream).is_none() {
            return Ok(None);
        }
        self.close(head.stream);
        Ok(Some(Happened::Reset { stream: head.stream, code }))
    }

    fn on_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
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
        frame::put(&mut self.out, kind::SETTINGS, flag::ACK, StreamId::CONNECTION, b"");
        self.flush();
        self.check_answers()
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

    fn on_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != StreamId::CONNECTION {
            return Err(Error::protocol("PING on a stream"));
        }
        if payload.len() != 8 {
            return Err(Error::frame_size("PING"));
        }
        if !head.has(flag::ACK) {
            frame::put(&mut self.out, kind::PING, flag::ACK, StreamId::CONNECTION, payload);
        }
        self.check_answers()
    }

    fn check_answers(&self) -> Result<(), Error> {
        if self.out.len() > MAX_ANSWERS && self.streams.len() == 0 {
            return Err(Error::calm("too many PINGs or SETTINGS"));
        }
        Ok(())
    }

    fn on_go_away(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let [l3, l2, l1, l0, c3, c2, c1, c0, ..] = *payload else { return Err(Error::frame_size("GOAWAY")) };
        if head.stream != StreamId::CONNECTION {
            return Err(Error::protocol("GOAWAY on a stream"));
        }
        let last_stream = StreamId(u32::from_be_bytes([l3 & 0x7f, l2, l1, l0]));
        // The largest number is a notice: the final GOAWAY follows, and new streams are taken until then (RFC 9113, 6.8).
        self.going_away |= last_stream < StreamId(0x7fff_ffff);
        Ok(Some(Happened::GoAway {
            last_stream,
            code: u32::from_be_bytes([c3, c2, c1, c0]),
        }))
    }

    fn on_window_update(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let increment = payload.try_into().map(u32::from_be_bytes).map_err(|_| Error::frame_size("WINDOW_UPDATE"))?;
        let increment = i64::from(increment & 0x7fff_ffff);
        if head.stream == StreamId::CONNECTION {
            self.send_window = self.send_window.saturating_add(increment);
            if increment == 0 || self.send_window > MAX_WINDOW {
                return Err(Error::flow_control("window out of bounds"));
            }
        } else if let Some(open) = self.streams.by_id(head.stream) {
            open.send_window = open.send_window.saturating_add(increment);
            if increment == 0 || open.send_window > MAX_WINDOW {
                return Ok(Some(self.stream_error(head.stream, ErrorCode::FlowControl)));
            }
        } else if !self.was_opened(head.stream) {
            return Err(Error::protocol("WINDOW_UPDATE on a stream that was never opened"));
        }
        self.flush();
        Ok(None)
    }
}
