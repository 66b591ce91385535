//! Protocols that Meltemi speaks: one module and one feature each.

#[cfg(feature = "thrift")]
pub mod thrift;

use meltemi::CodecEntry;

/// Every codec of this build.
pub const ALL: &[CodecEntry] = &[
    #[cfg(feature = "thrift")]
    thrift::ENTRY,
];
