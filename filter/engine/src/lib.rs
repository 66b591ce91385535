//! Sans-IO engines of Meltemi.
//!
//! An engine gets bytes and the time, and gives bytes and signals: no sockets, no clock, no threads. Its hosts are the
//! Envoy dynamic module, the Wasm filter and the in-memory pair in the tests.

mod buffer;
mod clock;
mod close;
pub mod config;
#[cfg(test)]
mod cutting;
mod destinations;
pub mod h2;
mod http;
pub mod inlet;
pub mod names;
pub mod outlet;
#[cfg(test)]
mod pair;
pub mod relay;
pub mod route;
#[cfg(test)]
mod test_bare;
#[cfg(test)]
mod test_codec;
pub mod tunnel;

pub use clock::Clock;
pub use close::Close;
pub use destinations::Destinations;
pub use http::{HeaderSource, HeaderStore};
