//! proxy-wasm host of Meltemi: the same codecs and engines in a Wasm network filter, for every stock Envoy and for proxies
//! that may not load a shared object.
//!
//! | `root_id` of the plugin | stands | engine |
//! |---|---|---|
//! | `inlet` | before an HTTP connection manager | `meltemi_engine::inlet` |
//! | `outlet` | in an internal listener, before an HTTP connection manager that terminates `CONNECT` | `meltemi_engine::tunnel` |
//! | `relay` | before `tcp_proxy` | `meltemi_engine::relay` |
//!
//! The plugin's configuration is the JSON of the dynamic module's filters, field by field.
//!
//! The calls of ABI 0.2.1 are made and taken here, not by the `proxy-wasm` crate: that panics on every status which it does
//! not expect, and its dispatcher cannot be entered again from within a call to Envoy, which is how an HTTP connection
//! manager answers. A panic costs all connections of a worker.

// Natively there is nothing to be loaded by Envoy: only the tests and the documentation are built.
#![cfg(any(target_family = "wasm", test, doc))]

#[allow(unsafe_code)]
mod abi;
mod few;
mod host;
mod vm;

#[doc(hidden)]
pub use abi::initialize;
