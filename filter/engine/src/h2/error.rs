use thiserror::Error;

/// Why a stream or a connection ends early (RFC 9113, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// Nothing went wrong.
    NoError = 0x0,
    /// The peer broke the protocol.
    Protocol = 0x1,
    /// We failed.
    Internal = 0x2,
    /// The peer sent more than its window.
    FlowControl = 0x3,
    /// A frame after the end of its stream.
    StreamClosed = 0x5,
    /// A frame of a wrong size.
    FrameSize = 0x6,
    /// The stream was not begun.
    RefusedStream = 0x7,
    /// The stream is not wanted any more.
    Cancel = 0x8,
    /// A header block that is not HPACK.
    Compression = 0x9,
    /// The peer asks too much of us.
    EnhanceYourCalm = 0xb,
}

/// The peer broke a rule that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("HTTP/2 peer: {reason} ({code:?})")]
pub struct Error {
    /// What we tell the peer.
    pub code: ErrorCode,
    /// What it did.
    pub reason: &'static str,
}

impl Error {
    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self { code: ErrorCode::Protocol, reason }
    }

    pub(super) const fn flow_control(reason: &'static str) -> Self {
        Self { code: ErrorCode::FlowControl, reason }
    }

    pub(super) const fn frame_size(reason: &'static str) -> Self {
        Self { code: ErrorCode::FrameSize, reason }
    }

    pub(super) const fn calm(reason: &'static str) -> Self {
        Self { code: ErrorCode::EnhanceYourCalm, reason }
    }
}
