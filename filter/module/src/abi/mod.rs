//! The only unsafe code: Envoy's C ABI on one side, safe handles and traits on the other.
//!
//! Envoy calls every hook of one filter on one thread, and its pointers are valid during the hook. Handles therefore
//! only get out of here as arguments of a hook, and filters live in an [`Rc`](std::rc::Rc): a filter that Envoy
//! destroys in the middle of a call of ours (which older versions do) lives until that call has returned.

mod bridge;
mod callbacks;
#[cfg(test)]
pub(crate) mod fake;
mod guard;
mod listener;
mod network;
mod types;

pub(crate) use bridge::{Bridge, Request, RequestConfig, counts_pieces};
pub(crate) use listener::{Accept, Listener};
pub(crate) use network::{ConfigScope, Connection, Connections, Metric, Network, Wakeup};
pub(crate) use types::{ConnectionEvent, Status};

use std::sync::LazyLock;

use types::Buffer;

/// A callback that came with Envoy 1.40, as did the newer version of the ABI.
static IS_BEFORE_1_40: LazyLock<bool> = LazyLock::new(|| {
    callbacks::find(c"envoy_dynamic_module_callback_network_filter_start_downstream_secure_transport").is_none()
});

/// This Envoy is 1.38 or 1.39.
fn is_before_1_40() -> bool {
    *IS_BEFORE_1_40
}

/// What `envoy_dynamic_module_on_program_init` gives Envoy: the version of the ABI that this module was made for. Envoy
/// compares it for a line in its log, no more; what we use is the same in both versions, so the answer is the one that
/// does not send people looking for another module.
#[doc(hidden)]
pub fn program_init() -> *const core::ffi::c_char {
    if is_before_1_40() { c"v0.1.0".as_ptr() } else { c"v0.2.0".as_ptr() }
}

/// Writes a line to Envoy's log.
pub(crate) fn log(level: Level, message: &str) {
    // SAFETY: the buffer is borrowed for the call.
    unsafe { callbacks::log(level as u32, Buffer::of(message.as_bytes())) }
}

/// Levels of Envoy's log.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum Level {
    Error = 4,
}
