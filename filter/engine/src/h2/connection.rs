use super::{
    Error, ErrorCode, Event, HeaderWriter, Settings, StreamId,
    flow::ReceiveWindow,
    frame::{self, DEFAULT_WINDOW, MAX_PAYLOAD, MAX_WINDOW, PREFACE, flag, kind, setting},
    receive::{Happened, Reader},
    stream::{Streams, Then},
};

/// One end of an HTTP/2 connection.
///
/// Bytes for the peer collect in [`output`](Self::output); bytes of the peer go into
/// [`next_event`](Self::next_event).
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) settings: Settings,
    pub(super) out: Vec<u8>,
    pub(super) streams: Streams,
    pub(super) reader: Reader,
    /// Bytes the peer takes on all streams together.
    pub(super) send_window: i64,
    pub(super) receive: ReceiveWindow,
    pub(super) peer: PeerSettings,
    /// Number of the next stream that we open.
    pub(super) next_stream: u32,
    /// Largest number of a stream that the peer opened.
    pub(super) last_peer_stream: u32,
    /// The peer takes no more streams.
    pub(super) going_away: bool,
    /// The last stream that our GOAWAY said we take.
    pub(super) away: Option<u32>,
    /// The rule that the peer broke; nothing is read after it.
    failed: Option<Error>,
    /// Frames since the host last took our output that cost us work and bring nothing.
    pub(super) chores: usize,
    /// The peer has seen our settings.
    pub(super) settled: bool,
    pub(super) hold: bool,
    pub(super) unsent: usize,
    /// A header block in the making.
    pub(super) block: Vec<u8>,
    /// The first header block says that we use no dynamic table.
    pub(super) table_announced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// What the peer announced.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerSettings {
    pub(super) initial_window: i64,
    pub(super) max_streams: u32,
    pub(super) max_frame: usize,
}

impl Connection {
    /// The end that opens streams.
    pub fn client(settings: &Settings) -> Self {
        let mut connection = Self::new(Role::Client, settings);
        connection.out.extend_from_slice(PREFACE);
        // No table: the peer's blocks then need no memory of ours.
        connection.announce(&[(setting::HEADER_TABLE_SIZE, 0), (setting::ENABLE_PUSH, 0)]);
        connection
    }

    /// The end that answers them.
    pub fn server(settings: &Settings) -> Self {
        let mut connection = Self::new(Role::Server, settings);
        connection.announce(&[(setting::MAX_CONCURRENT_STREAMS, MAX_STREAMS)]);
        connection
    }

    fn new(role: Role, settings: &Settings) -> Self {
        let connection_window = settings.connection_window.clamp(DEFAULT_WINDOW as u32, MAX_WINDOW as u32);
        let initial_window = settings.initial_window.min(MAX_WINDOW as u32);
        Self {
            role,
            settings: Settings { connection_window, initial_window, ..*settings },
            out: Vec::new(),
            streams: Streams::default(),
            reader: Reader::new(role),
            send_window: DEFAULT_WINDOW,
            receive: ReceiveWindow::new(connection_window),
            peer: PeerSettings { initial_window: DEFAULT_WINDOW, max_streams: u32::MAX, max_frame: MAX_PAYLOAD },
            next_stream: 1,
            last_peer_stream: 0,
            going_away: false,
            away: None,
            failed: None,
            chores: 0,
            settled: false,
            hold: false,
            unsent: 0,
            block: Vec::new(),
            table_announced: false,
        }
    }

    fn announce(&mut self, more: &[(u16, u32)]) {
        let mut all = more.to_vec();
        all.push((setting::INITIAL_WINDOW_SIZE, self.settings.initial_window));
        all.push((setting::MAX_HEADER_LIST_SIZE, self.settings.max_header_list));
        frame::put_settings(&mut self.out, &all);
        let more = self.settings.connection_window.saturating_sub(DEFAULT_WINDOW as u32);
        if more > 0 {
            frame::put_window_update(&mut self.out, StreamId::CONNECTION, more);
        }
    }

    /// Bytes for the peer; the host takes and clears them.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.chores = 0;
        &mut self.out
    }

    /// A stream may be opened now.
    pub fn can_open(&self) -> bool {
        self.role == Role::Client
            && !self.going_away
            && self.failed.is_none()
            && !self.is_used_up()
            && u32::try_from(self.streams.len()).is_ok_and(|open| open < self.peer.max_streams)
    }

    /// All numbers of streams were given: none can ever be opened again.
    pub fn is_used_up(&self) -> bool {
        self.next_stream >= 1 << 31
    }

    /// As if that many streams had been opened and ended before the next one.
    #[cfg(test)]
    pub(crate) fn use_up(&mut self, streams: u32) {
        self.next_stream = self.next_stream.saturating_add(streams.saturating_mul(2));
    }

    /// The stream has not ended on both sides.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams.position(stream).is_some()
    }

    /// Opens a stream with its headers; `None` if none may be opened now.
    pub fn open(&mut self, headers: &mut dyn FnMut(&mut HeaderWriter<'_>), end_stream: bool) -> Option<StreamId> {
        if !self.can_open() {
            return None;
        }
        let stream = StreamId(self.next_stream);
        self.next_stream = self.next_stream.saturating_add(2);
        self.streams.open(stream, self.peer.initial_window, self.new_window());
        self.write_block(headers);
        self.put_block(stream, end_stream);
        if end_stream {
            self.local_done(stream);
        }
        Some(stream)
    }

    /// Sends headers on an open stream: a response, or trailers behind what was sent before.
    pub fn send_headers(&mut self, stream: StreamId, headers: &mut dyn FnMut(&mut HeaderWriter<'_>), end_stream: bool) {
        if self.streams.by_id(stream).is_none_or(|open| open.local_done) {
            return;
        }
        self.write_block(headers);
        if let Some(open) = self.streams.by_id(stream).filter(|open| !open.outbox.is_empty()) {
            open.outbox.then = Then::Trailers(core::mem::take(&mut self.block));
            open.local_done = true;
            return;
        }
        self.put_block(stream, end_stream);
        if end_stream {
            self.local_done(stream);
        }
    }

    /// Sends a piece of a body. What the windows do not allow yet is kept, see [`unsent`](Self::unsent).
    pub fn send_data(&mut self, stream: StreamId, data: &[u8], end_stream: bool) {
        let Some(open) = self.streams.by_id(stream).filter(|open| !open.local_done) else { return };
        let waits = !open.outbox.is_empty();
        let sent = if waits { 0 } else { self.put_data(stream, data, end_stream) };
        let rest = data.get(sent..).unwrap_or_default();
        if rest.is_empty() && !waits {
            if end_stream {
                if data.is_empty() {
                    frame::put(&mut self.out, kind::DATA, flag::END_STREAM, stream, b"");
                }
                self.local_done(stream);
            }
            return;
        }
        self.unsent = self.unsent.saturating_add(rest.len());
        if let Some(open) = self.streams.by_id(stream) {
            open.outbox.push(rest);
            if end_stream {
                open.outbox.then = Then::End;
                open.local_done = true;
            }
        }
    }

    /// Ends a stream at once.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) {
        if self.streams.position(stream).is_some() {
            frame::put(&mut self.out, kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes());
            self.close(stream);
        }
    }

    /// Tells the peer to open no more streams.
    pub fn go_away(&mut self, code: ErrorCode) {
        let mut payload = [0; 8];
        let (last, reason) = payload.split_at_mut(4);
        // A later GOAWAY must not take more than an earlier one (RFC 9113, section 6.8).
        let last_stream = *self.away.get_or_insert(self.last_peer_stream);
        last.copy_from_slice(&last_stream.to_be_bytes());
        reason.copy_from_slice(&(code as u32).to_be_bytes());
        frame::put(&mut self.out, kind::GOAWAY, 0, StreamId::CONNECTION, &payload);
    }

    /// Has the peer write something back, at once.
    pub fn ping(&mut self) {
        frame::put(&mut self.out, kind::PING, 0, StreamId::CONNECTION, &[0; 8]);
    }

    /// Body bytes of all streams that wait for window.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// `true`: the peer is given no more window until `false`.
    pub fn hold_windows(&mut self, hold: bool) {
        self.hold = hold;
        self.refill_all();
    }

    /// Streams that have not ended on both sides.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Reads from the front of `input` up to the next event; `None` if all of it was read. Parts of frames are kept,
    /// bodies are lent as they come.
    ///
    /// # Errors
    /// If the peer broke a rule; the output then ends with our GOAWAY and the connection is of no more use.
    pub fn next_event<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Event<'a>>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let happened = match self.advance(input) {
            Ok(Some(happened)) => happened,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.failed = Some(error);
                self.go_away(error.code);
                return Err(error);
            }
        };
        let headers = self.reader.headers.headers();
        Ok(Some(match happened {
            Happened::Headers { stream, end_stream } => Event::Headers { stream, headers, end_stream },
            Happened::Trailers { stream } => Event::Trailers { stream, headers },
            Happened::Data { stream, data, end_stream } => Event::Data { stream, data, end_stream },
            Happened::Reset { stream, code } => Event::Reset { stream, code },
            Happened::GoAway { last_stream, code } => Event::GoAway { last_stream, code },
        }))
    }

    /// Gives window back for what was received, on the connection and on a stream.
    pub(super) fn refill(&mut self, stream: Option<StreamId>) {
        if self.hold {
            return;
        }
        self.receive.refill(StreamId::CONNECTION, &mut self.out);
        if let Some(open) = stream.and_then(|id| self.streams.by_id(id)).filter(|open| !open.remote_done) {
            open.receive.refill(open.id, &mut self.out);
        }
    }

    pub(super) fn refill_all(&mut self) {
        if self.hold {
            return;
        }
        self.refill(None);
        for stream in self.streams.iter_mut().filter(|stream| !stream.remote_done) {
            stream.receive.refill(stream.id, &mut self.out);
        }
    }

    pub(super) fn new_window(&self) -> ReceiveWindow {
        let full = self.settings.initial_window;
        if self.settled { ReceiveWindow::new(full) } else { ReceiveWindow::unsettled(full) }
    }

    /// The last of a stream went out; nothing of it waits any more.
    pub(super) fn local_done(&mut self, stream: StreamId) {
        if let Some(open) = self.streams.by_id(stream) {
            open.local_done = true;
            if open.remote_done {
                self.close(stream);
            }
        }
    }

    pub(super) fn remote_done(&mut self, stream: StreamId) {
        if let Some(open) = self.streams.by_id(stream) {
            open.remote_done = true;
            if open.local_done && open.outbox.is_empty() {
                self.close(stream);
            }
        }
    }

    pub(super) fn close(&mut self, stream: StreamId) {
        let waiting = self.streams.close(stream);
        self.unsent = self.unsent.saturating_sub(waiting);
    }

    /// The stream's number is one of those that we give.
    pub(super) fn is_ours(&self, stream: StreamId) -> bool {
        (stream.0 % 2 == 1) == (self.role == Role::Client)
    }

    /// The stream was opened at some time, by whichever end.
    pub(super) fn was_opened(&self, stream: StreamId) -> bool {
        if self.is_ours(stream) { stream.0 < self.next_stream } else { stream.0 <= self.last_peer_stream }
    }
}

/// Streams that a client may have open at the same time; as many as the HTTP connection manager allows.
pub(super) const MAX_STREAMS: u32 = 1024;
