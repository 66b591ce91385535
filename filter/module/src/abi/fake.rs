//! Envoy's side of the ABI for unit tests: the callbacks that the module calls, and safe calls of the module's hooks.
//!
//! One Envoy a thread, so each test has its own.

use core::{
    cell::RefCell,
    ffi::{CStr, c_void},
    ptr,
};
use std::collections::BTreeMap;

use super::types::{Buffer, EnvoyPtr, HttpHeader, ModulePtr};

/// What the module sees of Envoy, and what it has done to it.
#[derive(Default)]
pub(crate) struct Envoy {
    pub(crate) log: Vec<String>,
    pub(crate) local_address: Option<(&'static str, u32)>,
    pub(crate) metrics: Vec<(String, i64)>,
    pub(crate) filter_state: BTreeMap<String, String>,
    pub(crate) protocols: Vec<String>,
    /// The connection's read buffer, the bytes being written, and where they go.
    pub(crate) read: Vec<u8>,
    pub(crate) write: Vec<u8>,
    pub(crate) to_next_filter: Vec<u8>,
    pub(crate) next_filter_ended: bool,
    pub(crate) refuses_state: bool,
    pub(crate) to_client: Vec<u8>,
    pub(crate) reading_disabled: bool,
    pub(crate) wakeups: usize,
    /// Kind of close: 0 flush, 1 at once.
    pub(crate) closed: Option<u32>,
    pub(crate) request_headers: Vec<(&'static str, String)>,
    /// What `encode_data` or `on_upstream_data` shows, in pieces.
    pub(crate) bridge_data: Vec<Vec<u8>>,
    pub(crate) to_server: Vec<u8>,
    pub(crate) response: Option<Response>,
}

/// A response that the bridge sent.
#[derive(Default)]
pub(crate) struct Response {
    pub(crate) status: u32,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: bool,
}

impl Envoy {
    pub(crate) fn metric(&self, name: &str) -> i64 {
        self.metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value).unwrap()
    }

    fn change_metric(&mut self, id: usize, by: i64) -> u32 {
        self.metrics[id].1 += by;
        0
    }
}

thread_local! {
    static ENVOY: RefCell<Envoy> = RefCell::default();
}

/// This thread's Envoy.
pub(crate) fn envoy<T>(work: impl FnOnce(&mut Envoy) -> T) -> T {
    ENVOY.with_borrow_mut(work)
}

const NOBODY: EnvoyPtr = ptr::null_mut();

fn bytes(buffer: Buffer) -> Vec<u8> {
    // SAFETY: the module lends it for the call.
    unsafe { buffer.bytes() }.to_vec()
}

fn text(buffer: Buffer) -> String {
    String::from_utf8(bytes(buffer)).unwrap()
}

/// Shows bytes in two pieces.
fn show(data: &[u8], out: *mut Buffer) -> bool {
    let (front, back) = data.split_at(data.len() / 2);
    // SAFETY: `count_pieces` said that there are two.
    unsafe {
        out.write(Buffer::of(front));
        out.add(1).write(Buffer::of(back));
    }
    true
}

fn drain(data: &mut Vec<u8>, length: usize) -> bool {
    data.drain(..length);
    true
}

macro_rules! callbacks {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        #[unsafe(export_name = concat!("envoy_dynamic_module_callback_", stringify!($name)))]
        extern "C" fn $name($($argument: $type),*) $(-> $result)? $body
    )*};
}

callbacks! {
    log(_level: u32, message: Buffer) { envoy(|e| e.log.push(text(message))) }
    network_filter_get_read_buffer_chunks_size(_f: EnvoyPtr) -> usize { 2 }
    network_filter_get_read_buffer_chunks(_f: EnvoyPtr, out: *mut Buffer) -> bool { envoy(|e| show(&e.read, out)) }
    network_filter_drain_read_buffer(_f: EnvoyPtr, length: usize) -> bool { envoy(|e| drain(&mut e.read, length)) }
    network_filter_append_read_buffer(_f: EnvoyPtr, data: Buffer) -> bool {
        envoy(|e| e.read.extend(bytes(data)));
        true
    }
    network_filter_get_write_buffer_chunks_size(_f: EnvoyPtr) -> usize { 2 }
    network_filter_get_write_buffer_chunks(_f: EnvoyPtr, out: *mut Buffer) -> bool { envoy(|e| show(&e.write, out)) }
    network_filter_drain_write_buffer(_f: EnvoyPtr, length: usize) -> bool { envoy(|e| drain(&mut e.write, length)) }
    network_filter_append_write_buffer(_f: EnvoyPtr, data: Buffer) -> bool {
        envoy(|e| e.write.extend(bytes(data)));
        true
    }
    network_filter_inject_read_data(_f: EnvoyPtr, data: Buffer, end: bool) {
        envoy(|e| {
            e.to_next_filter.extend(bytes(data));
            e.next_filter_ended |= end;
        });
    }
    network_filter_inject_write_data(_f: EnvoyPtr, data: Buffer, _end: bool) {
        envoy(|e| e.to_client.extend(bytes(data)));
    }
    network_filter_close(_f: EnvoyPtr, kind: u32) { envoy(|e| e.closed = Some(kind)) }
    network_filter_read_disable(_f: EnvoyPtr, disable: bool) -> u32 {
        envoy(|e| e.reading_disabled = disable);
        0
    }
    network_filter_enable_half_close(_f: EnvoyPtr, _enable: bool) {}
    network_filter_get_local_address(_f: EnvoyPtr, address: *mut Buffer, port: *mut u32) -> bool {
        local_address(address, port)
    }
    network_set_filter_state_bytes(_f: EnvoyPtr, key: Buffer, value: Buffer) -> bool {
        envoy(|e| e.filter_state.insert(text(key), text(value)));
        true
    }
    network_set_filter_state_typed(f: EnvoyPtr, key: Buffer, value: Buffer) -> bool {
        !envoy(|e| e.refuses_state) && network_set_filter_state_bytes(f, key, value)
    }
    network_filter_config_define_counter(_c: EnvoyPtr, name: Buffer, id: *mut usize) -> u32 { define(name, id) }
    network_filter_config_define_gauge(_c: EnvoyPtr, name: Buffer, id: *mut usize) -> u32 { define(name, id) }
    network_filter_config_define_histogram(_c: EnvoyPtr, name: Buffer, id: *mut usize) -> u32 { define(name, id) }
    network_filter_increment_counter(_f: EnvoyPtr, id: usize, by: u64) -> u32 {
        envoy(|e| e.change_metric(id, by.cast_signed()))
    }
    network_filter_increment_gauge(_f: EnvoyPtr, id: usize, by: u64) -> u32 {
        envoy(|e| e.change_metric(id, by.cast_signed()))
    }
    network_filter_decrement_gauge(_f: EnvoyPtr, id: usize, by: u64) -> u32 {
        envoy(|e| e.change_metric(id, -by.cast_signed()))
    }
    network_filter_record_histogram_value(_f: EnvoyPtr, id: usize, _value: u64) -> u32 {
        envoy(|e| e.change_metric(id, 1))
    }
    network_filter_scheduler_new(_f: EnvoyPtr) -> *mut c_void { ptr::dangling_mut() }
    network_filter_scheduler_commit(_s: *mut c_void, _event: u64) { envoy(|e| e.wakeups += 1) }
    network_filter_scheduler_delete(_s: *mut c_void) {}
    listener_filter_get_local_address(_f: EnvoyPtr, address: *mut Buffer, port: *mut u32) -> bool {
        local_address(address, port)
    }
    listener_filter_set_requested_application_protocols(_f: EnvoyPtr, list: *mut Buffer, count: usize) {
        // SAFETY: the module lends a list of this length.
        let list = unsafe { core::slice::from_raw_parts(list, count) };
        envoy(|e| e.protocols = list.iter().map(|protocol| text(*protocol)).collect());
    }
    upstream_http_tcp_bridge_get_request_header(
        _b: EnvoyPtr, name: Buffer, value: *mut Buffer, _index: usize, _count: *mut usize) -> bool {
        envoy(|e| {
            let name = text(name);
            let Some((_, found)) = e.request_headers.iter().find(|(header, _)| *header == name) else { return false };
            // SAFETY: the module's own memory.
            unsafe { value.write(Buffer::of(found.as_bytes())) };
            true
        })
    }
    upstream_http_tcp_bridge_get_request_headers_size(_b: EnvoyPtr) -> usize { envoy(|e| e.request_headers.len()) }
    upstream_http_tcp_bridge_get_request_headers(_b: EnvoyPtr, out: *mut HttpHeader) -> bool {
        envoy(|e| for (index, (name, value)) in e.request_headers.iter().enumerate() {
            let header = HttpHeader { name: Buffer::of(name.as_bytes()), value: Buffer::of(value.as_bytes()) };
            // SAFETY: the module has asked how many there are.
            unsafe { out.add(index).write(header) };
        });
        true
    }
    upstream_http_tcp_bridge_get_request_buffer(_b: EnvoyPtr, out: *mut Buffer, count: *mut usize) {
        show_all(out, count);
    }
    upstream_http_tcp_bridge_get_response_buffer(_b: EnvoyPtr, out: *mut Buffer, count: *mut usize) {
        show_all(out, count);
    }
    upstream_http_tcp_bridge_send_upstream_data(_b: EnvoyPtr, data: Buffer, _end: bool) {
        envoy(|e| e.to_server.extend(bytes(data)));
    }
    upstream_http_tcp_bridge_send_response(
        _b: EnvoyPtr, status: u32, headers: *const HttpHeader, count: usize, body: Buffer) {
        respond(status, headers, count, bytes(body), true);
    }
    upstream_http_tcp_bridge_send_response_headers(
        _b: EnvoyPtr, status: u32, headers: *const HttpHeader, count: usize, end: bool) {
        respond(status, headers, count, Vec::new(), end);
    }
    upstream_http_tcp_bridge_send_response_data(_b: EnvoyPtr, data: Buffer, end: bool) {
        envoy(|e| {
            let response = e.response.as_mut().unwrap();
            response.body.extend(bytes(data));
            response.end = end;
        });
    }
}

fn local_address(address: *mut Buffer, port: *mut u32) -> bool {
    let Some((text, number)) = envoy(|e| e.local_address) else { return false };
    // SAFETY: the module's own memory.
    unsafe {
        address.write(Buffer::of(text.as_bytes()));
        port.write(number);
    }
    true
}

fn define(name: Buffer, id: *mut usize) -> u32 {
    envoy(|e| {
        e.metrics.push((text(name), 0));
        // SAFETY: the module's own memory.
        unsafe { id.write(e.metrics.len() - 1) };
    });
    0
}

fn show_all(out: *mut Buffer, count: *mut usize) {
    envoy(|e| {
        for (index, piece) in e.bridge_data.iter().enumerate() {
            // SAFETY: the module has room for more pieces than any test has.
            unsafe { out.add(index).write(Buffer::of(piece)) };
        }
        // SAFETY: the module's own memory.
        unsafe { count.write(e.bridge_data.len()) };
    });
}

fn respond(status: u32, headers: *const HttpHeader, count: usize, body: Vec<u8>, end: bool) {
    // SAFETY: the module lends a list of this length.
    let headers = unsafe { core::slice::from_raw_parts(headers, count) };
    let headers = headers.iter().map(|header| (text(header.name), text(header.value))).collect();
    let before = envoy(|e| e.response.replace(Response { status, headers, body, end }));
    assert!(before.is_none(), "one response a request");
}

macro_rules! hooks {
    ($($name:ident($($type:ty),*) $(-> $result:ty)?;)*) => {
        // Declared here and found by name, as Envoy finds them.
        unsafe extern "C" {$(
            #[link_name = concat!("envoy_dynamic_module_on_", stringify!($name))]
            safe fn $name($(_: $type),*) $(-> $result)?;
        )*}
    };
}

hooks! {
    network_filter_config_new(EnvoyPtr, Buffer, Buffer) -> ModulePtr;
    network_filter_config_destroy(ModulePtr);
    network_filter_new(ModulePtr, EnvoyPtr) -> ModulePtr;
    network_filter_destroy(ModulePtr);
    network_filter_new_connection(EnvoyPtr, ModulePtr) -> u32;
    network_filter_read(EnvoyPtr, ModulePtr, usize, bool) -> u32;
    network_filter_write(EnvoyPtr, ModulePtr, usize, bool) -> u32;
    network_filter_event(EnvoyPtr, ModulePtr, u32);
    network_filter_scheduled(EnvoyPtr, ModulePtr, u64);
    network_filter_above_write_buffer_high_watermark(EnvoyPtr, ModulePtr);
    network_filter_below_write_buffer_low_watermark(EnvoyPtr, ModulePtr);
    listener_filter_config_new(EnvoyPtr, Buffer, Buffer) -> ModulePtr;
    listener_filter_config_destroy(ModulePtr);
    listener_filter_new(ModulePtr, EnvoyPtr) -> ModulePtr;
    listener_filter_destroy(ModulePtr);
    listener_filter_on_accept(EnvoyPtr, ModulePtr) -> u32;
    upstream_http_tcp_bridge_config_new(EnvoyPtr, Buffer, Buffer) -> ModulePtr;
    upstream_http_tcp_bridge_config_destroy(ModulePtr);
    upstream_http_tcp_bridge_new(ModulePtr, EnvoyPtr) -> ModulePtr;
    upstream_http_tcp_bridge_destroy(ModulePtr);
    upstream_http_tcp_bridge_encode_headers(EnvoyPtr, ModulePtr, bool);
    upstream_http_tcp_bridge_encode_data(EnvoyPtr, ModulePtr, bool);
    upstream_http_tcp_bridge_on_upstream_data(EnvoyPtr, ModulePtr, bool);
}

/// A network filter on one connection.
pub(crate) struct NetworkFilter {
    config: ModulePtr,
    filter: ModulePtr,
}

impl NetworkFilter {
    /// `None` if the module refuses the configuration.
    pub(crate) fn new(name: &str, config: &str) -> Option<Self> {
        let config = network_filter_config_new(NOBODY, Buffer::of(name.as_bytes()), Buffer::of(config.as_bytes()));
        if config.is_null() {
            return None;
        }
        let filter = network_filter_new(config, NOBODY);
        // The relay lets the next filters begin with the first bytes only.
        let waits = u32::from(name == "relay");
        assert_eq!(network_filter_new_connection(NOBODY, filter), waits);
        Some(Self { config, filter })
    }

    /// The client sends; whether the next filter is to see it.
    pub(crate) fn read(&self, data: &[u8]) -> bool {
        self.read_end(data, false)
    }

    /// The client sends, maybe the last.
    pub(crate) fn read_end(&self, data: &[u8], end: bool) -> bool {
        envoy(|e| e.read.extend(data));
        network_filter_read(NOBODY, self.filter, data.len(), end) == 0
    }

    /// The next filter writes; what of it goes on to the client.
    pub(crate) fn write(&self, data: &[u8]) -> Vec<u8> {
        envoy(|e| e.write = data.to_vec());
        let goes_on = network_filter_write(NOBODY, self.filter, data.len(), false) == 0;
        let written = envoy(|e| core::mem::take(&mut e.write));
        if goes_on { written } else { Vec::new() }
    }

    /// Runs what the module has scheduled.
    pub(crate) fn wake(&self) {
        for _ in 0..envoy(|e| core::mem::take(&mut e.wakeups)) {
            network_filter_scheduled(NOBODY, self.filter, 0);
        }
    }

    pub(crate) fn above_watermark(&self) {
        network_filter_above_write_buffer_high_watermark(NOBODY, self.filter);
    }

    pub(crate) fn below_watermark(&self) {
        network_filter_below_write_buffer_low_watermark(NOBODY, self.filter);
    }

    pub(crate) fn client_closes(&self) {
        network_filter_event(NOBODY, self.filter, 0);
    }
}

impl Drop for NetworkFilter {
    fn drop(&mut self) {
        network_filter_destroy(self.filter);
        network_filter_config_destroy(self.config);
    }
}

/// A connection that a listener filter looks at.
pub(crate) fn accept(config: &str) {
    let config = listener_filter_config_new(NOBODY, Buffer::of(b"declare"), Buffer::of(config.as_bytes()));
    let filter = listener_filter_new(config, NOBODY);
    assert_eq!(listener_filter_on_accept(NOBODY, filter), 0, "the next filters go on");
    listener_filter_destroy(filter);
    listener_filter_config_destroy(config);
}

/// A bridge for one request.
pub(crate) struct Bridge {
    config: ModulePtr,
    bridge: ModulePtr,
}

impl Bridge {
    /// `None` if the module refuses the configuration.
    pub(crate) fn new(config: &[u8]) -> Option<Self> {
        let config = upstream_http_tcp_bridge_config_new(NOBODY, Buffer::of(b"outlet"), Buffer::of(config));
        (!config.is_null()).then(|| Self { config, bridge: upstream_http_tcp_bridge_new(config, NOBODY) })
    }

    pub(crate) fn headers(&self, headers: &[(&'static str, &str)]) {
        envoy(|e| e.request_headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect());
        upstream_http_tcp_bridge_encode_headers(NOBODY, self.bridge, false);
    }

    pub(crate) fn data(&self, pieces: &[&[u8]], end: bool) {
        envoy(|e| e.bridge_data = pieces.iter().map(|piece| piece.to_vec()).collect());
        upstream_http_tcp_bridge_encode_data(NOBODY, self.bridge, end);
    }

    pub(crate) fn server_data(&self, pieces: &[&[u8]]) {
        envoy(|e| e.bridge_data = pieces.iter().map(|piece| piece.to_vec()).collect());
        upstream_http_tcp_bridge_on_upstream_data(NOBODY, self.bridge, false);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        upstream_http_tcp_bridge_destroy(self.bridge);
        upstream_http_tcp_bridge_config_destroy(self.config);
    }
}

/// The version that the module says it was made for.
pub(crate) fn version() -> &'static CStr {
    // SAFETY: a static string.
    unsafe { CStr::from_ptr(super::program_init()) }
}
