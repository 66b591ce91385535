//! Listener filters.

use core::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    Level, callbacks,
    guard::guarded,
    log,
    network::local_address,
    types::{Buffer, EnvoyPtr, ModulePtr, Status},
};

/// A listener filter: all it does is look at a connection when it is accepted.
pub(crate) trait Accept: Send + Sync {
    fn on_accept(&self, envoy: Listener);
}

/// Envoy's side of a listener filter, for the time of a hook.
#[derive(Clone, Copy)]
pub(crate) struct Listener(EnvoyPtr);

impl Listener {
    /// Where the client wanted to go; `None` for addresses that are no IP.
    pub(crate) fn local_address(self) -> Option<(IpAddr, u16)> {
        local_address(|address, port| {
            // SAFETY: both point to memory of the caller.
            unsafe { callbacks::listener_local_address(self.0, address, port) }
        })
    }

    /// Declares what the client speaks, as if it had said so itself.
    pub(crate) fn set_application_protocols(self, protocols: &[String]) {
        let mut list: SmallVec<[Buffer; 4]> =
            protocols.iter().map(|protocol| Buffer::of(protocol.as_bytes())).collect();
        // SAFETY: Envoy copies the names.
        unsafe { callbacks::listener_set_protocols(self.0, list.as_mut_ptr(), list.len()) };
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_config_new(_: EnvoyPtr, name: Buffer, json: Buffer) -> ModulePtr {
    // SAFETY: Envoy lends both for the call.
    let (name, json) = unsafe { (name.bytes(), json.bytes()) };
    match guarded("listener_filter_config_new", || crate::host::listener(name, json)) {
        Some(Ok(filter)) => Box::into_raw(Box::new(filter)).cast_const().cast(),
        Some(Err(error)) => {
            log(Level::Error, &format!("meltemi: listener filter `{}`: {error}", String::from_utf8_lossy(name)));
            core::ptr::null()
        }
        None => core::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_config_destroy(config: ModulePtr) {
    // SAFETY: made by `config_new`, destroyed once.
    drop(unsafe { Box::from_raw(config.cast_mut().cast::<Arc<dyn Accept>>()) });
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_new(config: ModulePtr, _: EnvoyPtr) -> ModulePtr {
    // SAFETY: made by `config_new`, lives longer than its filters.
    let filter = unsafe { &*config.cast::<Arc<dyn Accept>>() };
    Box::into_raw(Box::new(filter.clone())).cast_const().cast()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_destroy(filter: ModulePtr) {
    // SAFETY: made by `filter_new`, destroyed once.
    drop(unsafe { Box::from_raw(filter.cast_mut().cast::<Arc<dyn Accept>>()) });
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_on_accept(envoy: EnvoyPtr, filter: ModulePtr) -> u32 {
    // SAFETY: made by `filter_new`, not yet destroyed.
    let filter = unsafe { &*filter.cast::<Arc<dyn Accept>>() };
    guarded("on_accept", || filter.on_accept(Listener(envoy)));
    Status::Continue as u32
}

// Envoy asks for the following hooks even from filters that have no use for them.

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_on_data(_: EnvoyPtr, _: ModulePtr, _: usize) -> u32 {
    Status::Continue as u32
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_on_close(_: EnvoyPtr, _: ModulePtr) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_get_max_read_bytes(_: EnvoyPtr, _: ModulePtr) -> usize {
    0
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_scheduled(_: EnvoyPtr, _: ModulePtr, _: u64) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_listener_filter_config_scheduled(_: EnvoyPtr, _: ModulePtr, _: u64) {}
