//! SDK for Meltemi codecs.

pub use meltemi_core::*;

#[cfg(feature = "module")]
mod export;

/// What [`export!`] needs.
#[cfg(feature = "module")]
#[doc(hidden)]
pub use meltemi_module as module;
