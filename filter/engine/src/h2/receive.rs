//! Reading what the peer sends.

use super::{
    Connection, Error, ErrorCode, StreamId,
    connection::Role,
    frame::{HEAD, Head, MAX_PAYLOAD, PREFACE, flag, kind},
    hpack::{Decoder, HeaderBlock},
};

/// Where the reader stands in the peer's bytes.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// The peer's first frame, its SETTINGS, was there.
    begun: bool,
    /// Bytes of a head or payload that is not whole.
    partial: Vec<u8>,
    /// Header block in pieces, and what its first frame said.
    pub(super) block: Vec<u8>,
    pub(super) block_of: Option<(StreamId, bool)>,
    pub(super) decoder: Decoder,
    pub(super) headers: HeaderBlock,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Preface,
    Head,
    Payload(Head),
    /// In a DATA frame, with so many bytes of body and then of padding to come.
    Data {
        stream: StreamId,
        body: usize,
        padding: usize,
        end_stream: bool,
    },
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
            begun: false,
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
                        self.chore()?;
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

    fn check_head(&mut self, head: Head) -> Result<Head, Error> {
        if head.length > MAX_PAYLOAD {
            return Err(Error::frame_size("frame larger than announced"));
        }
        if !core::mem::replace(&mut self.reader.begun, true) && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Error::protocol("does not begin with SETTINGS"));
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
        } else if !open.headers_seen {
            Some(ErrorCode::Protocol)
        } else if !open.receive.take(head.length) {
            Some(ErrorCode::FlowControl)
        } else {
            None
        };
        Ok(broken.map(|code| self.stream_error(head.stream, code)))
    }

    /// Ends a stream whose peer broke a rule that does not touch the others.
    pub(super) fn stream_error(&mut self, stream: StreamId, code: ErrorCode) -> Happened<'static> {
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
}
