//! Bytes received but not yet decoded.

use meltemi_core::{Connection, DecodeError, Decoded, InFlight};

/// Decodes the frame at the start of `data`. A frame of no bytes, which would be found there for ever, is an error.
pub(crate) fn decode<'a>(
    connection: &'a mut dyn Connection,
    data: &'a [u8],
    in_flight: &dyn InFlight,
) -> Result<Decoded<'a>, DecodeError> {
    const EMPTY: DecodeError = DecodeError::malformed("a frame of no bytes", 0);
    match connection.decode(data, in_flight)? {
        Decoded::Frame(frame) if frame.bytes.is_empty() => Err(EMPTY),
        Decoded::Rejected(rejected) if rejected.length == 0 => Err(EMPTY),
        decoded => Ok(decoded),
    }
}

/// Capacity that an empty buffer may keep; idle connections hold no more.
const KEEP: usize = 16 * 1024;

/// Bytes left over from earlier reads. Whole frames are decoded from the pieces the host gives; only what is left over
/// is copied here.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    start: usize,
}

impl Pending {
    pub(crate) fn append(&mut self, data: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(data);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    pub(crate) fn consume(&mut self, length: usize) {
        self.start = self.start.saturating_add(length).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
    }
}

/// How far the decoding of the next frame is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes that must be there before it is worth decoding again.
    wanted: usize,
    /// Bytes of a rejected frame that are still to come, to be thrown away.
    skip: u64,
}

impl Progress {
    /// There may be a whole frame in `available` bytes.
    pub(crate) fn is_worth_trying(&self, available: usize) -> bool {
        available > 0 && available >= self.wanted
    }

    /// The frame at the front needs `needed` bytes more than the `available` ones.
    pub(crate) fn want(&mut self, available: usize, needed: usize) {
        self.wanted = available.saturating_add(needed.max(1));
    }

    /// The next frame starts.
    pub(crate) fn next_frame(&mut self) {
        self.wanted = 0;
    }

    /// A frame of `length` bytes will not be taken; those that are not `there` yet are thrown away when they come.
    pub(crate) fn reject(&mut self, length: u64, there: usize) {
        self.skip = length.saturating_sub(there as u64);
    }

    /// Takes the bytes of a rejected frame off the front of `data`.
    pub(crate) fn without_rejected<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
        self.skip = self.skip.saturating_sub(skipped as u64);
        data.get(skipped..).unwrap_or_default()
    }
}

/// Empties a buffer whose bytes were dealt with; a big one gives its memory back.
pub(crate) fn release(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(4 * KEEP);
}
