//! SDK for codec authors.
pub use meltemi_core::*;
