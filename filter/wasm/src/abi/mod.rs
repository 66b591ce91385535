//! proxy-wasm ABI 0.2.1: what Envoy calls, and what we call in Envoy, as functions that return instead of panicking.
//! <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>

mod envoy;
#[cfg(target_family = "wasm")]
mod exports;
#[cfg(not(target_family = "wasm"))]
pub(crate) mod fake;
#[cfg(target_family = "wasm")]
mod imports;

#[cfg(not(target_family = "wasm"))]
use fake as sys;
#[cfg(target_family = "wasm")]
use imports as sys;

pub(crate) use envoy::{
    Buffer, Metric, MetricKind, close, configuration, count, define_metric, log_error, move_gauge, property, read,
    record, resume, root_id, set_cluster, set_context, set_property, set_tick, write,
};

use meltemi_core::CodecEntry;

/// Begins the life of a VM: called by `meltemi::export!`, before anything else.
pub fn initialize(codecs: &'static [CodecEntry]) {
    #[cfg(target_family = "wasm")]
    // SAFETY: made by the linker, called once, first.
    unsafe {
        imports::__wasm_call_ctors();
    }
    crate::vm::register(codecs);
}
