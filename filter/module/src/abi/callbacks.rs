//! What Envoy 1.38 and every later version exports. A name that 1.38 does not have must not stand here: the module would
//! not load there.

use core::{
    ffi::{CStr, c_char, c_void},
    ptr::NonNull,
};

use super::types::{Buffer, EnvoyPtr, HttpHeader};

macro_rules! callbacks {
    ($($name:ident = $symbol:literal ($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        unsafe extern "C" {
            $(
                #[link_name = concat!("envoy_dynamic_module_callback_", $symbol)]
                pub(super) fn $name($($argument: $type),*) $(-> $result)?;
            )*
        }
    };
}

callbacks! {
    log = "log"(level: u32, message: Buffer);

    network_read_chunks_size = "network_filter_get_read_buffer_chunks_size"(filter: EnvoyPtr) -> usize;
    network_read_chunks = "network_filter_get_read_buffer_chunks"(filter: EnvoyPtr, out: *mut Buffer) -> bool;
    network_drain_read = "network_filter_drain_read_buffer"(filter: EnvoyPtr, length: usize) -> bool;
    network_append_read = "network_filter_append_read_buffer"(filter: EnvoyPtr, data: Buffer) -> bool;
    network_write_chunks_size = "network_filter_get_write_buffer_chunks_size"(filter: EnvoyPtr) -> usize;
    network_write_chunks = "network_filter_get_write_buffer_chunks"(filter: EnvoyPtr, out: *mut Buffer) -> bool;
    network_drain_write = "network_filter_drain_write_buffer"(filter: EnvoyPtr, length: usize) -> bool;
    network_append_write = "network_filter_append_write_buffer"(filter: EnvoyPtr, data: Buffer) -> bool;
    network_inject_read = "network_filter_inject_read_data"(filter: EnvoyPtr, data: Buffer, end: bool);
    network_inject_write = "network_filter_inject_write_data"(filter: EnvoyPtr, data: Buffer, end: bool);
    network_close = "network_filter_close"(filter: EnvoyPtr, kind: u32);
    network_read_disable = "network_filter_read_disable"(filter: EnvoyPtr, disable: bool) -> u32;
    network_enable_half_close = "network_filter_enable_half_close"(filter: EnvoyPtr, enable: bool);
    network_local_address = "network_filter_get_local_address"(filter: EnvoyPtr, address: *mut Buffer, port: *mut u32) -> bool;
    network_set_state_bytes = "network_set_filter_state_bytes"(filter: EnvoyPtr, key: Buffer, value: Buffer) -> bool;
    network_get_state_bytes = "network_get_filter_state_bytes"(filter: EnvoyPtr, key: Buffer, out: *mut Buffer) -> bool;
    network_set_state_typed = "network_set_filter_state_typed"(filter: EnvoyPtr, key: Buffer, value: Buffer) -> bool;
    network_define_counter = "network_filter_config_define_counter"(config: EnvoyPtr, name: Buffer, id: *mut usize) -> u32;
    network_define_gauge = "network_filter_config_define_gauge"(config: EnvoyPtr, name: Buffer, id: *mut usize) -> u32;
    network_define_histogram = "network_filter_config_define_histogram"(config: EnvoyPtr, name: Buffer, id: *mut usize) -> u32;
    network_increment_counter = "network_filter_increment_counter"(filter: EnvoyPtr, id: usize, by: u64) -> u32;
    network_increment_gauge = "network_filter_increment_gauge"(filter: EnvoyPtr, id: usize, by: u64) -> u32;
    network_decrement_gauge = "network_filter_decrement_gauge"(filter: EnvoyPtr, id: usize, by: u64) -> u32;
    network_record_histogram = "network_filter_record_histogram_value"(filter: EnvoyPtr, id: usize, value: u64) -> u32;
    network_scheduler_new = "network_filter_scheduler_new"(filter: EnvoyPtr) -> *mut c_void;
    network_scheduler_commit = "network_filter_scheduler_commit"(scheduler: *mut c_void, event: u64);
    network_scheduler_delete = "network_filter_scheduler_delete"(scheduler: *mut c_void);

    bridge_header = "upstream_http_tcp_bridge_get_request_header"(
        bridge: EnvoyPtr, name: Buffer, value: *mut Buffer, index: usize, count: *mut usize) -> bool;
    bridge_headers_size = "upstream_http_tcp_bridge_get_request_headers_size"(bridge: EnvoyPtr) -> usize;
    bridge_headers = "upstream_http_tcp_bridge_get_request_headers"(bridge: EnvoyPtr, out: *mut HttpHeader) -> bool;
    bridge_request = "upstream_http_tcp_bridge_get_request_buffer"(bridge: EnvoyPtr, out: *mut Buffer, count: *mut usize);
    bridge_response = "upstream_http_tcp_bridge_get_response_buffer"(bridge: EnvoyPtr, out: *mut Buffer, count: *mut usize);
    bridge_send_upstream = "upstream_http_tcp_bridge_send_upstream_data"(bridge: EnvoyPtr, data: Buffer, end: bool);
    bridge_send_response_headers = "upstream_http_tcp_bridge_send_response_headers"(
        bridge: EnvoyPtr, status: u32, headers: *const HttpHeader, count: usize, end: bool);
    bridge_send_response_data = "upstream_http_tcp_bridge_send_response_data"(bridge: EnvoyPtr, data: Buffer, end: bool);

    listener_local_address = "listener_filter_get_local_address"(filter: EnvoyPtr, address: *mut Buffer, port: *mut u32) -> bool;
    listener_set_protocols = "listener_filter_set_requested_application_protocols"(
        filter: EnvoyPtr, protocols: *mut Buffer, count: usize);
}

/// Counts the pieces of a bridge's buffer; Envoy 1.39 and later.
pub(super) type ChunksSize = unsafe extern "C" fn(EnvoyPtr) -> usize;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

/// A function of Envoy's that older versions lack.
pub(super) fn find(symbol: &CStr) -> Option<NonNull<c_void>> {
    // RTLD_DEFAULT on Linux: the symbols of the whole process, Envoy's among them.
    let everywhere = core::ptr::null_mut();
    // SAFETY: `symbol` ends with NUL.
    NonNull::new(unsafe { dlsym(everywhere, symbol.as_ptr()) })
}

/// As [`find`], for the functions that count pieces.
pub(super) fn find_chunks_size(symbol: &CStr) -> Option<ChunksSize> {
    // SAFETY: abi.h gives the functions that we ask for here this type.
    find(symbol).map(|found| unsafe { core::mem::transmute::<*mut c_void, ChunksSize>(found.as_ptr()) })
}
