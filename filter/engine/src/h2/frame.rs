//! Frames on the wire (RFC 9113, sections 4 and 6).

use super::stream::StreamId;

pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of a frame's head.
pub(super) const HEAD: usize = 9;

/// Largest payload both ends start with; we never announce more.
pub(super) const MAX_PAYLOAD: usize = 16_384;

/// Window both ends start with.
pub(super) const DEFAULT_WINDOW: i64 = 65_535;

/// No window may become larger.
pub(super) const MAX_WINDOW: i64 = 0x7fff_ffff;

pub(super) mod kind {
    pub(in crate::h2) const DATA: u8 = 0x0;
    pub(in crate::h2) const HEADERS: u8 = 0x1;
    pub(in crate::h2) const RST_STREAM: u8 = 0x3;
    pub(in crate::h2) const SETTINGS: u8 = 0x4;
    pub(in crate::h2) const PUSH_PROMISE: u8 = 0x5;
    pub(in crate::h2) const PING: u8 = 0x6;
    pub(in crate::h2) const GOAWAY: u8 = 0x7;
    pub(in crate::h2) const WINDOW_UPDATE: u8 = 0x8;
    pub(in crate::h2) const CONTINUATION: u8 = 0x9;
}

pub(super) mod flag {
    pub(in crate::h2) const END_STREAM: u8 = 0x1;
    pub(in crate::h2) const ACK: u8 = 0x1;
    pub(in crate::h2) const END_HEADERS: u8 = 0x4;
    pub(in crate::h2) const PADDED: u8 = 0x8;
    pub(in crate::h2) const PRIORITY: u8 = 0x20;
}

pub(super) mod setting {
    pub(in crate::h2) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(in crate::h2) const ENABLE_PUSH: u16 = 0x2;
    pub(in crate::h2) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(in crate::h2) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(in crate::h2) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(in crate::h2) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
}

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: StreamId,
}

impl Head {
    pub(super) fn read(bytes: [u8; HEAD]) -> Self {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = bytes;
        let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        Self { length, kind, flags, stream: StreamId(u32::from_be_bytes([s3 & 0x7f, s2, s1, s0])) }
    }

    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame's head. `length` is at most the peer's largest frame, so below 2²⁴.
pub(super) fn put_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: StreamId) {
    let [_, l2, l1, l0] = (length as u32).to_be_bytes();
    let [s3, s2, s1, s0] = stream.0.to_be_bytes();
    out.extend_from_slice(&[l2, l1, l0, kind, flags, s3, s2, s1, s0]);
}

pub(super) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: StreamId, payload: &[u8]) {
    put_head(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

pub(super) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    put_head(out, settings.len() * 6, kind::SETTINGS, 0, StreamId::CONNECTION);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn put_window_update(out: &mut Vec<u8>, stream: StreamId, increment: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}
