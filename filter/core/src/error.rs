use thiserror::Error;

/// Whose doing an error is: decides the counter it goes to and who should look into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer sent bytes that the protocol does not allow.
    Peer,
    /// The bytes are fine but larger, deeper or more than the configured [`Limits`](crate::Limits).
    Limit,
    /// The bytes are fine but this codec does not support what they use.
    Codec,
}

/// Bytes that can never become a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{kind}: {reason} (at byte {offset} of the frame)")]
pub struct DecodeError {
    /// What kind of error.
    pub kind: DecodeErrorKind,
    /// What exactly, in the protocol's words.
    pub reason: &'static str,
    /// Where, counted from the start of the frame.
    pub offset: usize,
}

/// Kinds of [`DecodeError`]; each is one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The peer sent bytes that the protocol does not allow.
    #[error("malformed")]
    Malformed,
    /// A length above the limits.
    #[error("too large")]
    TooLarge,
    /// Nesting above the limits.
    #[error("nested too deep")]
    TooDeep,
    /// Allowed by the protocol, not supported by this codec.
    #[error("unsupported")]
    Unsupported,
}

impl DecodeError {
    /// The peer sent bytes that the protocol does not allow.
    pub const fn malformed(reason: &'static str, offset: usize) -> Self {
        Self { kind: DecodeErrorKind::Malformed, reason, offset }
    }

    /// A length above the limits.
    pub const fn too_large(reason: &'static str, offset: usize) -> Self {
        Self { kind: DecodeErrorKind::TooLarge, reason, offset }
    }

    /// Nesting above the limits.
    pub const fn too_deep(offset: usize) -> Self {
        Self { kind: DecodeErrorKind::TooDeep, reason: "value nested deeper than the limit", offset }
    }

    /// Allowed by the protocol, not supported by this codec.
    pub const fn unsupported(reason: &'static str, offset: usize) -> Self {
        Self { kind: DecodeErrorKind::Unsupported, reason, offset }
    }

    /// Whose doing this is.
    pub const fn fault(&self) -> Fault {
        match self.kind {
            DecodeErrorKind::Malformed => Fault::Peer,
            DecodeErrorKind::TooLarge | DecodeErrorKind::TooDeep => Fault::Limit,
            DecodeErrorKind::Unsupported => Fault::Codec,
        }
    }
}

/// A frame that could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The protocol, or this frame of it, has no place for what was asked.
    #[error("unsupported: {0}")]
    Unsupported(&'static str),
    /// The result would be above the limits or above what its length field can say.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// The frame given is not one that this codec decodes.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}

/// A codec option that is unknown or has a bad value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("codec option `{name}`: {reason}")]
pub struct OptionError {
    /// The option's name.
    pub name: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}
