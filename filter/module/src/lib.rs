//! Envoy dynamic-module host of Meltemi.
//!
//! | Envoy extension | name in its configuration | engine |
//! |---|---|---|
//! | network filter `envoy.filters.network.dynamic_modules` | `inlet` | `meltemi_engine::inlet` |
//! | the same | `relay` | `meltemi_engine::relay` |
//! | listener filter `envoy.filters.listener.dynamic_modules` | `declare` | none: declares the application protocol |
//! | upstream bridge `envoy.upstreams.http.dynamic_modules` | `outlet` | `meltemi_engine::outlet` |
//!
//! All hooks that Envoy looks up are in this crate; a module needs only to say which codecs it has, which
//! `meltemi::export!` does. Built against the ABI of Envoy 1.38; what came later is looked up at run time.

#[allow(unsafe_code)]
mod abi;
mod host;
mod registry;

#[doc(hidden)]
pub use abi::program_init;
pub use registry::register;
