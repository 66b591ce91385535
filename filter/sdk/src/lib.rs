#![doc = include_str!("guide.md")]
// Without the module feature the example has no `export!`, so it can be shown but not compiled.
#![cfg_attr(feature = "module", doc = concat!("```\n", include_str!("../examples/lines.rs"), "```\n"))]
#![cfg_attr(not(feature = "module"), doc = concat!("```ignore\n", include_str!("../examples/lines.rs"), "```\n"))]
#![doc = include_str!("guide_end.md")]

pub use meltemi_core::*;

mod export;

/// What [`export!`] needs.
#[cfg(all(feature = "module", not(target_family = "wasm")))]
#[doc(hidden)]
pub use meltemi_module as module;
/// What [`export!`] needs.
#[cfg(all(feature = "module", target_family = "wasm"))]
#[doc(hidden)]
pub use meltemi_wasm as module;
