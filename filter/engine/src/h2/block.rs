//! Header blocks that the peer sends.

use super::{
    Connection, Error, ErrorCode, Headers, StreamId,
    connection::{MAX_STREAMS, Role},
    frame::{self, Head, flag, kind},
    hpack::HpackError,
    receive::Happened,
};

impl Connection {
    pub(super) fn on_headers(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
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

    pub(super) fn on_continuation(&mut self, head: Head, payload: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let Some((stream, end_stream)) = self.reader.block_of else { return Ok(None) };
        let max = self.settings.max_header_list as usize;
        // An empty CONTINUATION costs its sender nine bytes and could go on for ever.
        let goes_nowhere = payload.is_empty() && !head.has(flag::END_HEADERS);
        if goes_nowhere || self.reader.block.len().saturating_add(payload.len()) > max {
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

    fn on_block(&mut self, id: StreamId, end_stream: bool, block: &[u8]) -> Result<Option<Happened<'static>>, Error> {
        let max = self.settings.max_header_list as usize;
        // Read even for streams that are gone: both ends must agree on the table.
        let too_large = match self.reader.decoder.decode(block, max, &mut self.reader.headers) {
            Ok(()) => false,
            Err(HpackError::Invalid) => {
                return Err(Error { code: ErrorCode::Compression, reason: "not a header block" });
            }
            // The rest of the block was not read. It can only matter to later blocks through the table.
            Err(HpackError::TooLarge) if self.reader.decoder.has_no_table() => true,
            Err(HpackError::TooLarge) => return Err(Error::calm("headers larger than announced")),
        };
        if self.role == Role::Server && !self.accept(id)? {
            return Ok(None);
        }
        if id == StreamId::CONNECTION || !self.was_opened(id) {
            return Err(Error::protocol("HEADERS on a stream that was never opened"));
        }
        let headers = self.reader.headers.headers();
        let Some(open) = self.streams.by_id(id) else { return Ok(None) };
        if open.remote_done {
            return Ok(Some(self.stream_error(id, ErrorCode::StreamClosed)));
        }
        if too_large {
            return Ok(Some(self.stream_error(id, ErrorCode::EnhanceYourCalm)));
        }
        let trailers = open.headers_seen;
        let interim = !trailers && self.role == Role::Client && is_interim(headers);
        let needed: Option<&[u8]> = match self.role {
            _ if trailers => None,
            Role::Client => Some(b":status"),
            Role::Server => Some(b":method"),
        };
        if !is_well_formed(headers, needed) || (trailers && !end_stream) || (interim && end_stream) {
            return Ok(Some(self.stream_error(id, ErrorCode::Protocol)));
        }
        open.headers_seen = !interim;
        if end_stream {
            self.remote_done(id);
        }
        Ok(Some(if trailers {
            Happened::Trailers { stream: id }
        } else {
            Happened::Headers { stream: id, end_stream }
        }))
    }

    /// Opens the stream of a client if it is a new one; `false` if it is passed over.
    fn accept(&mut self, id: StreamId) -> Result<bool, Error> {
        if self.is_ours(id) || id.0 <= self.last_peer_stream {
            return Ok(true);
        }
        self.last_peer_stream = id.0;
        if self.away.is_some() {
            return Ok(false);
        }
        if u32::try_from(self.streams.len()).is_ok_and(|open| open < MAX_STREAMS) {
            self.streams.open(id, self.peer.initial_window, self.new_window());
            return Ok(true);
        }
        self.chore()?;
        frame::put(&mut self.out, kind::RST_STREAM, 0, id, &(ErrorCode::RefusedStream as u32).to_be_bytes());
        Ok(false)
    }
}

fn is_interim(headers: Headers<'_>) -> bool {
    headers.first(b":status").is_some_and(|status| status.starts_with(b"1"))
}

/// Pseudo headers come first and only where they may; those of a request or response have what makes them one
/// (RFC 9113, section 8.3).
fn is_well_formed(headers: Headers<'_>, needed: Option<&[u8]>) -> bool {
    let is_pseudo = |name: &[u8]| name.starts_with(b":");
    let pseudo = headers.iter().take_while(|(name, _)| is_pseudo(name)).count();
    let late = headers.iter().skip(pseudo).any(|(name, _)| is_pseudo(name));
    let lower = headers.iter().all(|(name, _)| !name.is_empty() && !name.iter().any(u8::is_ascii_uppercase));
    let whole = needed.map_or(pseudo == 0, |name| headers.first(name).is_some());
    whole && lower && !late
}
