//! Protocols that Meltemi speaks: one module and one feature each.

#[cfg(feature = "dubbo")]
pub mod dubbo;
#[cfg(feature = "thrift")]
pub mod thrift;

use meltemi::CodecEntry;

/// Every codec of this build.
pub const ALL: &[CodecEntry] = &[
    #[cfg(feature = "dubbo")]
    dubbo::ENTRY,
    #[cfg(feature = "thrift")]
    thrift::ENTRY,
];
